"""What a decision leads to on a cluster: everything that one pod is given, before any of it is Kubernetes.

One user's directory is chosen here, once, for all containers of all of their pods.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from hub.groups import shares_of
from hub.identity import owner_of
from hub.names import server_directory, user_directory
from hub.policy import Policy
from hub.quantity import Size
from hub.resolve import Decision
from sidecar.config import POD_RUN_DIRECTORY, Settings, Share

HOME = "/home/jovyan"
"""The notebook's home, and with it the place of every other tier: the images that people use have no other."""

PERSIST, SHARED = "Persist", "Shared"
WATCHED_HOME, WATCHED_PERSIST, WATCHED_SHARED = "/watch/home", "/watch/persist", "/watch/shared"
RUN = POD_RUN_DIRECTORY
SOCKET = f"{RUN}/sidecar.sock"
GPU_REPORT = f"{RUN}/gpu-report.json"
TERMINATION_LOG = "/dev/termination-log"
"""Kubernetes' default ``terminationMessagePath``."""

WHOLE_CLAIM = Share(SHARED, "rw")
"""How the sidecar reports Shared where the policy divides it into no shares."""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What the hub's configuration says of every pod; the rest is the policy's."""

    image: str
    """Of our containers; with its tag or digest."""

    pull_policy: str = "IfNotPresent"
    native: bool = True
    """Whether the cluster has native sidecars: Kubernetes 1.29 and later."""

    restore_wait_s: int = 120
    """So long a notebook's start waits for its work to come back; what is missing then comes while it runs."""


@dataclass(frozen=True, kw_only=True)
class PodPlan:
    """One pod, ready to be written down."""

    deployment: Deployment
    profile: str
    """What users see of the profile."""

    size: Size
    user_directory: str
    """The user's directory on the Persist claim: one path component."""

    persist_claim: str
    shared_claim: str
    shares: tuple[Share, ...]
    """What of Shared the user sees, each as a directory of its own."""

    whole_shared: bool
    """Whether everybody has all of Shared instead."""

    sidecar: Settings
    """But for the mounts, which only the finished pod knows."""

    gpu_resource: str
    node_selector: Mapping[str, str]
    tolerations: tuple[Mapping[str, str], ...]
    check_gpus: bool
    block_on_gpu: bool
    check_frameworks: bool

    @property
    def grace_s(self) -> int:
        return int(self.sidecar.grace_s)

    @property
    def tiers(self) -> tuple[str, ...]:
        """What is mounted directly in the home."""
        return (PERSIST, SHARED) if self.whole_shared or self.shares else (PERSIST,)


def pod_plan(
    decision: Decision,
    policy: Policy,
    deployment: Deployment,
    *,
    user: str,
    server: str,
    groups: Collection[str],
    subject: str = "",
) -> PodPlan:
    """The plan for ``server`` of ``user``, whom the identity provider knows as ``subject``.

    Raises ``NameRefused`` where the policy's directory scheme has no directory for the user.
    """
    profile, storage = policy.profiles[decision.profile], policy.storage
    whole = not storage.shared
    shares = (WHOLE_CLAIM,) if whole else shares_of(groups, policy)
    has_gpus = decision.size.gpus > 0
    sidecar = Settings(
        home=WATCHED_HOME,
        persist=WATCHED_PERSIST,
        server=server_directory(server),
        grace_s=float(storage.grace_s),
        restore=storage.restore == "auto",
        retention_days=storage.retention.days,
        socket=SOCKET,
        gpu_report=GPU_REPORT,
        shared=shares,
        shared_root=WATCHED_SHARED,
        native=deployment.native,
        termination_log=TERMINATION_LOG,
        owner=owner_of(user, subject),
    )
    return PodPlan(
        deployment=deployment,
        profile=profile.display_name,
        size=decision.size,
        user_directory=user_directory(user, storage.persist.directory),
        persist_claim=storage.persist.claim,
        shared_claim=storage.shared_claim,
        shares=() if whole else shares,
        whole_shared=whole,
        sidecar=sidecar,
        gpu_resource=profile.gpu_resource,
        node_selector=dict(profile.node_selector),
        tolerations=tuple(toleration.to_kubernetes() for toleration in profile.tolerations),
        check_gpus=has_gpus and policy.gpu_check.at_spawn != "off",
        block_on_gpu=policy.gpu_check.on_failure == "block",
        check_frameworks=has_gpus and policy.gpu_check.frameworks == "background",
    )
