"""When a changed path is copied: once it has been quiet, or after a bound if it never is."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice, takewhile


@dataclass
class Settle:
    """The changed paths and when each is due. Pure: time comes in as seconds on any one clock.

    Both dictionaries keep their insertion order, which is the order of time: what is due stands in front, and asking
    costs what is due, not what waits.
    """

    quiet_s: float
    max_delay_s: float
    _first: dict[bytes, float] = field(default_factory=dict)
    _last: dict[bytes, float] = field(default_factory=dict)

    def touch(self, path: bytes, now_s: float) -> None:
        """``path`` changed at ``now_s``."""
        self._first.setdefault(path, now_s)
        self._last.pop(path, None)
        self._last[path] = now_s

    def take_due(self, now_s: float, limit: int | None = None) -> list[bytes]:
        """The paths to copy now, ``limit`` of them at most; they no longer wait."""
        due = _front(self._last, now_s - self.quiet_s, limit)
        self._drop(due)
        overdue = _front(self._first, now_s - self.max_delay_s, None if limit is None else limit - len(due))
        self._drop(overdue)
        return due + overdue

    def _drop(self, paths: list[bytes]) -> None:
        for path in paths:
            del self._last[path], self._first[path]

    def take_all(self) -> list[bytes]:
        """Every waiting path; none waits any more."""
        paths = list(self._first)
        self._first.clear()
        self._last.clear()
        return paths

    def next_due_s(self) -> float | None:
        """When ``take_due`` will next have something; None while nothing waits."""
        if not self._first:
            return None
        first_s = next(iter(self._first.values()))
        last_s = next(iter(self._last.values()))
        return min(last_s + self.quiet_s, first_s + self.max_delay_s)

    def oldest_s(self) -> float | None:
        """When the longest waiting path changed first."""
        return next(iter(self._first.values()), None)

    def paths(self) -> list[bytes]:
        """The waiting paths, the longest waiting first."""
        return list(self._first)

    def __contains__(self, path: bytes) -> bool:
        return path in self._first

    def __len__(self) -> int:
        return len(self._first)


def _front(times: dict[bytes, float], until_s: float, limit: int | None) -> list[bytes]:
    """The paths at the front of ``times``, whose order is that of time, that are not later than ``until_s``."""
    return list(islice(takewhile(lambda path: times[path] <= until_s, times), limit))
