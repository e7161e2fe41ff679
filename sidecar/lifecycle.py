"""The life of ``sidecar run``: prepare, restore, watch, save, and an end that claims nothing it did not do."""

from __future__ import annotations

import logging
import os
import resource
import select
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sidecar import errors
from sidecar.backup.persist import check_mounted
from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.engine import Engine
from sidecar.fsops import FileSystem
from sidecar.server import answering, only_writer
from sidecar.signals import Signals
from sidecar.status import Status, read_report

log = logging.getLogger(__name__)

_CATCH_UP_S = 2.0
_LONGEST_WAIT_S = 30.0
_PATIENCE_S = 30.0
"""For so long a single backup tries a Persist that does not work."""
_MARGIN_S = 1.0
"""The process is gone this long before the grace ends: the kubelet's own clock started a little earlier."""
_TELL_EVERY_S = 0.5
"""So often the status is told anew while something takes long."""


@dataclass
class _Request:
    """Somebody waits until everything is safe, unless he ``is_gone``."""

    accept_deletions: bool
    is_gone: Callable[[], bool]
    done: threading.Event = field(default_factory=threading.Event)
    reply: dict[str, Any] = field(default_factory=dict)


class _Desk:
    """Answers requests on other threads than the engine's: the status at once, whatever Persist does."""

    def __init__(self, fs: FileSystem, clock: Clock, settings: Settings, signals: Signals) -> None:
        self._fs, self._clock, self._settings, self._signals = fs, clock, settings, signals
        self.status = Status(server=settings.server, scan_interval_s=settings.scan_interval_s)
        self.requests: deque[_Request] = deque()

    def answer(self, request: Mapping[str, Any], is_gone: Callable[[], bool]) -> Mapping[str, Any]:
        """The reply to one request of somebody who may be gone. Raises ``ValueError`` for one that means nothing."""
        if request.get("op") == "status":
            return self.status.document(self._clock.monotonic(), read_report(self._fs, self._settings.gpu_report))
        if request.get("op") != "flush":
            raise ValueError("op is status or flush")
        waiting = _Request(request.get("accept_deletions") is True, is_gone)
        self.requests.append(waiting)
        self._signals.wake()
        waiting.done.wait()
        return waiting.reply


def run(settings: Settings, signals: Signals, fs: FileSystem, clock: Clock) -> int:
    """Keep ``settings.home`` safe until a signal ends it; the exit code says whether everything is.

    Raises ``PersistError`` where Persist cannot be used (nothing was written then) and ``UsageError``.
    """
    check_mounted(settings)
    _raise_descriptor_limit()
    with only_writer(settings.socket_path):
        desk = _Desk(fs, clock, settings, signals)
        with answering(settings.socket_path, desk.answer):
            return _Life(settings, signals, fs=fs, clock=clock, desk=desk).live()


def back_up_once(settings: Settings, fs: FileSystem, clock: Clock, *, accept_deletions: bool) -> int:
    """Everything in the home is safe, and the exit code says whether it is; without a running sidecar.

    Raises ``PersistError``, ``WriterActive`` among them, and ``UsageError``.
    """
    check_mounted(settings)
    _raise_descriptor_limit()
    with only_writer(settings.socket_path):
        engine = Engine(fs, clock, settings, wake=lambda: None)
        try:
            engine.flush(
                catch_up_s=0.0,
                out_of_time=lambda: engine.trouble.lasted_s > _PATIENCE_S,
                accept_deletions=accept_deletions,
            )
            return engine.close_books(late=False)
        finally:
            engine.close()


