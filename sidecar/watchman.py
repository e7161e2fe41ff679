"""A thread that never touches Persist, and so can always say how things stand: whether a call to Persist returns,
whether it is still mounted, and when the time is up, while every other thread of the engine may sleep in the kernel.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sidecar.activity import Activity
from sidecar.backup.mounts import mount_id
from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.line import Supervised, encoded
from sidecar.probe import HUNG
from sidecar.server import alive_path
from sidecar.shares import Shares

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
_STILL_S = 4.0
"""A call that has not returned for so long makes us ask whether Persist answers anybody."""
_HUNG_S = 10.0
"""A call that has not returned for so long hangs, even if Persist answers others."""
_STUCK_S = 600.0
"""Then it is given up with the engine, if Persist answers others. A gigabyte takes a slow server minutes to sync."""
_LATE_SHARE, _LATE_MOST_S = 0.1, 0.2
"""Half of what the supervisor waits after the deadline."""
_AFTERLIFE_CPU_S = 60.0
"""What an engine that was left behind may use to say what it could not save, once it can."""
_WORKERS, _LEASE = ("large", "persist"), ("lease",)
"""The threads that touch Persist, beside the main one, whose id is the process's (after a fork Python has another)."""
_PERSIST = "persist"


@dataclass(frozen=True)
class Problem:
    """What is the matter with Persist."""

    state: str
    """In the words of the status document."""
    since_s: float
    """On the monotonic clock."""
    detail: str


