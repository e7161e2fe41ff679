"""Whether a mount still answers, asked by a process of its own for each: one that hangs is left behind.

Asked of Persist when a call to it does not return, and of the Shared mounts once a minute.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

HUNG = -1
"""In the place of an errno: no answer."""
PATIENCE_S = 2.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD)


class _Probe:
    """One question. Its process may never end."""

    def __init__(self, pid: int, reader: int) -> None:
        self.pid, self.reader = pid, reader
        self.due_s = time.monotonic() + PATIENCE_S
        self.is_late = False


class Probes:
    """At most one for each name. For one thread, in a process that has no other: it forks."""

    def __init__(self) -> None:
        self._probes: dict[str, _Probe] = {}
        self._answers: list[tuple[str, int, int]] = []

    def begin(self, name: str, path: bytes) -> None:
        """``path`` is asked; where the probe before still hangs, that is the answer."""
        before = self._probes.get(name)
        if before is not None:
            if before.is_late:
                self._answers.append((name, HUNG, 0))
            return
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            pid = os.fork()
        except OSError:  # too many processes: nobody knows, and it is asked again
            os.close(reader)
            os.close(writer)
            return
        if pid == 0:
            try:
                _look(path, writer)
            finally:
                os._exit(0)
        os.close(writer)
        self._probes[name] = _Probe(pid, reader)

    def readers(self) -> list[int]:
        return [probe.reader for probe in self._probes.values()]

    def next_due_s(self) -> float:
        """When ``hear`` has something to say though nobody answered; on the monotonic clock."""
        if self._answers:
            return 0.0
        return min((probe.due_s for probe in self._probes.values() if not probe.is_late), default=float("inf"))

    def hear(self, tell: Callable[[str, int, int], None]) -> None:
        """``tell`` gets name, errno (0 where all is well, ``HUNG``) and free bytes of each that is known meanwhile.

        One that was late and answers after all is told once more.
        """
        answers, self._answers = self._answers, []
        now_s = time.monotonic()
        for name, probe in list(self._probes.items()):
            words = self._answer(probe)
            if words is not None:
                del self._probes[name]
                os.close(probe.reader)
                answers.append((name, words[0], words[1]))
            elif now_s >= probe.due_s and not probe.is_late:
                probe.is_late = True
                answers.append((name, HUNG, 0))
        for answer in answers:
            tell(*answer)

    @staticmethod
    def _answer(probe: _Probe) -> tuple[int, int] | None:
        os.set_blocking(probe.reader, False)
        try:
            words = os.read(probe.reader, 256).split()
        except BlockingIOError:
            return None
        return (int(words[0]), int(words[1])) if len(words) == 2 else (HUNG, 0)  # killed before it could answer

    def died(self, pid: int) -> None:
        """``pid`` was buried. What it answered is still to be heard."""
        for probe in self._probes.values():
            if probe.pid == pid:
                probe.pid = 0

    def forget(self) -> None:
        """For the child of a fork: the probes are its parent's."""
        for probe in self._probes.values():
            os.close(probe.reader)
        self._probes.clear()

    def end(self) -> None:
        """Nobody waits for an answer any more. One that hangs is gone when the kernel lets it go."""
        for probe in self._probes.values():
            if probe.pid:
                with suppress(ProcessLookupError):
                    os.kill(probe.pid, signal.SIGKILL)


def _look(path: bytes, writer: int) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    # Whoever waits for the other end of a pipe must not wait for us.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(nowhere, fd)
    os.closerange(3, writer)
    os.closerange(writer + 1, 65536)
    try:
        status = os.statvfs(path)  # no cache answers for the server
    except OSError as error:
        os.write(writer, b"%d 0" % (error.errno or 0))
    else:
        os.write(writer, b"0 %d" % (status.f_bavail * status.f_frsize))
