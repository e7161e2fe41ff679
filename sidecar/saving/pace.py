"""How often a large file that changes all the time is copied. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

_SHARE = 0.05
_LONGEST_S = 600.0
_REMEMBERED = 1000


@dataclass
class Pace:
    """One file may be copied for ``_SHARE`` of the time: a copy that took a second is not repeated for twenty.

    Time comes in as seconds on any one clock.
    """

    is_off: bool = False
    """Nothing is held back: somebody waits for everything to be safe."""
    _free_at: dict[bytes, float] = field(default_factory=dict)
    _waiting: dict[bytes, float] = field(default_factory=dict)

    def copied(self, path: bytes, began_s: float, ended_s: float) -> None:
        """``path`` was being copied from ``began_s`` until ``ended_s``."""
        self._free_at.pop(path, None)
        self._free_at[path] = ended_s + min(_LONGEST_S, (ended_s - began_s) / _SHARE)
        while len(self._free_at) > _REMEMBERED:
            del self._free_at[next(iter(self._free_at))]

    def holds_back(self, path: bytes, now_s: float) -> bool:
        """Whether ``path``, which changed again, has to wait; it then comes with ``take_due``."""
        free_at_s = self._free_at.get(path, now_s)
        if free_at_s <= now_s or self.is_off:
            return False
        self._waiting[path] = free_at_s
        return True

    def take_due(self, now_s: float) -> list[bytes]:
        """The paths that have waited long enough."""
        due = [path for path, at_s in self._waiting.items() if at_s <= now_s]
        for path in due:
            del self._waiting[path]
        return due

    def take_all(self) -> list[bytes]:
        """Every waiting path."""
        paths = list(self._waiting)
        self._waiting.clear()
        return paths

    def next_due_s(self) -> float | None:
        """When ``take_due`` will next have something."""
        return min(self._waiting.values(), default=None)

    def waiting(self) -> dict[bytes, float]:
        """Every path that waits, and until when."""
        return dict(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)
