"""Processes that outlive the hub: started in sessions of their own, recognised again by pid and birth, ended for sure.

A pid alone proves nothing: the kernel gives it to somebody else after a while. A process is known by its pid, the boot,
and its start time in clock ticks (proc(5), ``/proc/pid/stat``, field 22).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hub.text import visible

MARK = "JUPYTERHUB_SIDECAR_MARK"
"""In the environment of every process of a server. Kernels and terminals have sessions of their own, and survive a
notebook that was killed, as orphans: this is how they are found."""

_POLL_S = 0.05


@dataclass(frozen=True)
class Process:
    """One process, for all time."""

    pid: int
    birth: str

    @property
    def age_key(self) -> tuple[int, int]:
        """Sorts the oldest first."""
        return int(self.birth.rpartition("/")[2]), self.pid

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        return identify(self.pid) == self


def identify(pid: int) -> Process | None:
    """The process that has ``pid`` now, or ``None``."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in parentheses can hold anything, a closing parenthesis included.
            fields = file.read().rpartition(b")")[2].split()
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
    except OSError:
        return None
    if fields[0] in (b"Z", b"X"):
        return None
    return Process(pid, f"{boot}/{fields[19].decode()}")


def marked(mark: str) -> list[Process]:
    """Every running process whose environment began with ``mark``."""
    return _marked(lambda found: found == mark)


def marked_below(directory: str, role: str) -> list[Process]:
    """Every running process of any server below ``directory`` that is its ``role``."""
    return _marked(lambda found: found.startswith(f"{directory}/") and found.endswith(f"#{role}"))


def _marked(wanted: Callable[[str], bool]) -> list[Process]:
    found = []
    for pid in _pids():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environ = os.fsdecode(file.read()).split("\0")
        except OSError:
            continue  # ended meanwhile, or somebody else's
        marks = (entry.removeprefix(f"{MARK}=") for entry in environ if entry.startswith(f"{MARK}="))
        process = identify(pid) if any(wanted(mark) for mark in marks) else None
        if process is not None:
            found.append(process)
    return found


def with_descendants(processes: Iterable[Process]) -> list[Process]:
    """``processes`` and everything below them: a child that was started with an empty environment has no mark."""
    children: dict[int, list[int]] = {}
    for pid in _pids():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
            parent = int(file.read().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(pid)
    found = {process.pid: process for process in processes}
    waiting = list(found)
    while waiting:
        for pid in children.get(waiting.pop(), []):
            process = identify(pid) if pid not in found else None
            if process is not None:
                found[pid] = process
                waiting.append(pid)
    return list(found.values())


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def send(process: Process, signum: signal.Signals) -> None:
    """Sends ``signum`` to ``process``, and never to a successor that has its pid."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(process.pid)
        try:
            if process.alive():
                signal.pidfd_send_signal(descriptor, signum)
        finally:
            os.close(descriptor)


def kill_session(leader: int) -> None:
    """Nothing of the process group of ``leader`` runs any more, if there was anything left of it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


class Child:
    """A process of a server: one we started, whose exit code we learn, or one adopted after a restart of the hub."""

    def __init__(self, process: Process, popen: subprocess.Popen[bytes] | None = None) -> None:
        self.process = process
        self._popen = popen

    @property
    def ours(self) -> bool:
        return self._popen is not None

    def running(self) -> bool:
        """Whether it still runs. Reaps it when it does not."""
        if self._popen is not None:
            return self._popen.poll() is None
        return self.process.alive()

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; ``None`` while it runs, and for one that was adopted."""
        return self._popen.poll() if self._popen is not None else None

    def send(self, signum: signal.Signals) -> None:
        if self.running():
            send(self.process, signum)

    async def ended(self, timeout_s: float) -> bool:
        """Waits until it has ended, at most ``timeout_s``; whether it has."""
        return await until(lambda: not self.running(), timeout_s)


def start(command: Sequence[str], *, environ: Mapping[str, str], cwd: str, log: str) -> Child:
    """Starts ``command`` in a session of its own; what it prints is appended to ``log``. Raises ``OSError``."""
    descriptor = open_at_once(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
    try:
        popen = subprocess.Popen(
            list(command),
            env=dict(environ),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,  # Ctrl-C in the hub's terminal must not reach it
        )
    finally:
        os.close(descriptor)
    return Child(identify(popen.pid) or Process(popen.pid, "gone"), popen)


def open_at_once(path: str, flags: int) -> int:
    """A descriptor of the file ``path``. What a user put there instead, a link or a FIFO, makes nobody wait.

    Raises ``OSError``.
    """
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)


def listening(port: int) -> bool:
    """Whether somebody takes connections on ``port`` of this machine."""
    with socket.socket() as connection:
        connection.settimeout(1.0)
        return connection.connect_ex(("127.0.0.1", port)) == 0


def last_line(log: str) -> str:
    """The last line in the file ``log`` that is not empty, readable."""
    try:
        with open(log, "rb", opener=open_at_once) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        lines = []
    return visible(next((line for line in reversed(lines) if line.strip()), "it said nothing"), limit=300)


async def until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Waits until ``condition`` holds, at most ``timeout_s``; whether it did."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True


async def end_all(processes: Iterable[Process], *, patience_s: float) -> list[Process]:
    """Ends ``processes`` by SIGTERM, and by SIGKILL after ``patience_s``; those that even this did not end."""
    remaining = await _end(list(processes), signal.SIGTERM, patience_s)
    return await _end(remaining, signal.SIGKILL, 2.0)


async def _end(processes: list[Process], signum: signal.Signals, wait_s: float) -> list[Process]:
    for process in processes:
        send(process, signum)
    await until(lambda: not any(process.alive() for process in processes), wait_s)
    return [process for process in processes if process.alive()]