def _raise_descriptor_limit() -> None:
    """A deep tree needs a descriptor for each level, a batch one for each directory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Life:
    """One run, from the first look at Persist to the exit code."""

    def __init__(self, settings: Settings, signals: Signals, *, fs: FileSystem, clock: Clock, desk: _Desk) -> None:
        self._settings, self._signals, self._clock, self._desk = settings, signals, clock, desk
        self._engine = Engine(fs, clock, settings, wake=signals.wake)
        self._state = "starting"
        self._shown_s = 0.0
        self._exit_code = errors.EXIT_DEADLINE
        """What the process ends with when its time is up."""
        self._timer: threading.Timer | None = None

    def live(self) -> int:
        engine = self._engine
        try:
            if self._settings.restore:
                self._show("restoring", "looking at what Persist holds")
                engine.recover(lambda: self._signals.ended, self._show_restoring)
            if not self._signals.ended:
                engine.finder.start_watching()
                self._show("watching")
                log.info("watching %s: %d directories", self._settings.home, engine.status("watching").watches)
                self._watch()
            return self._end()
        finally:
            self._release_requests()
            engine.close()
            if self._timer is not None:
                self._timer.cancel()

    def _show(self, state: str, detail: str = "") -> None:
        self._state, self._shown_s = state, self._clock.monotonic()
        self._desk.status = self._engine.status(state, detail)

    def _until(self, is_over: Callable[[], bool]) -> Callable[[], bool]:
        """``is_over``, for the engine to ask in each of its rounds; the status goes on to be told there."""

        def out_of_time() -> bool:
            if self._clock.monotonic() >= self._shown_s + _TELL_EVERY_S:
                self._show(self._state)
            return is_over()

        return out_of_time

    def _show_restoring(self, done: int, total: int) -> None:
        self._show("restoring", f"bringing back {done} of {total} files")

    def _watch(self) -> None:
        poller = select.poll()
        poller.register(self._signals.wait_fd, select.POLLIN)
        noticed_at: float | None = None
        while not self._signals.ended:
            wait_s = min(_LONGEST_WAIT_S, max(0.0, self._engine.next_due_s() - self._clock.monotonic()))
            if poller.poll(wait_s * 1000):
                self._signals.clear_wakes()
            if self._signals.noticed_at != noticed_at:
                noticed_at = self._signals.noticed_at
                self._heed(noticed_at or 0.0)
            self._engine.turn()
            while self._desk.requests and not self._signals.ended:
                self._serve(self._desk.requests.popleft())
            self._show("watching")

    def _heed(self, noticed_s: float) -> None:
        """What changed before the notice is safe, unless the end comes, or the notice turns out to be void."""
        log.info("notice: the end may be near, saving now")
        void_s = noticed_s + self._settings.grace_s
        self._engine.flush_now(self._until(lambda: self._signals.ended or self._clock.monotonic() >= void_s))

    def _serve(self, request: _Request) -> None:
        if not request.is_gone():
            self._engine.flush(
                catch_up_s=_CATCH_UP_S,
                out_of_time=self._until(lambda: self._signals.ended or request.is_gone()),
                accept_deletions=request.accept_deletions,
            )
        self._show("watching")
        self._reply(request)

    def _reply(self, request: _Request) -> None:
        status = self._engine.status(self._state)
        request.reply = {
            "unsaved": len(self._engine.unsaved()),
            "brake": status.brake,
            "persist": status.persist_state,
            "state": status.state,
        }
        request.done.set()

    def _release_requests(self) -> None:
        while self._desk.requests:
            self._reply(self._desk.requests.popleft())

    # The end.

    def _deadline_s(self) -> float:
        """When the process must be gone. A notice older than the grace was void: no SIGTERM followed in time."""
        ended_s = self._signals.ended_at
        noticed_s = self._signals.noticed_at
        if ended_s is None:
            return float("inf")
        start_s = ended_s
        if noticed_s is not None and ended_s - self._settings.grace_s < noticed_s < ended_s:
            start_s = noticed_s
        return start_s + max(self._settings.grace_s - _MARGIN_S, self._settings.grace_s / 2)

    def _out_of_time(self) -> bool:
        return self._signals.cut_short or self._clock.monotonic() >= self._deadline_s()

    def _end(self) -> int:
        self._show("draining", "saving what changed last")
        left_s = self._deadline_s() - self._clock.monotonic()
        log.info("the end: %.1f s to save what changed last", left_s)
        # Nothing that hangs may keep the process beyond its time: an unkilled process is no safer than a killed one.
        self._timer = threading.Timer(max(0.1, left_s + _MARGIN_S / 4), self._give_up)
        self._timer.daemon = True
        self._timer.start()
        self._exit_code = self._engine.drain(self._out_of_time)
        self._show("stopped")
        return self._exit_code

    def _give_up(self) -> None:
        if self._state != "stopped":
            log.critical("NOT SAVED: the time was up in the middle of saving; the next start saves what it finds")
        os._exit(self._exit_code)
