"""Our parts and the pod that KubeSpawner made, joined.

KubeSpawner formats what it is configured with as templates; ours is joined afterwards, so that a brace in a command, a
name or an image stays what it is. What the hub's configuration has of its own stays, unless both cannot be true.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from typing import Any

from kubernetes_asyncio.client import ApiClient, V1Container, V1Toleration, V1Volume, V1VolumeMount
from kubespawner.utils import get_k8s_model

from hub.pod import (
    NOTEBOOK,
    Part,
    Surroundings,
    extra_containers,
    in_order,
    init_containers,
    notebook_mounts,
    post_start,
    volumes,
)
from hub.pod_plan import HOME, PodPlan
from hub.text import quoted

DEFAULT_UID, DEFAULT_GID = 1000, 100
_FALLBACK = "FallbackToLogsOnError"


class PodConflict(Exception):
    """The hub's configuration has something that cannot be true beside our parts; the text is one readable line."""


def complete(pod: Any, plan: PodPlan) -> Any:
    """``pod``, a ``V1Pod``, with everything of ``plan`` in it. Raises ``PodConflict``."""
    spec = pod.spec
    notebook = next(container for container in spec.containers if container.name == NOTEBOOK)
    plain = _plain(spec)
    _refuse_what_endangers(plain)
    around = _surroundings(plain, plan.tiers)
    ours = volumes(plan)
    _refuse_twice("a volume", [*(plain.get("volumes") or []), *ours], "name")
    spec.volumes = [*(spec.volumes or []), *_models(V1Volume, ours)]
    mounts = [*_mounts(plain), *notebook_mounts(plan)]
    _refuse_twice("a mount of the notebook at", mounts, "mountPath")
    notebook.volume_mounts = _models(V1VolumeMount, in_order(mounts))
    before, beside = init_containers(plan, around), extra_containers(plan, around)
    containers = [*(plain.get("initContainers") or []), *plain["containers"], *before, *beside]
    _refuse_twice("a container", containers, "name")
    # What others have added comes last, as they are used to.
    spec.init_containers = [*_models(V1Container, before), *(spec.init_containers or [])]
    spec.containers = [*spec.containers, *_models(V1Container, beside)]
    spec.termination_grace_period_seconds = plan.grace_s
    spec.node_selector = {**(spec.node_selector or {}), **plan.node_selector} or None
    spec.tolerations = [*(spec.tolerations or []), *_models(V1Toleration, map(dict, plan.tolerations))] or None
    if "fsGroup" in (plain.get("securityContext") or {}):
        # A kubelet that applies it must not walk the claims each time: one can hold everybody's files.
        spec.security_context = {"fsGroupChangePolicy": "OnRootMismatch", **plain["securityContext"]}
    if not notebook.termination_message_policy:
        notebook.termination_message_policy = _FALLBACK  # why a notebook ends at once, for the progress page
    if plan.check_frameworks:
        _check_frameworks(notebook, plain)
    return pod


def _plain(model: Any) -> Part:
    plain: Part = ApiClient.sanitize_for_serialization(_SERIALIZER, model)
    return plain


class _Serializer(ApiClient):
    """Only what turns models into plain data: no connection, no configuration, no loop."""

    def __init__(self) -> None:
        pass


_SERIALIZER = _Serializer()


def _models(kind: Any, parts: Iterable[Part]) -> list[Any]:
    return [get_k8s_model(kind, part) for part in parts]


def _refuse_what_endangers(spec: Part) -> None:
    # Process 1 of the sidecar is who hears of the end, and who outlives every helper.
    for field in ("shareProcessNamespace", "hostPID"):
        if spec.get(field):
            raise PodConflict(f"{field} cannot be used: process 1 of the storage sidecar would be somebody else's")


def _refuse_twice(what: str, parts: Iterable[Part], key: str) -> None:
    seen: set[str] = set()
    for part in parts:
        name = posixpath.normpath(part[key])
        if name in seen:
            raise PodConflict(f"there would be {what} {quoted(name)} twice")
        seen.add(name)


def _notebook(spec: Part) -> Part:
    found: Part = next(container for container in spec["containers"] if container["name"] == NOTEBOOK)
    return found


def _mounts(spec: Part) -> list[Part]:
    return list(_notebook(spec).get("volumeMounts") or [])


def _surroundings(spec: Part, tiers: Iterable[str]) -> Surroundings:
    context = {**(spec.get("securityContext") or {}), **(_notebook(spec).get("securityContext") or {})}
    uid, gid = context.get("runAsUser", DEFAULT_UID), context.get("runAsGroup", DEFAULT_GID)
    if uid == 0:
        raise PodConflict("the notebook cannot run as root: the storage sidecar has its user, and is never root")
    mounts = _mounts(spec)
    return Surroundings(
        uid=uid,
        gid=gid,
        nested=tuple(_directories(mounts, tiers)),
        names=tuple({path.split("/")[0] for path in _below_home(mounts) if "/" not in path}),
        token=spec.get("automountServiceAccountToken") is not False,
    )


def _below_home(mounts: Iterable[Part]) -> Iterator[str]:
    for mount in mounts:
        path = posixpath.normpath(mount["mountPath"])
        if path.startswith(f"{HOME}/"):
            yield path.removeprefix(f"{HOME}/")


def _directories(mounts: list[Part], tiers: Iterable[str]) -> Iterator[str]:
    """Of the mounts in the home those that are no files and in no other mount: what is in one cannot be reached.

    With a subPath it can be a file: then a directory over it would keep the notebook from starting.
    """
    every = {f"{HOME}/{path}" for path in _below_home(mounts)} | {f"{HOME}/{name}" for name in tiers}
    for mount in mounts:
        path = posixpath.normpath(mount["mountPath"])
        within = any(path.startswith(f"{other}/") for other in every)
        if path in every and not within and not (mount.get("subPath") or mount.get("subPathExpr")):
            yield path


def _check_frameworks(notebook: Any, plain: Part) -> None:
    lifecycle = dict(_notebook(plain).get("lifecycle") or {})
    theirs = lifecycle.get("postStart")
    if theirs is None:
        lifecycle["postStart"] = post_start()
    elif "exec" in theirs:
        lifecycle["postStart"] = post_start(theirs["exec"].get("command") or [])
    # A hook of another kind cannot be joined: it stays, and nothing is checked.
    notebook.lifecycle = lifecycle
