"""When a file that could not be saved is tried again: soon, and then ever more rarely. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

FIRST_S = 0.5
LONGEST_S = 30.0
"""The hard bound of the promise for a file under constant change."""


def delay_s(attempts: int) -> float:
    """How long to wait after the ``attempts``-th failure, at least 1: doubling, up to the bound."""
    return min(LONGEST_S, FIRST_S * 2.0 ** min(attempts - 1, 16))


@dataclass
class Retry:
    """Failed paths and when each is due. Time comes in as seconds on any one clock."""

    _attempts: dict[bytes, int] = field(default_factory=dict)
    _due: dict[bytes, float] = field(default_factory=dict)

    def later(self, path: bytes, now_s: float) -> None:
        """``path`` failed (again) at ``now_s``."""
        attempts = self._attempts[path] = self._attempts.get(path, 0) + 1
        self._due[path] = now_s + delay_s(attempts)

    def forget(self, path: bytes) -> None:
        """``path`` is settled: saved, gone, or left out."""
        self._attempts.pop(path, None)
        self._due.pop(path, None)

    def take_due(self, now_s: float) -> list[bytes]:
        """The paths to try now; they do not wait here any more, but their failures are remembered."""
        due = [path for path, at_s in self._due.items() if at_s <= now_s]
        for path in due:
            del self._due[path]
        return due

    def take_all(self) -> list[bytes]:
        """Every waiting path."""
        paths = list(self._due)
        self._due.clear()
        return paths

    def next_due_s(self) -> float | None:
        """When ``take_due`` will next have something."""
        return min(self._due.values(), default=None)

    def paths(self) -> list[bytes]:
        """The waiting paths."""
        return list(self._due)

    def __len__(self) -> int:
        return len(self._due)
