"""Children that ask the driver, and the deadlines that they keep.

The driver may crash the process that calls it, hang in it, or never let it die (D state). So the parent never calls it:
each probe is a child with its own deadline, a process group that is killed as a whole, and a pipe that nobody else
writes to. The children run at the same time; waiting for one does not stop the others, since an answer fits in a pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .facts import Silence

ANSWER_LIMIT_BYTES = 60 * 1024  # an answer must fit in a pipe's 64 KiB, so that no child waits for its reader
COMPILED = "/compiled/"  # in the archive: gpu-check.pyz/compiled/cpython-311/gpu_checks/…
REAP_POLL_S = 0.005
KILL_WAIT_S = 0.5  # a killed process that is still there after this is in the kernel's hands (D state)

# Works the same from a zipapp, an installed package and a checkout: what holds this package goes in front of the path.
_START = "import sys; sys.path.insert(0, sys.argv[1]); from gpu_checks.probe import main; main(sys.argv[2:])"


@dataclass(frozen=True)
class Answer:
    """What a child said last. With ``silence`` it did not come to its end."""

    facts: Any | None = None
    silence: Silence | None = None


def command(arguments: tuple[str, ...]) -> list[str]:
    """The command line of a probe: this Python, isolated from the environment and the working directory."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    isolated = ["-I", "-S"] if sys.flags.no_site else ["-I"]
    return [sys.executable, *isolated, "-c", _START, root, str(os.getpid()), *arguments]


def source_root() -> str:
    """What holds the sources of this package, for another Python: the directory, or the archive, which beside them has
    compiled modules that only one Python understands."""
    path = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return path.partition(COMPILED)[0]


class Child:
    """One probe, started. Its deadline is a time of the monotonic clock. ``run`` are the probes of the same run."""

    def __init__(
        self,
        command: list[str],
        *,
        deadline: float,
        environ: Mapping[str, str],
        stderr: int = subprocess.DEVNULL,
        run: Sequence[Child] = (),
    ) -> None:
        self._run = run
        self._deadline = deadline
        self._killed_at: float | None = None
        self._limit_s = deadline - time.monotonic()
        self._buffer = b""
        self._facts: Any | None = None
        self._call = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._refusal = ""
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=dict(environ),
                start_new_session=True,
            )
        except OSError as error:  # no process left in the pod's limit, no memory, no Python any more
            self._refusal = str(error)

    def answer(self) -> Answer:
        """What the child had to say, at the latest at its deadline."""
        if self._process is None:
            return Answer(silence=Silence("not started", detail=self._refusal))
        try:
            ended = self._read(self._process)
        except _Garbled as garbled:
            self.kill()
            return Answer(self._facts, Silence("garbled", self._call, str(garbled)))
        return Answer(self._facts, ended)

    def kill(self) -> None:
        """SIGKILL is sent to the child and to whatever it has started."""
        if self._process is not None and self._process.returncode is None:
            if self._killed_at is None and not self._has_ended(self._process):
                self._killed_at = time.monotonic()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def gone(self, timeout_s: float) -> bool:
        """True once the child is gone, and what it had started is killed; False if it is still there after the time.

        The group is killed while the dead child still holds its number, so that it cannot be somebody else's.
        """
        if self._process is None or self._process.returncode is not None:
            return True
        end = time.monotonic() + timeout_s
        while not self._has_ended(self._process):
            if time.monotonic() >= end:
                return False
            time.sleep(REAP_POLL_S)
        self.kill()
        self._process.wait()
        return True

    @staticmethod
    def _has_ended(process: subprocess.Popen[bytes]) -> bool:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

    def close(self) -> None:
        """The pipes are closed: a child that waits for its parent ends."""
        if self._process is not None:
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()

    def _read(self, process: subprocess.Popen[bytes]) -> Silence | None:
        """Reads to the child's end mark: None, or why there is none."""
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
        received = 0
        while True:
            left_s = self._deadline - time.monotonic()
            if not poll.poll(max(left_s, 0) * 1000):  # what was said in time counts, also when it is read late
                return self._overdue()
            chunk = os.read(descriptor, 65536)
            if not chunk:
                return self._died(process)
            received += len(chunk)
            if received > ANSWER_LIMIT_BYTES:
                raise _Garbled("the answer is too long")
            end = self._take(chunk)
            if end is not None:
                return None if end == "" else Silence("defect", self._call, end)

    def _take(self, chunk: bytes) -> str | None:
        """Remembers what whole lines say; returns the defect, or "" at the end mark, or None to read on."""
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                raise _Garbled(repr(line[:80])) from None
            if not isinstance(message, dict):
                raise _Garbled(repr(line[:80]))
            if "end" in message:
                return str(message["end"])
            self._learn(message)
        return None

    def _learn(self, message: dict[str, Any]) -> None:
        self._call = str(message.get("call", self._call))
        self._facts = message.get("facts", self._facts)
        if "add" in message:
            try:
                name, item = message["add"]
                self._facts[name].append(item)  # type: ignore[index]  # a wrong shape is what is caught here
            except (TypeError, KeyError, ValueError, AttributeError):
                raise _Garbled(repr(message)[:80]) from None

    def _overdue(self) -> Silence:
        """All that are overdue are killed before one is waited for: the kernel may hold several of them."""
        now = time.monotonic()
        for child in self._run:
            if child._deadline <= now:
                child.kill()
        self.kill()
        reason = "hung" if self.gone(self._patience_s()) else "unkillable"
        return self._silence(reason)

    def _died(self, process: subprocess.Popen[bytes]) -> Silence:
        """The pipe's end without the end mark: the process is gone, or about to be."""
        killed = self._killed_at is not None
        if not self.gone(self._patience_s()):
            return self._overdue()
        status = process.returncode
        if status == -signal.SIGKILL and killed:
            return self._silence("hung")
        if status in (-signal.SIGKILL, -signal.SIGTERM):
            return Silence("killed", self._call, _signal_name(status))
        return Silence("crashed", self._call, _signal_name(status) if status < 0 else f"exit status {status}")

    def _silence(self, reason: str) -> Silence:
        return Silence(reason, self._call, f"no answer within {self._limit_s:.1f} s")

    def _patience_s(self) -> float:
        """How long its end may be waited for."""
        now = time.monotonic()
        if self._killed_at is not None:
            return self._killed_at + KILL_WAIT_S - now
        return max(KILL_WAIT_S, self._deadline - now)


class _Garbled(Exception):
    """What came through the pipe is no message of ours."""


def _signal_name(status: int) -> str:
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


class Children:
    """The probes of one run; when it ends, none of them is left, as far as the kernel lets go of them by ``end``."""

    def __init__(
        self, *, end: float, environ: Mapping[str, str], launch: Callable[[tuple[str, ...]], list[str]] = command
    ) -> None:
        self._end = end
        self._launch = launch
        self._environ = dict(environ)
        self._started: list[Child] = []

    def __enter__(self) -> Children:
        return self

    def start(
        self,
        *arguments: str,
        deadline: float,
        extra: Mapping[str, str] | None = None,
        stderr: int = subprocess.DEVNULL,
    ) -> Child:
        """The probe runs; its answer is to be fetched. ``stderr`` is a descriptor for what it prints there."""
        child = Child(
            self._launch(arguments),
            deadline=min(deadline, self._end),
            environ={**self._environ, **(extra or {})},
            stderr=stderr,
            run=self._started,
        )
        self._started.append(child)
        return child

    def __exit__(self, *_: object) -> None:
        for child in self._started:
            child.kill()
        for child in self._started:
            child.gone(self._end - time.monotonic())
            child.close()
