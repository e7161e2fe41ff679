"""The parts of a pod that are ours, as Kubernetes wants them: containers, volumes and mounts, as plain data.

The reasons are facts of kubelets; the design's section "The pod" has them in order.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hub.pod_plan import (
    GPU_REPORT,
    HOME,
    PERSIST,
    RUN,
    SHARED,
    SOCKET,
    TERMINATION_LOG,
    WATCHED_HOME,
    WATCHED_PERSIST,
    WATCHED_SHARED,
    PodPlan,
)
from sidecar.config import VARIABLES, Settings, to_environ

Part = dict[str, Any]

STORAGE, PREPARE, PREFLIGHT, NOTEBOOK = "storage", "storage-prepare", "gpu-preflight", "notebook"
TOOLS = ("gpu-check",)
"""What the notebook finds in /usr/local/bin; storage-prepare writes them."""

PREPARED_PERSIST, PREPARED_TOOLS = "/claims/persist", "/tools"
_OURS_ON_PERSIST = ("Backup", ".jupyterhub-sidecar")
_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105  a path
_TMP = "/tmp"  # noqa: S108  of the container, an emptyDir of its own

# Limits equal requests, so that the pod keeps the quality of service class that the notebook alone would have: a pod of
# the class Guaranteed is the last to be killed when its node runs out of memory. Init containers cost nothing beside:
# Kubernetes reserves the larger of them and what runs afterwards.
_STORAGE_RESOURCES = {"cpu": "500m", "memory": "512Mi"}
_PREPARE_RESOURCES = {"cpu": "500m", "memory": "128Mi"}
_PREFLIGHT_RESOURCES = {"cpu": "1", "memory": "2Gi"}

_PROBE_PATIENCE_S = 10
"""A probe waits so long for the answer to change before it fails: each failure is an event, and after 25 of them the
kubelet tells nothing more of this pod (client-go, EventCorrelator)."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the rest of the pod says about our containers."""

    uid: int
    gid: int
    nested: tuple[str, ...]
    """Where below the home the notebook has mounts of others that are directories; absolute."""

    names: tuple[str, ...]
    """What directly in the home is a mount of others; directories and files."""

    token: bool
    """Whether the pod's service account is handed to its containers."""


def init_containers(plan: PodPlan, around: Surroundings) -> list[Part]:
    """What runs before the notebook, in order; the native sidecar, which runs beside it, is the last.

    The GPUs come before the restore: a start that they block has disturbed nothing.
    """
    preflight = [_gpu_preflight(plan, around)] if plan.check_gpus else []
    storage = [_storage(plan, around)] if plan.deployment.native else []
    return [_storage_prepare(plan, around), *preflight, *storage]


def extra_containers(plan: PodPlan, around: Surroundings) -> list[Part]:
    """What runs beside the notebook on a cluster without native sidecars."""
    return [] if plan.deployment.native else [_storage(plan, around)]


def volumes(plan: PodPlan) -> list[Part]:
    """Everything that is mounted, by name."""
    claims = [("persist", plan.persist_claim), ("shared", plan.shared_claim)][: len(plan.tiers)]
    return [
        {"name": "home", "emptyDir": {}},
        *({"name": name, "persistentVolumeClaim": {"claimName": claim}} for name, claim in claims),
        {"name": "tools", "emptyDir": {}},
        {"name": "run", "emptyDir": {}},
        # In memory, so that a full one is an error for who writes; one on disk would have the whole pod evicted.
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
        {"name": "guard", "emptyDir": {}},
    ]


def notebook_mounts(plan: PodPlan) -> list[Part]:
    """Of the notebook: parents before what is in them. The backup is read-only in it."""
    mine, persist = plan.user_directory, f"{HOME}/{PERSIST}"
    return [
        _mount("home", HOME),
        _mount("persist", persist, sub=mine),
        *(_mount("persist", f"{persist}/{name}", sub=f"{mine}/{name}", read_only=True) for name in _OURS_ON_PERSIST),
        *_shared_mounts(plan, f"{HOME}/{SHARED}", whole=f"{HOME}/{SHARED}", watched=False),
        _mount("run", RUN),
        *(_mount("tools", f"/usr/local/bin/{name}", sub=name, read_only=True) for name in TOOLS),
    ]


def notebook_environment(plan: PodPlan) -> dict[str, str]:
    """What the tools in the notebook go by."""
    environment = {
        VARIABLES["socket"][0]: SOCKET,
        "GPU_CHECK_EXPECT": str(plan.size.gpus),
        "GPU_CHECK_REPORT": GPU_REPORT,
    }
    if not plan.size.gpus:
        # Images with CUDA say "all", and a runtime that hears it gives them every GPU of the node.
        environment["NVIDIA_VISIBLE_DEVICES"] = "void"
    return environment


def post_start(command: Sequence[str] = ()) -> Part:
    """The frameworks are checked behind the notebook's back; then ``command`` is run, the administrator's own hook.

    A stream left open delays the container's readiness for as long as the check takes, and an exit code kills the
    container: so nothing is inherited, and the code is 0 or that of ``command``.
    """
    check = "/usr/local/bin/gpu-check short --background"
    detached = f"{{ command -v setsid >/dev/null && exec setsid {check}; exec {check}; }} </dev/null >/dev/null 2>&1 &"
    return {
        "exec": {"command": ["/bin/sh", "-c", f'{detached} [ $# = 0 ] || exec "$@"; exit 0', "post-start", *command]}
    }


