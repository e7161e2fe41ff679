"""When files vanish in a mass, that is a reason to stop and ask, not a change to copy. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

WINDOW_S = 60.0
"""Deletions this close together count as one: a large ``rm -rf`` takes several flushes."""

SMALL = 5
"""Fewer than this many files are nobody's whole work: with two files, deleting two is everyday life."""


@dataclass
class Brake:
    """Counts the deletions of the last minute. Time comes in as seconds on any one clock."""

    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    def allows(self, vanishing: int, held: int, now_s: float) -> bool:
        """Whether ``vanishing`` more of the ``held`` files may leave the mirror: not over half within the window."""
        while self._recent and self._recent[0][0] < now_s - WINDOW_S:
            self._recent.popleft()
        recent = sum(count for _, count in self._recent)
        gone, before = recent + vanishing, recent + held
        return gone < SMALL or gone * 2 <= before

    def note(self, removed: int, now_s: float) -> None:
        """``removed`` files have left the mirror."""
        self._recent.append((now_s, removed))
