"""Whether the engine works or waits, told across the threads of its process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from sidecar.clock import Clock


class Worker(Protocol):
    """An engine, as threads see it that are not its own."""

    @property
    def is_under_way(self) -> bool:
        """Whether something is being saved though the engine's thread waits."""

    @property
    def untold(self) -> int:
        """How many paths have changed that the engine has not looked at yet."""


class Activity:
    """Of the main thread, and of the engine that it has opened, if any. Read by any thread, changed by the main one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.engine: Worker | None = None
        self._is_waiting = False
        self.working_since_s: float | None = clock.monotonic()
        """Since when the engine has not waited for something to do, on the monotonic clock."""

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside, the main thread waits for something to do, and it is no sign of trouble that it sleeps."""
        self._is_waiting = True
        if not self._is_under_way:
            self.working_since_s = None
        try:
            yield
        finally:
            self._is_waiting = False
            self.working_since_s = self.working_since_s or self._clock.monotonic()

    @property
    def is_working(self) -> bool:
        """Whether the main thread, or another that works for it, has something to do."""
        return not self._is_waiting or self._is_under_way

    @property
    def _is_under_way(self) -> bool:
        engine = self.engine
        return engine is not None and engine.is_under_way

    @property
    def untold(self) -> int:
        """How many paths have changed that nobody has looked at yet; 0 where there is no engine."""
        engine = self.engine
        return 0 if engine is None else engine.untold
