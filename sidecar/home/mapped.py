"""Which files may be written without any event: a mapping tells nothing until it is unmapped. Pure."""

from __future__ import annotations

_MOST_OPEN = 10_000
_MOST_CLOSED = 256
"""Each is looked at again at a notice and at the end, and synced before it is copied."""
_UNCHANGED_WALKS = 2


class Mapped:
    """Bounded: the oldest are forgotten first. Time comes in as seconds on any one clock."""

    def __init__(self) -> None:
        self._open: dict[bytes, None] = {}
        self._closed: dict[bytes, float] = {}
        """When somebody closed it who may not have been the only one to have it open."""

    def opened(self, path: bytes) -> None:
        """Somebody writes to ``path`` and has not closed it, or it changed and no event told of it."""
        self._closed.pop(path, None)
        self._open[path] = None
        if len(self._open) > _MOST_OPEN:
            del self._open[next(iter(self._open))]

    def closed(self, path: bytes, now_s: float) -> None:
        """Somebody who wrote to ``path`` has closed it: whoever had it open before, or another."""
        if path not in self:
            return
        self._open.pop(path, None)
        self._closed.pop(path, None)
        self._closed[path] = now_s
        if len(self._closed) > _MOST_CLOSED:
            del self._closed[next(iter(self._closed))]

    def walked(self, now_s: float, interval_s: float) -> None:
        """A walk has ended, of which there is one in ``interval_s``: what some found unchanged is not mapped."""
        unchanged_since_s = now_s - _UNCHANGED_WALKS * interval_s
        self._closed = {path: at_s for path, at_s in self._closed.items() if at_s > unchanged_since_s}

    def paths(self) -> list[bytes]:
        """All of them, those first that are open for sure."""
        return [*self._open, *self._closed]

    def __contains__(self, path: object) -> bool:
        return path in self._open or path in self._closed
