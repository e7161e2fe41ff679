"""Leases in a directory of a test, of holders on machines that need not exist."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from sidecar.backup.holder import Holder
from sidecar.backup.lease import Lease, Newcomer
from sidecar.backup.lease_record import Damaged, Record, decode
from sidecar.clock import Clock
from sidecar.fsops import FileSystem
from tests.faults.faulty import FaultyFileSystem

SOMEBODY = Holder(pod_uid="pod-a", boot_id="boot-a", pid_namespace="4:1", pid=7, started_ticks=100, host="node-a")
ELSEWHERE = Holder(pod_uid="pod-b", boot_id="boot-b", pid_namespace="4:1", pid=7, started_ticks=100, host="node-b")


def beside(holder: Holder, pid: int) -> Holder:
    """Another process of the same PID namespace, without a pod."""
    return replace(holder, pod_uid="", pid=pid, started_ticks=pid * 10)


class Bench:
    """A directory, a clock, and who of the holders is dead."""

    def __init__(self, top: Path, clock: Clock) -> None:
        self.top, self.clock = top, clock
        self.fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
        self.dead: set[Holder] = set()

    def lease(self, holder: Holder, fs: FileSystem | None = None) -> Lease:
        """A lease object of ``holder``, which has not looked yet; a sync costs nothing."""
        is_dead = self.dead.__contains__
        return Lease(Newcomer(fs or FaultyFileSystem(), self.clock, self.fd, holder, process_is_gone=is_dead))

    def on_disk(self) -> Record:
        """What the lease says."""
        found = decode((self.top / "lease").read_bytes())
        assert not isinstance(found, Damaged)
        return found

    def names(self) -> list[str]:
        return sorted(os.listdir(self.top))

    def close(self) -> None:
        os.close(self.fd)
