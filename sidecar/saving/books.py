"""How it went: what failed and why, what changed under every attempt, and when each is tried again."""

from __future__ import annotations

from sidecar.clock import Clock
from sidecar.saving.retry import Retry


class Books:
    """One entry for each path that is not as it should be. For one thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.retry = Retry()
        self.failed: dict[bytes, str] = {}
        """Why each path that should be safe is not."""
        self.busy: set[bytes] = set()
        """What changed under every attempt to copy it: it may hold still the next time."""
        self.saved_at_ns: int | None = None
        """When something was last saved."""

    def fail(self, path: bytes, reason: str) -> None:
        """``path`` could not be saved; it is tried again."""
        self.failed[path] = reason
        self.later(path)

    def later(self, path: bytes) -> None:
        """Nobody knows yet how it stands with ``path``: it is looked at again."""
        self.retry.later(path, self._clock.monotonic())

    def settle(self, path: bytes) -> None:
        """``path`` is saved, gone, or left out."""
        self.failed.pop(path, None)
        self.busy.discard(path)
        self.retry.forget(path)