def _storage_prepare(plan: PodPlan, around: Surroundings) -> Part:
    """Sees the whole claim, and makes one directory in it: one that the kubelet made would be root's."""
    return {
        **_ours(PREPARE, plan, around),
        "command": ["storage-prepare"],
        "env": _environment(
            {
                "PREPARE_PERSIST": PREPARED_PERSIST,
                "PREPARE_USER": plan.user_directory,
                "PREPARE_TOOLS": PREPARED_TOOLS,
                VARIABLES["termination_log"][0]: TERMINATION_LOG,
            }
        ),
        "resources": _resources(_PREPARE_RESOURCES),
        "volumeMounts": [
            _mount("persist", PREPARED_PERSIST),
            _mount("tools", PREPARED_TOOLS),
            *_no_token(around),
        ],
    }


def _gpu_preflight(plan: PodPlan, around: Surroundings) -> Part:
    """Asks for the notebook's GPUs, and gets them: a kubelet lets a container have what an init container had."""
    return {
        **_ours(PREFLIGHT, plan, around),
        "command": ["gpu-preflight"],
        "env": _environment(
            {
                "GPU_CHECK_EXPECT": str(plan.size.gpus),
                "GPU_CHECK_REPORT": GPU_REPORT,
                "GPU_CHECK_TERMINATION_LOG": TERMINATION_LOG,
                "TMPDIR": _TMP,
            }
        ),
        "resources": _resources({**_PREFLIGHT_RESOURCES, plan.gpu_resource: str(plan.size.gpus)}),
        "volumeMounts": [_mount("run", RUN), _mount("tmp", _TMP), *_no_token(around)],
    }


def _storage(plan: PodPlan, around: Surroundings) -> Part:
    nested = sorted({*(f"{HOME}/{name}" for name in plan.tiers), *around.nested})
    settings = replace(plan.sidecar, mounts=tuple(sorted({*plan.tiers, *around.names})))
    part = {
        **_ours(STORAGE, plan, around),
        "command": ["sidecar", "run"],
        "env": [*_environment({"TMPDIR": _TMP, **_settings(settings)}), _pod_uid()],
        "resources": _resources(_STORAGE_RESOURCES),
        "startupProbe": _startup_probe(plan.deployment.restore_wait_s),
        # Returns at once, and tells process 1 that the pod's end may have begun.
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", "kill -USR1 1"]}}},
        # A sidecar that could not begin has left its reason in its log.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            _mount("home", WATCHED_HOME),
            # Removing or renaming a stub here would detach the live mount in the notebook.
            *(_mount("guard", WATCHED_HOME + path.removeprefix(HOME), read_only=True) for path in nested),
            _mount("persist", WATCHED_PERSIST, sub=plan.user_directory),
            *_shared_mounts(plan, WATCHED_SHARED, whole=f"{WATCHED_SHARED}/{SHARED}", watched=True),
            _mount("run", RUN),
            _mount("tmp", _TMP),
            *_no_token(around),
        ],
    }
    return {**part, "restartPolicy": "Always"} if plan.deployment.native else part


def _ours(name: str, plan: PodPlan, around: Surroundings) -> Part:
    return {
        "name": name,
        "image": plan.deployment.image,
        "imagePullPolicy": plan.deployment.pull_policy,
        "terminationMessagePath": TERMINATION_LOG,
        "securityContext": {
            "runAsUser": around.uid,
            "runAsGroup": around.gid,
            "runAsNonRoot": True,
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def _startup_probe(restore_wait_s: int) -> Part:
    return {
        "exec": {"command": ["sidecar", "ready", "--wait", str(_PROBE_PATIENCE_S), "--within", str(restore_wait_s)]},
        "periodSeconds": 1,
        "timeoutSeconds": _PROBE_PATIENCE_S + 5,
        # Never reached: `sidecar ready` is true after its own bound. A kubelet that gives up kills the restore.
        "failureThreshold": 3 * restore_wait_s + 60,
    }


def _shared_mounts(plan: PodPlan, below: str, *, whole: str, watched: bool) -> list[Part]:
    """Of Shared: all of it at ``whole``, or each share below ``below``; the sidecar only asks how they are."""
    if plan.whole_shared:
        return [_mount("shared", whole, read_only=watched)]
    return [
        _mount("shared", f"{below}/{share.name}", sub=share.name, read_only=watched or share.access == "ro")
        for share in plan.shares
    ]


def _no_token(around: Surroundings) -> list[Part]:
    """The API server mounts a token only where nothing is mounted yet (its ServiceAccount admission plugin)."""
    return [_mount("guard", _TOKEN, read_only=True)] if around.token else []


def _mount(volume: str, path: str, *, sub: str = "", read_only: bool = False) -> Part:
    mount: Part = {"name": volume, "mountPath": path}
    if sub:
        mount["subPath"] = sub
    if read_only:
        mount["readOnly"] = True
    return mount


def _resources(amounts: Mapping[str, str]) -> Part:
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _settings(settings: Settings) -> dict[str, str]:
    environ = to_environ(settings)
    del environ[VARIABLES["pod_uid"][0]]
    return environ


def _pod_uid() -> Part:
    return {"name": VARIABLES["pod_uid"][0], "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}


def _environment(variables: Mapping[str, str]) -> list[Part]:
    """As a container's ``env``. A kubelet replaces ``$(NAME)`` in values, and reads ``$$`` as a plain ``$``."""
    return [{"name": name, "value": value.replace("$", "$$")} for name, value in variables.items()]


def in_order(mounts: Iterable[Part]) -> list[Part]:
    """Parents before what is mounted in them, whoever asked for which."""
    return sorted(mounts, key=lambda mount: posixpath.normpath(mount["mountPath"]).split("/"))
