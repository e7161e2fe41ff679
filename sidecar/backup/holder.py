"""Who holds a lease: one process, told apart from every other one in the pod, on the machine and elsewhere."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Holder:
    """One process of one pod. What could not be found out is empty, and proves nothing."""

    pod_uid: str
    """Kubernetes' name of the pod, never used twice; empty where there is none."""
    boot_id: str
    """This start of this machine."""
    pid_namespace: str
    """Device and inode of /proc/self/ns/pid: a pid means nothing in another one."""
    pid: int
    started_ticks: int
    """When the process began, in clock ticks since the machine did: a pid that is used again has another."""
    host: str
    """The machine's name, for people."""

    def shares_pids(self, other: Holder) -> bool:
        """Whether a pid of one means the same process to the other."""
        return bool(
            self.boot_id
            and self.pid_namespace
            and (self.boot_id, self.pid_namespace) == (other.boot_id, other.pid_namespace)
        )

    def is_process(self, other: Holder) -> bool:
        """Whether both are surely the same process."""
        return self.shares_pids(other) and (self.pid, self.started_ticks) == (other.pid, other.started_ticks)

    def __str__(self) -> str:
        pod = f", pod {self.pod_uid}" if self.pod_uid else ""
        return f"process {self.pid} on {self.host or 'an unknown machine'}{pod}"


def this_process(pod_uid: str = "") -> Holder:
    """The process that asks, in the pod ``pod_uid``."""
    try:
        status = os.stat("/proc/self/ns/pid")
        pid_namespace = f"{status.st_dev}:{status.st_ino}"
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot_id = file.read().strip()
        started_ticks = _state_and_start(os.getpid())[1]
    except OSError:
        pid_namespace = boot_id = ""
        started_ticks = 0
    return Holder(
        pod_uid=pod_uid,
        boot_id=boot_id,
        pid_namespace=pid_namespace,
        pid=os.getpid(),
        started_ticks=started_ticks,
        host=socket.gethostname(),
    )


def is_gone(holder: Holder) -> bool:
    """Whether no thread of ``holder`` can run any more. It must be of our own PID namespace."""
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it is there, and somebody else's
    try:
        state, started_ticks = _state_and_start(holder.pid)
        if started_ticks != holder.started_ticks:
            return True
        # Its parent has not waited for it yet. Other threads may live on: one that hangs in NFS still writes later.
        return state in "ZX" and len(os.listdir(f"/proc/{holder.pid}/task")) <= 1
    except OSError:
        return False  # /proc may hide it (hidepid)


def _state_and_start(pid: int) -> tuple[str, int]:
    """Fields 3 and 22 of /proc/PID/stat: proc(5). The name before them may hold blanks and brackets."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        columns = file.read().rpartition(b")")[2].split()
    return columns[0].decode(), int(columns[19])
