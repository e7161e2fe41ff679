"""What is left out and why, for the status: the first thousand by name, the rest as a number."""

from __future__ import annotations

from dataclasses import dataclass, field

from sidecar.outcome import Skipped

SHOWN = 1000


@dataclass
class Skips:
    """The skipped paths as of the last complete scan and what came since."""

    shown: dict[bytes, str] = field(default_factory=dict)
    count: int = 0
    _fresh: Skips | None = None

    def begin(self) -> None:
        """A scan begins, and will name everything that is left out."""
        self._fresh = Skips()

    def complete(self) -> None:
        """The scan is over: what it did not name is not left out any more."""
        if self._fresh is not None:
            self.shown, self.count, self._fresh = self._fresh.shown, self._fresh.count, None

    def add(self, skipped: Skipped) -> None:
        """One path is left out."""
        if self._fresh is not None:
            self._fresh.add(skipped)
        if skipped.path not in self.shown:
            self.count += 1
        if len(self.shown) < SHOWN or skipped.path in self.shown:
            self.shown[skipped.path] = skipped.reason

    def discard(self, path: bytes) -> None:
        """One path is not left out any more."""
        if self.shown.pop(path, None) is not None:
            self.count -= 1
