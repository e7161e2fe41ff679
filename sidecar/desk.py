"""Whoever asks is answered here, on other threads than the engine's: at once, whatever Persist does."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sidecar.activity import Activity
from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.fsops import FileSystem
from sidecar.signals import Signals
from sidecar.status import Status, read_report
from sidecar.watchman import Watchman

_DEGRADES = {"hung", "missing"}
_CAN_DEGRADE = {"starting", "restoring", "watching"}

_STILL_THERE_S = 1.0
"""So often somebody who waits is looked for."""


@dataclass
class Request:
    """Somebody waits until everything is safe, unless he ``is_gone``."""

    accept_deletions: bool
    is_gone: Callable[[], bool]
    done: threading.Event = field(default_factory=threading.Event)
    reply: dict[str, Any] = field(default_factory=dict)


class Desk:
    """The engine leaves its ``status`` here, and takes the ``requests``."""

    def __init__(
        self,
        fs: FileSystem,
        clock: Clock,
        settings: Settings,
        signals: Signals,
        *,
        watchman: Watchman,
        activity: Activity,
    ) -> None:
        self._fs, self._clock, self._settings, self._signals = fs, clock, settings, signals
        self._watchman, self._activity = watchman, activity
        self.status = Status(server=settings.server, scan_interval_s=settings.scan_interval_s)
        self.requests: deque[Request] = deque()

    def answer(self, request: Mapping[str, Any], is_gone: Callable[[], bool]) -> Mapping[str, Any]:
        """The reply to one request of somebody who may be gone. Raises ``ValueError`` for one that means nothing."""
        if request.get("op") == "status":
            report = read_report(self._fs, self._settings.gpu_report)
            return self.current().document(self._clock.monotonic(), report)
        if request.get("op") != "flush":
            raise ValueError("op is status or flush")
        waiting = Request(request.get("accept_deletions") is True, is_gone)
        self.requests.append(waiting)
        self._signals.wake()
        while not waiting.done.wait(_STILL_THERE_S):
            if is_gone():
                return {}
        return waiting.reply

    def current(self) -> Status:
        """What the engine said last, with what is known though the engine itself may hang."""
        pending_files = self.status.pending_files + self._activity.untold
        shared = self._watchman.shares.documents()
        status = replace(self.status, pending_files=pending_files, shared=shared)
        problem = self._watchman.problem
        if problem is None:
            return status
        state = "degraded" if problem.state in _DEGRADES and status.state in _CAN_DEGRADE else status.state
        return replace(
            status, state=state, detail=problem.detail, persist_state=problem.state, persist_since=problem.since_s
        )
