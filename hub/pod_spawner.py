"""The spawner on a cluster: a pod with our sidecar in it, whose end is never cut short."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientError
from kubernetes_asyncio.client.rest import ApiException
from kubespawner.clients import shared_client
from traitlets import Enum, Integer, Unicode, default

from hub.admission import FailedStart
from hub.identity import subject_of
from hub.pod import notebook_environment
from hub.pod_join import DEFAULT_GID, DEFAULT_UID, PodConflict, complete
from hub.pod_plan import Deployment, PodPlan, pod_plan
from hub.pod_progress import Step, hopeless, steps
from hub.pod_reflector import RememberingPodReflector
from hub.pod_reports import Safe, describe, end_of, storage_ran
from hub.pod_times import START_TIMEOUT_S, times_problem
from hub.pod_words import no_pod
from hub.resolve import Decision, Granted
from hub.spawner import SidecarSpawner
from hub.text import visible

NATIVE_SINCE = (1, 29)
_MARGIN_S = 3.0
"""Before JupyterHub gives up, and only says so, we do, and say why."""
_LOOK_EVERY_S = 0.5
_ANSWERS_S = 50.0


class PodSpawner(SidecarSpawner):
    """Starts each server as one pod. What of it is in the policy comes from there, what is not from the settings here
    and from KubeSpawner's own."""

    sidecar_image = Unicode(
        "localhost/jupyterhub-sidecar",
        config=True,
        help="The image of our containers; images/sidecar/build.sh makes it.",
    )
    sidecar_image_pull_policy = Enum(["IfNotPresent", "Always", "Never"], default_value="IfNotPresent", config=True)
    native_sidecar = Enum(
        ["auto", "yes", "no"],
        default_value="auto",
        config=True,
        help="Whether the cluster has native sidecars (Kubernetes 1.29 and later); auto: its API server is asked.",
    )
    restore_wait_s = Integer(
        120,
        min=1,
        config=True,
        help="So long the start of a notebook waits for saved work to come back; the rest comes while it runs.",
    )

    _native: bool | None = None
    """What the API server said, for all spawners."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._told: list[Step] = []
        super().__init__(*args, **kwargs)

    @default("delete_grace_period")
    def _grace(self) -> int:
        return int(self.policy.storage.grace_s)

    @default("start_timeout")
    def _start_timeout(self) -> int:
        return START_TIMEOUT_S

    @default("uid")
    def _uid(self) -> int:
        return DEFAULT_UID

    @default("gid")
    def _gid(self) -> int:
        return DEFAULT_GID

    @property
    def grace_s(self) -> int:
        """What every end of a pod is given at least."""
        return max(int(self.delete_grace_period), int(self.policy.storage.grace_s))

    @property
    def plan(self) -> PodPlan:
        """The plan for what is granted now. Raises ``AssertionError`` where nothing is."""
        if self.granted is None:
            raise AssertionError("a pod needs a decision first")
        deployment = Deployment(
            image=self.sidecar_image,
            pull_policy=self.sidecar_image_pull_policy,
            native=self._is_native(),
            restore_wait_s=self.restore_wait_s,
        )
        return pod_plan(
            self.granted,
            self.policy,
            deployment,
            user=self.user.name,
            server=self.name,
            groups=self.group_names,
            subject=subject_of(self.user),
        )

    @property
    def _pod(self) -> dict[str, Any] | None:
        reflector = self.pod_reflector
        return None if reflector is None else reflector.pods.get(self._pod_key)

    def grant(self, decision: Decision) -> None:
        """``decision`` is in force, whoever made it."""
        self.granted = decision
        self._apply(Granted(decision))

    def get_env(self) -> dict[str, Any]:
        environment: dict[str, Any] = super().get_env()
        return environment if self.granted is None else {**environment, **notebook_environment(self.plan)}

    async def get_pod_manifest(self) -> Any:
        """The pod, with everything of ours in it. Raises ``FailedStart`` where the hub's configuration forbids that."""
        pod = await super().get_pod_manifest()
        try:
            return complete(pod, self.plan)
        except PodConflict as conflict:
            raise FailedStart(
                f"Your server was not started: {conflict}. Please tell the hub's administrator."
            ) from conflict

    # The start.

    async def _start(self) -> str:
        # What is granted is reserved before anything is waited for.
        await self.load_user_options()
        self._told = []
        try:
            problem = times_problem(
                grace_s=self.grace_s, start_timeout_s=self.start_timeout, restore_wait_s=self.restore_wait_s
            )
            if problem:
                raise FailedStart(f"Your server was not started: {problem}. Please tell the hub's administrator.")
            async with asyncio.timeout(max(1.0, self.start_timeout - _MARGIN_S)):
                await self._end_of_predecessor()
                await self._ask_version()
                return await self._watched_start()
        except TimeoutError as error:
            raise FailedStart(self._why_so_long()) from error
        except ApiException as error:
            raise FailedStart(f"Your server was not started: {no_pod(error.status, error.body)}") from error
        except ClientError as error:
            why = visible(str(error), limit=300)
            raise FailedStart(f"Your server was not started: the cluster does not answer ({why})") from error

    async def _end_of_predecessor(self) -> None:
        """No pod of this name is there any more: an earlier server's has ended, with all the time it needs."""
        await self._start_watching_pods()
        if self._pod is not None:
            self._told.append(Step(2, "Storage: saving your last session first"))
            await self.stop()

    async def _watched_start(self) -> str:
        """The notebook's address, where it answers. Raises ``FailedStart`` as soon as it is plain that it will not."""
        plan = self.plan  # a stop meanwhile takes back what was granted
        starting = asyncio.ensure_future(super()._start())
        try:
            while not starting.done():
                await asyncio.wait([starting], timeout=_LOOK_EVERY_S)
                self._give_up_if_hopeless(plan)
            url: str = starting.result()
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        deadline_s = asyncio.get_running_loop().time() + _ANSWERS_S
        while not await _answers(url) and asyncio.get_running_loop().time() < deadline_s:
            self._give_up_if_hopeless(plan)
            await asyncio.sleep(_LOOK_EVERY_S)
        return url

    def _give_up_if_hopeless(self, plan: PodPlan) -> None:
        why = hopeless(self._pod, plan)
        if why:
            self.log.error("%s: %s", self._log_name, why)
            raise FailedStart(why)

    def _why_so_long(self) -> str:
        pod = self._pod
        if pod is not None and "deletionTimestamp" in pod["metadata"]:
            return (
                f"Your server was not started: your last session is still being saved after {self.start_timeout} s; "
                "a storage that hangs can keep it for ever"
            )
        last = [step.text for step in self._steps()][-1:]
        return f"Your server did not start within {self.start_timeout} s. {''.join(last)}".rstrip()

    async def _ask_version(self) -> None:
        """Whether the cluster has native sidecars is known."""
        if self.native_sidecar != "auto" or PodSpawner._native is not None:
            return
        version = await shared_client("VersionApi").get_code()
        digits = ["".join(filter(str.isdigit, part)) for part in (version.major, version.minor)]  # "28+" on some
        if not all(digits):
            raise FailedStart(f"the cluster's version cannot be read: {visible(str(version.git_version))}")
        PodSpawner._native = tuple(map(int, digits)) >= NATIVE_SINCE
        self.log.info("Kubernetes %s: native sidecars: %s", version.git_version, PodSpawner._native)

    def _is_native(self) -> bool:
        if self.native_sidecar != "auto":
            return bool(self.native_sidecar == "yes")
        return PodSpawner._native is not False

    async def _make_create_pod_request(self, pod: Any, request_timeout: float) -> bool:
        """As KubeSpawner's; but it has 30 s for all its tries, and a pod that is in the way may take longer to end."""
        for _ in range(2):
            if await super()._make_create_pod_request(pod, request_timeout):
                return True
        return False

    async def _start_watching_pods(self, replace: bool = False) -> Any:
        return await self._start_reflector(
            kind="pods",
            reflector_class=RememberingPodReflector,
            labels={"component": self.component_label},
            omit_namespace=self.enable_user_namespaces,
            replace=replace,
        )

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        if self.events_enabled:
            await self._start_watching_events()
        told: set[str] = set()
        while True:
            is_over = self._start_future is not None and self._start_future.done()
            for step in self._steps():
                if step.text not in told:
                    told.add(step.text)
                    yield {"progress": step.progress, "message": step.text}
            if is_over:
                return
            await asyncio.sleep(_LOOK_EVERY_S)

    def _steps(self) -> list[Step]:
        if self.granted is None:
            return list(self._told)
        return [*self._told, *steps(self._pod, self._events(), self.plan)]

    def _events(self) -> list[dict[str, Any]]:
        """The events of pods of this name, oldest first."""
        reflector = self.event_reflector
        own = [
            event
            for event in (reflector.resources.values() if reflector is not None else ())
            if (event.get("involvedObject") or {}).get("name") == self.pod_name
        ]
        return sorted(own, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))

    # The end.

    async def stop(self, now: bool = False) -> None:  # noqa: ARG002  the drain is never cut short
        """The pod is gone; it had all of its grace. Raises ``TimeoutError`` where it does not go."""
        await super().stop(now=False)
        self._tell_end()

    async def _make_delete_pod_request(
        self, pod_name: str, delete_options: Any, grace_seconds: float, request_timeout: float
    ) -> bool:
        """Every deletion comes through here, also those for which KubeSpawner wants 0 or 1 s of grace: after a pod that
        ended by itself, for one that is in the way of a new one, and when a hook fails."""
        spec = (self._pod or {}).get("spec") or {}
        told_s = spec.get("terminationGracePeriodSeconds") or 0  # its sidecar was, perhaps by an earlier policy
        grace_s = max(grace_seconds, self.grace_s, told_s)
        delete_options.grace_period_seconds = grace_s
        return bool(await super()._make_delete_pod_request(pod_name, delete_options, grace_s, request_timeout))

    async def poll(self) -> int | None:
        pod = None if self.pod_reflector is None else self._pod
        if pod is not None and _is_restarted(pod):
            return None
        code: int | None = await super().poll()
        if code is not None:
            if self._pod is not None and self.delete_stopped_pods:
                # Evicted, or refused by its node: what is left of it would stand in the way of the next one.
                await self.stop()
            self._tell_end()
        return code

    def _tell_end(self) -> None:
        pod = None if self.pod_reflector is None else self.pod_reflector.last(self._pod_key)
        if pod is None or not storage_ran(pod):
            return
        end = end_of(pod)
        level = logging.INFO if isinstance(end, Safe) else logging.ERROR
        self.log.log(level, "%s: %s", self._log_name, describe(end))


def _is_restarted(pod: dict[str, Any]) -> bool:
    """Whether the notebook ended with an error a moment ago, and the kubelet starts it again in the same home."""
    if "deletionTimestamp" in pod["metadata"] or pod["status"]["phase"] != "Running":
        return False
    if (pod.get("spec") or {}).get("restartPolicy") != "OnFailure":
        return False
    ended = [
        each["state"]["terminated"].get("exitCode")
        for each in pod["status"].get("containerStatuses") or []
        if each["name"] == "notebook" and "terminated" in each["state"]
    ]
    return bool(ended) and ended[0] != 0


async def _answers(url: str) -> bool:
    """Whether somebody listens at ``url``."""
    parts = urlsplit(url)
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(parts.hostname, parts.port), 2.0)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
