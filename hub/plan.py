"""What a decision leads to: everything needed to start one server, before anything is started.

On one machine its containers become processes and its volumes directories; on a cluster a pod.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from hub.identity import owner_of
from hub.names import server_directory, user_directory
from hub.policy import Policy
from hub.quantity import Size
from hub.resolve import Decision
from sidecar.config import Settings

LOCAL_GRACE_S = 12.0
"""From SIGTERM to the sidecar's end on one machine: Ctrl-C on ``make up`` stops everything within 20 s. What it does
not manage is not lost: the home is kept."""


@dataclass(frozen=True, kw_only=True)
class Directories:
    """Where one server's volumes are. All absolute."""

    server: str
    """Holds this server's home, logs and run directory."""

    home: str
    """The fast tier."""

    persist: str
    """The user's Persist, shared by all of their servers."""

    shared: str
    """The same for everybody."""

    run: str
    """Reports and runtime files; not part of the home, and not saved."""

    @property
    def gpu_report(self) -> str:
        return os.path.join(self.run, "gpu-report.json")

    @property
    def kept(self) -> str:
        """There while the home holds something that is not on Persist; says why."""
        return os.path.join(self.server, "home-kept.txt")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One server, ready to be started."""

    image: str
    size: Size
    directories: Directories
    sidecar: Settings
    check_gpus: bool
    """Whether the GPUs are checked before the notebook starts."""

    block_on_gpu: bool
    """Whether a failed check stops the start."""

    check_frameworks: bool
    """Whether the notebook's own frameworks are checked once it has started."""


def local_directories(data: str, user: str, server: str) -> Directories:
    """The directories of ``server`` of ``user`` below ``data``, which is absolute. They are ours: no legacy names."""
    mine = os.path.join(data, "users", user_directory(user))
    own = os.path.join(mine, "servers", server_directory(server))
    return Directories(
        server=own,
        home=os.path.join(own, "home"),
        persist=os.path.join(mine, "persist"),
        shared=os.path.join(data, "shared"),
        run=os.path.join(own, "run"),
    )


def local_plan(decision: Decision, directories: Directories, policy: Policy, *, user: str, subject: str = "") -> Plan:
    """The plan for ``decision`` on one machine, for ``user``, whom the identity provider knows as ``subject``."""
    sidecar = Settings(
        home=directories.home,
        persist=directories.persist,
        server=os.path.basename(directories.server),
        grace_s=min(LOCAL_GRACE_S, float(policy.storage.grace_s)),
        require_mount=False,
        restore=policy.storage.restore == "auto",
        retention_days=policy.storage.retention.days,
        owner=owner_of(user, subject),
        gpu_report=directories.gpu_report,
    )
    return Plan(
        image=decision.image,
        size=decision.size,
        directories=directories,
        sidecar=sidecar,
        check_gpus=decision.size.gpus > 0 and policy.gpu_check.at_spawn != "off",
        block_on_gpu=policy.gpu_check.on_failure == "block",
        check_frameworks=decision.size.gpus > 0 and policy.gpu_check.frameworks == "background",
    )
