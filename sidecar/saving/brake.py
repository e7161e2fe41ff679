"""When files vanish in a mass, that is a reason to stop and ask, not a change to copy. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import chain

WINDOW_S = 60.0
"""Deletions this close together count as one: a large ``rm -rf`` takes several flushes."""

SMALL = 5
"""Fewer than this many files are nobody's whole work: with two files, deleting two is everyday life."""


@dataclass
class Brake:
    """Counts the files that were deleted in the last minute. Time comes in as seconds on any one clock."""

    _recent: deque[tuple[float, list[int]]] = field(default_factory=deque)
    """When which files left the mirror: of each path its hash, for there can be very many."""

    def allows(self, vanishing: Collection[bytes], held: int, now_s: float) -> bool:
        """Whether the files ``vanishing`` too may leave the mirror: not over half of all within the window.

        ``held`` is how many files there were before, without those that left the mirror in the window. One that was
        deleted, made again and deleted again is one file.
        """
        while self._recent and self._recent[0][0] < now_s - WINDOW_S:
            self._recent.popleft()
        recent = sum(len(paths) for _, paths in self._recent)
        if _is_everyday(recent + len(vanishing), recent + held):
            return True
        before = set(chain.from_iterable(paths for _, paths in self._recent))
        gone = before.union(map(hash, vanishing))
        return _is_everyday(len(gone), len(before) + held)

    def note(self, removed: Iterable[bytes], now_s: float) -> None:
        """The files ``removed`` have left the mirror."""
        self._recent.append((now_s, list(map(hash, removed))))


def _is_everyday(gone: int, before: int) -> bool:
    return gone < SMALL or gone * 2 <= before