class Watchman:
    """Runs until the process ends. What it finds is read by any thread."""

    def __init__(
        self,
        clock: Clock,
        settings: Settings,
        supervised: Supervised,
        *,
        activity: Activity,
        is_beating: Callable[[], bool],
        on_late: Callable[[], None],
        on_abandoned: Callable[[], None],
    ) -> None:
        """``is_beating`` says whether the thread of the lease is at Persist.

        On the watchman's thread ``on_late`` is called once, when the time is up, and ``on_abandoned`` when we live on
        without the supervisor: others may come then.
        """
        self._clock, self._settings = clock, settings
        self._signals, self._line = supervised.signals, supervised.line
        self._activity, self._is_beating = activity, is_beating
        self._on_late: Callable[[], None] | None = on_late
        self._on_abandoned = on_abandoned
        self.problem: Problem | None = None
        self.must_reopen = False
        """Whether Persist was mounted anew: what is open belongs to the old mount."""
        self.shares = Shares(clock, settings, self._line)
        self._still: tuple[object, float] = (None, clock.monotonic())
        self._answers = True
        self._supervisor = os.getppid()
        self._mount = mount_id(settings.persist) if settings.require_mount else None
        self._thread = threading.Thread(target=self._watch, name="watchman", daemon=True)

    def start(self) -> None:
        """From now on it watches. ``grace_s`` and where we live are told to the supervisor."""
        self._line.send("grace", self._settings.grace_s)
        self._line.send("alive", encoded(alive_path(self._settings.socket_path)))
        self._thread.start()

    def stands(self) -> None:
        """The engine has come so far that its start did not fail."""
        self._line.send("stands")

    def _watch(self) -> None:
        poller = select.poll()
        poller.register(self._line.reader, select.POLLIN)
        with open("/proc/self/mountinfo", "rb") as mounts:
            if self._settings.require_mount:
                poller.register(mounts, select.POLLPRI | select.POLLERR)
            seen_s = self._clock.monotonic()
            while True:
                events = dict(poller.poll(self._until_next_s() * 1000))
                if self._clock.monotonic() > seen_s + 2 * _LOOK_EVERY_S:
                    self._still = (None, self._clock.monotonic())  # we were stopped, and so was everybody
                seen_s = self._clock.monotonic()
                if self._line.reader in events:
                    self._hear()
                if mounts.fileno() in events:
                    self._look_at_mount()
                self.shares.ask()
                self._look_at_supervisor()
                self._look_at_workers()
                self._look_at_clock()

    # What the supervisor says.

    def _hear(self) -> None:
        for word, *words in self._line.receive():
            if word == "told":
                self._signals.told(*(None if each == "-" else float(each) for each in words))
            elif word == "probed" and words[0] == _PERSIST:
                self._answers = int(words[1]) != HUNG
            elif word == "probed":
                self.shares.hear(words[0], int(words[1]), int(words[2]))
        if self._line.is_cut:
            self._live_on()

    def _live_on(self) -> None:
        """The supervisor is gone: so are we, unless the time was up and Persist, when it is back, is to hear of it."""
        if self._clock.monotonic() < self._signals.deadline_s(self._settings.grace_s):
            os._exit(1)
        self._on_abandoned()
        until_s = _cpu_s() + _AFTERLIFE_CPU_S
        while _cpu_s() < until_s:
            self._clock.sleep(_LOOK_EVERY_S)
        os._exit(1)

    def _look_at_supervisor(self) -> None:
        """Whoever stops the sidecar stops all of it: a part that goes on would keep the lease of what stands still."""
        with suppress(OSError), open(f"/proc/{self._supervisor}/stat", "rb") as stat:
            if stat.read().rpartition(b") ")[2].startswith(b"T"):
                os.kill(os.getpid(), signal.SIGSTOP)

    # What is seen.

    def _look_at_mount(self) -> None:
        mount = mount_id(self._settings.persist)
        if mount is None:
            if self.problem is None or self.problem.state != "missing":
                log.error("Persist at %s is not mounted any more", self._settings.persist)
                self.problem = Problem("missing", self._clock.monotonic(), "Persist is not mounted any more")
        elif mount != self._mount:
            self.must_reopen = True
        elif self.problem is not None and self.problem.state == "missing":
            self.problem = None
        self._signals.wake()

    def _look_at_workers(self) -> None:
        now_s = self._clock.monotonic()
        seen = self._seen()
        before, since_s = self._still
        if seen is None or seen != before:
            self._still = (seen, now_s)
            self._answers = True
            if self.problem is not None and self.problem.state in ("hung", "slow"):
                log.info("Persist answers again, after %.1f s", now_s - self.problem.since_s)
                self.problem = None
            return
        if now_s - since_s < _STILL_S or (self.problem is not None and self.problem.state == "missing"):
            return
        self._line.send("probe", _PERSIST, encoded(self._settings.persist))
        age_s = now_s - since_s
        state = "hung" if age_s >= _HUNG_S or not self._answers else "slow"
        self._note(state, since_s, f"a call to Persist has not returned for {age_s:.0f} s")
        if self._answers and age_s >= _STUCK_S:
            self._line.send("replace")

    def _note(self, state: str, since_s: float, detail: str) -> None:
        if self.problem is None or self.problem.state != state:
            log.log(logging.ERROR if state == "hung" else logging.WARNING, "Persist is %s: %s", state, detail)
        self.problem = Problem(state, since_s, detail)

    def _seen(self) -> tuple[int, ...] | None:
        """How long each thread that touches Persist has run so far; None where there is nothing for them to do."""
        if self._activity.is_working:
            return _ran_ns([os.getpid(), *_threads(_WORKERS)])
        # It beats on while others hang, and so it says nothing about them.
        return _ran_ns(_threads(_LEASE)) if self._is_beating() else None

    def _late_s(self) -> float:
        if self._on_late is None:
            return float("inf")
        grace_s = self._settings.grace_s
        return self._signals.deadline_s(grace_s) + min(_LATE_MOST_S, _LATE_SHARE * grace_s)

    def _until_next_s(self) -> float:
        return max(0.0, min(_LOOK_EVERY_S, self._late_s() - self._clock.monotonic()))

    def _look_at_clock(self) -> None:
        if self._on_late is not None and self._clock.monotonic() >= self._late_s():
            on_late, self._on_late = self._on_late, None
            on_late()

    def say_code(self, code: int) -> None:
        """What the supervisor ends with if we cannot."""
        self._line.send("code", code)


def _threads(prefixes: tuple[str, ...]) -> list[int]:
    return [thread.native_id or 0 for thread in threading.enumerate() if thread.name.startswith(prefixes)]


def _ran_ns(thread_ids: Sequence[int]) -> tuple[int, ...]:
    """For how long each thread of this process has run: proc(5), ``schedstat``. One that is asleep stands still."""
    ran = []
    for thread_id in thread_ids:
        # It may have ended meanwhile.
        with suppress(OSError), open(f"/proc/self/task/{thread_id}/schedstat", "rb") as stat:
            ran.append(int(stat.read().split()[0]))
    return tuple(ran)


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system
