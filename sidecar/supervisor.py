"""Process 1 of the container: starts the engine, passes on what it is told, and ends in time whatever becomes of it.

A server that hangs puts whoever touches it into a sleep that nothing ends. So this process touches neither the home nor
Persist: the engine does, and short-lived probes do when the engine asks whether a mount still answers. What has died is
started again, what hangs is left behind. It stays small, for it is there as long as the pod.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType

from sidecar.line import Line, decoded, line_pair
from sidecar.probe import Probes
from sidecar.signals import Signals

EXIT_AGAIN = 75
"""The engine is to be started again: Persist must be opened anew (sysexits.h: a temporary failure)."""
_EXIT_DEFECT = 1
_EXIT_DEADLINE = 5
_LATE_SHARE, _LATE_MOST_S = 0.2, 0.5
"""After the deadline the engine has this share of the grace, at most this long, to say why it does not end."""
_STEADY_S = 5.0
"""An engine that has stood so long was no failed attempt."""
_LONGEST_BACKOFF_S = 5.0
"""A start costs half a second of one core; a minute without an engine may cost a minute of work."""
_LONGEST_WAIT_S = 5.0
"""So often an engine that hangs is looked at: somebody else may have killed it."""
_DEATH_S = 2.0
"""For a killed engine to be gone; one that hangs in the kernel is left behind."""


class Supervisor:
    """One life of the container. For the main thread of a process that has no other."""

    def __init__(self, signals: Signals, engine: Callable[[Line, bool], None]) -> None:
        """``engine`` is called in a new process, with its end of the line and whether it is the first.

        It never returns.
        """
        self._signals, self._work = signals, engine
        self._line: Line | None = None
        self._pid = 0
        self._probes = Probes()
        self._grace_s = 0.0
        self._code = _EXIT_DEADLINE
        self._ended: int | None = None
        """How the engine ended, as waitpid tells it."""
        self._started_s = self._stood_s = self._again_s = 0.0
        self._failures = 0
        self._is_first = True
        self._kill_s = 0.0
        self._told = self._news()
        self._alive_fd = -1

    def run(self) -> int:
        """The exit code: the engine's own, or what it said last where it could not end in time."""
        signal.signal(signal.SIGCHLD, _on_child)
        signal.signal(signal.SIGCONT, self._on_continued)
        self._start()
        while True:
            self._wait()
            self._hear()
            self._probes.hear(self._tell_probed)
            self._reap()
            self._tell()
            code = self._over()
            if code is not None:
                self._probes.end()
                return code

    # The engine.

    def _start(self) -> None:
        ours, theirs = line_pair()
        self._started_s, self._stood_s, self._ended = time.monotonic(), 0.0, None
        self._told = self._news()
        sys.stdout.flush()
        try:
            self._pid = os.fork()
        except OSError as error:
            sys.stderr.write(f"sidecar: no engine can be started: {error.strerror}\n")
            ours.close()
            theirs.close()
            self._fail()
            return
        if self._pid == 0:
            ours.close()
            if self._alive_fd >= 0:
                os.close(self._alive_fd)  # an engine that is left behind must not look like us
            self._probes.forget()
            self._signals.adopt()
            try:
                self._work(theirs, self._is_first)
            finally:  # whatever it raised was told; nothing of the supervisor runs twice
                os._exit(_EXIT_DEFECT)
        theirs.close()
        self._line, self._is_first = ours, False

    def _kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        self._kill_s = time.monotonic()

    def _lose(self) -> None:
        """The engine is gone, or left behind."""
        if self._line is not None:
            self._line.close()
        self._line, self._pid, self._kill_s, self._ended = None, 0, 0.0, None

    def _fail(self) -> None:
        """The engine is started again: at once after it has stood for a while, else ever later."""
        now_s = time.monotonic()
        if self._stood_s and now_s - self._stood_s > _STEADY_S:
            self._failures = 0
        delay_s = min(_LONGEST_BACKOFF_S, 2.0 ** (self._failures - 1)) if self._failures else 0.0
        self._failures += 1
        self._again_s = now_s + delay_s
        self._lose()

    # What happens.

    def _on_continued(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  the handler's signature
        """Whoever stopped us stopped the engine with us."""
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGCONT)

    def _wait(self) -> None:
        poller = select.poll()
        for fd in [self._signals.wait_fd, *([self._line.reader] if self._line else []), *self._probes.readers()]:
            poller.register(fd, select.POLLIN)
        now_s = time.monotonic()
        due_s = [self._end_s(), self._probes.next_due_s(), now_s + _LONGEST_WAIT_S]
        if not self._pid:
            due_s.append(now_s if self._signals.ended else self._again_s)
        if self._kill_s:
            due_s.append(self._kill_s + _DEATH_S)
        poller.poll(max(0.0, min(due_s) - now_s) * 1000 + 1)
        self._signals.clear_wakes()

    def _hear(self) -> None:
        if self._line is None:
            return
        for word, *words in self._line.receive():
            if word == "grace":
                self._grace_s = float(words[0])
            elif word == "code":
                self._code = int(words[0])
            elif word == "stands":
                self._stood_s = time.monotonic()
            elif word == "alive":
                self._hold(decoded(words[0]))
            elif word == "probe":
                self._probes.begin(words[0], decoded(words[1]))
            elif word == "replace" and not self._kill_s:
                self._kill()

    def _hold(self, path: bytes) -> None:
        """Whoever looks at the lock ``path`` sees that this process lives, even while there is no engine."""
        import fcntl

        with suppress(OSError):  # then a restart looks like an end, to whoever asks in that moment
            if self._alive_fd < 0:
                self._alive_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._alive_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _tell_probed(self, name: str, number: int, free_bytes: int) -> None:
        if self._line is not None:
            self._line.send("probed", name, number, free_bytes)

    def _reap(self) -> None:
        """Process 1 buries every orphan."""
        for pid, status in _dead():
            if os.WIFSTOPPED(status):
                self._on_continued(signal.SIGCONT, None)  # we run, and so it should
                continue
            if pid == self._pid:
                self._ended = status
            self._probes.died(pid)

    def _tell(self) -> None:
        news = self._news()
        if self._line is not None and news != self._told:
            self._told = news
            self._line.send("told", *("-" if value is None else value for value in news))

    def _news(self) -> tuple[float | None, float | None, float | None]:
        return self._signals.ended_at, self._signals.noticed_at, self._signals.cut_at

    def _over(self) -> int | None:
        """The exit code, when all is over."""
        now_s = time.monotonic()
        if self._ended is not None:
            code = os.waitstatus_to_exitcode(self._ended)
            if self._may_start_again(code):
                self._fail()
            else:
                return self._code if code < 0 or code == EXIT_AGAIN else code
        if now_s >= self._end_s():
            return self._code
        if self._pid and not self._kill_s and _is_doomed(self._pid):
            self._kill_s = now_s
        if self._kill_s and now_s >= self._kill_s + _DEATH_S:
            self._fail()
        if not self._pid and (self._signals.ended or now_s >= self._again_s):
            self._start()
        return None

    def _end_s(self) -> float:
        """When we are gone whatever the engine does; it tells the grace first of all."""
        if not self._grace_s:
            return float("inf")
        return self._signals.deadline_s(self._grace_s) + min(_LATE_MOST_S, _LATE_SHARE * self._grace_s)

    def _may_start_again(self, code: int) -> bool:
        """After a kill, a crash, or because it asked for it; a first start that fails is for whoever started us."""
        if self._signals.ended and (self._signals.cut_short or self._failures > 3):
            return False
        return code == EXIT_AGAIN or code < 0 or (code == _EXIT_DEFECT and self._stood_s > 0)


def _is_doomed(pid: int) -> bool:
    """Whether ``pid`` was killed, and is still there: it hangs in the kernel, and nobody will ever bury it."""
    with suppress(OSError), open(f"/proc/{pid}/status", "rb") as status:
        for line in status:
            if line.startswith(b"SigPnd:"):
                return bool(int(line.split()[1], 16) & 1 << signal.SIGKILL - 1)
    return False


def _on_child(number: int, frame: FrameType | None) -> None:
    """Nothing to do here: the interpreter has woken whoever waits."""


def _dead() -> Iterator[tuple[int, int]]:
    """Every child that has died, or was stopped, with its status."""
    with suppress(ChildProcessError):  # there is none left
        while (found := os.waitpid(-1, os.WNOHANG | os.WUNTRACED))[0]:
            yield found
