"""The spawner: KubeSpawner that starts only what ``resolve`` grants."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import ClientError
from jupyterhub.utils import maybe_future  # type: ignore[import-untyped]  # jupyterhub has no type information
from kubernetes_asyncio.client import V1DeleteOptions, V1Preconditions
from kubernetes_asyncio.client.rest import ApiException
from kubespawner import KubeSpawner
from tornado.web import HTTPError
from traitlets import Unicode, default, validate

from hub.admission import GRANTED, RefusedRequest, judge
from hub.form import form_notes, form_options, form_profiles, render_form
from hub.pod_excess import pod_excess
from hub.policy import Policy
from hub.policy_file import SHIPPED, load_policy
from hub.quantity import QuantityError, Size, cpus_number
from hub.resolve import Decision, Granted, Refused, resolve


class SidecarSpawner(KubeSpawner):  # type: ignore[misc]  # kubespawner has no type information
    """Offers the profiles of the user's groups, and turns a granted decision into KubeSpawner's settings.

    KubeSpawner's own handling of the options is not used: without a ``profile`` it validates nothing and applies the
    rest, and what it does not accept is an HTTP 500.
    """

    policy_file = Unicode(SHIPPED, config=True, help="The policy file; the shipped one by default.")

    user_options: dict[str, Any]

    enforced = True
    """Whether what starts the server holds it to its size."""

    granted: Decision | None = None
    """What this server was granted: set before the first await of a start, until its end is complete."""

    unreadable = False
    """Whether the server was started, and what it was granted is not known."""

    _end_failed = False
    """Whether JupyterHub takes the server for stopped, and its end was not seen."""

    _ending_again: asyncio.Task[None] | None = None
    """What is done about that."""

    @property
    def policy(self) -> Policy:
        return load_policy(self.policy_file)

    @default("profile_list")
    def _offered_profiles(self) -> Any:
        return lambda spawner: form_profiles(spawner.group_names, spawner.policy, enforced=spawner.enforced)

    @default("modify_pod_hook")
    def _last_look(self) -> Any:
        return checked_pod

    @validate("modify_pod_hook")
    def _last_look_after(self, proposal: Any) -> Any:
        """An administrator's hook has its way, and what it made of the pod is looked at."""
        hook = proposal["value"]
        if hook is None:
            return checked_pod

        async def hook_and_look(spawner: SidecarSpawner, pod: Any) -> Any:
            return checked_pod(spawner, await maybe_future(hook(spawner, pod)))

        return hook_and_look

    @default("delete_pvc")
    def _never_delete(self) -> bool:
        return False

    @default("apply_user_options")
    def _in_load_user_options(self) -> Any:
        return lambda _spawner, _options: None

    @property
    def group_names(self) -> list[str]:
        return [group.name for group in self.user.groups]

    def _options_from_form(self, formdata: dict[str, list[str]]) -> dict[str, object]:
        return form_options(formdata)

    def _render_options_form(self, profile_list: list[dict[str, Any]]) -> str:
        # Saved options that are refused by now, because a group was lost, would leave the form without a selection.
        saved = self.user_options
        answer = resolve(self.user.name, self.group_names, options=saved, running={}, policy=self.policy)
        form = render_form(
            profile_list,
            {} if isinstance(answer, Refused) else saved,
            paths=self.additional_profile_form_template_paths,
            text=self.profile_form_template,
        )
        return str(form + form_notes(self.group_names, self.policy))

    async def load_user_options(self) -> None:
        """The decision for ``user_options`` is in force. Raises ``RefusedRequest`` (HTTP 4xx) if there is none.

        There is no await between the look at the user's other servers and the reservation.
        """
        answer = judge(self.user, self.name, self.user_options, self.policy)
        if isinstance(answer, Refused):
            raise RefusedRequest(answer)
        self._forget()
        self.granted = answer.decision
        # A hub that dies from here on finds it again. It is in the database with whatever is committed next; before
        # that, a server without a decision counts as everything.
        self.orm_spawner.state = self.get_state()
        self._apply(answer)

    def check_pod(self, pod: Any) -> None:
        """Raises ``RefusedRequest`` if ``pod``, as it is about to be made, has more than was granted, or if its user
        may not have that any more."""
        answer = judge(self.user, self.name, self.user_options, self.policy)
        if isinstance(answer, Granted):
            manifest = self.api.api_client.sanitize_for_serialization(pod)
            resource = self.policy.profiles[answer.decision.profile].gpu_resource
            excess = pod_excess(manifest, answer.decision.size, gpu_resource=resource)
            if not excess:
                return
            reason = (
                f"the finished pod has {'; '.join(excess)}: something in the hub's configuration adds to the policy"
            )
            answer = Refused(f"{reason}; please tell its administrator", "forbidden")
        self.log.error("%s is not started: %s", self._log_name, answer.reason)
        raise RefusedRequest(answer)

    def _apply(self, answer: Granted) -> None:
        decision = answer.decision
        self.image = decision.image
        self.cpu_limit = self.cpu_guarantee = float(cpus_number(decision.size.millicpu))
        self.mem_limit = self.mem_guarantee = decision.size.memory_bytes
        resource = self.policy.profiles[decision.profile].gpu_resource
        gpus = {resource: str(decision.size.gpus)} if decision.size.gpus else {}
        self.extra_resource_limits = self.extra_resource_guarantees = gpus

    def holds(self, cap: Size) -> Size | None:
        """What this server takes of its user's ``cap``; ``None`` when it is not running and its end is complete."""
        if self._end_failed and self._gone():
            self._forget()
            self.orm_spawner.state = self.get_state()
        if self.unreadable:
            return cap
        return self.granted.size if self.granted is not None else None

    def is_ending(self) -> bool:
        """Whether JupyterHub would start it again, and something of it may be left."""
        return self._end_failed and not self._gone()

    def _gone(self) -> bool:
        """Whether it is known that nothing of the server is left after an end that took longer than we waited.

        Where it is not, somebody sees to it, so that the server does not count for ever.
        """
        reflector = self.pod_reflector
        if _has_loaded(reflector) and self._pod_key not in reflector.pods:
            return True
        if self._ending_again is None or self._ending_again.done():
            self._ending_again = asyncio.ensure_future(self._end_again())
        return False

    async def _end_again(self) -> None:
        """Pods are known; this server's, if it is still there, was told to end. Its end is not waited for."""
        reflector = self.pod_reflector
        failed = reflector is not None and reflector.first_load_future.done() and not _has_loaded(reflector)
        try:
            # KubeSpawner keeps a reflector that has failed, and takes it for one that has seen no pods.
            await self._start_watching_pods(replace=failed)
            about = (self.pod_reflector.pods.get(self._pod_key) or {}).get("metadata")
            if about is None or "deletionTimestamp" in about:
                return
            grace_s = self.delete_grace_period
            # By its uid: a start is granted as soon as this pod is gone.
            options = V1DeleteOptions(grace_period_seconds=grace_s, preconditions=V1Preconditions(uid=about["uid"]))
            await self._make_delete_pod_request(self.pod_name, options, grace_s, self.k8s_api_request_timeout)
        except (ApiException, ClientError, OSError) as error:  # the next who asks tries again
            self.log.warning("%s: its end is not known: %s", self._log_name, error)

    @property
    def _pod_key(self) -> str:
        return f"{self.namespace}/{self.pod_name}"

    def _forget(self) -> None:
        self.granted = None
        self.unreadable = self._end_failed = False

    async def stop(self, now: bool = False) -> None:
        try:
            await super().stop(now)
        except BaseException:
            self._end_failed = True
            raise
        self._end_failed = False

    async def delete_forever(self) -> None:
        """Refused while something of the server is left: without its record nothing would count it."""
        if self.is_ending():
            raise HTTPError(400, "the server has not ended yet")
        await super().delete_forever()

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state()
        if self.granted is not None:
            state[GRANTED] = self.granted.to_json()
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        running = self.orm_spawner.server is not None
        stored = state.get(GRANTED)
        self._end_failed = stored is not None and not running
        try:
            self.granted = _stored_decision(stored)
        except QuantityError as error:
            self.granted = None
            if running or stored is not None:
                self.unreadable = True
                self.log.warning("%s: what it was granted is not known (it %s)", self._log_name, error)

    def clear_state(self) -> None:
        super().clear_state()
        if not self._end_failed:
            self._forget()

    async def rename(self, old_name: str, new_name: str) -> None:  # noqa: ARG002  JupyterHub's signature
        """Always refused: the server's directory on Persist carries its name."""
        raise HTTPError(400, "a server keeps its name, because its backup is kept under it")


def _stored_decision(stored: object) -> Decision:
    """The decision in a server's state. Raises ``QuantityError`` for anything else, and for nothing."""
    decision = Decision.from_json(stored)
    if not isinstance(stored, dict) or stored != decision.to_json():
        raise QuantityError("is not complete")
    return decision


def _has_loaded(reflector: Any) -> bool:
    """Whether ``reflector``, KubeSpawner's or none at all, knows which pods there are."""
    first = None if reflector is None else reflector.first_load_future
    return first is not None and first.done() and not first.cancelled() and first.exception() is None


def checked_pod(spawner: SidecarSpawner, pod: Any) -> Any:
    """``pod``, which has no more than was granted: the last of the hooks that see it. Raises ``RefusedRequest``."""
    spawner.check_pod(pod)
    return pod
