"""What one walk over the home learnt about its directories."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Survey:
    """Directories that are not like the others. A walk fills a new one, and replaces the old when it is through."""

    unreadable: dict[bytes, str] = field(default_factory=dict)
    """What is in them is not saved; with the reason."""
    unwatched: set[bytes] = field(default_factory=set)
    """They give no events."""

    def forget(self, directory: bytes) -> None:
        """``directory`` is looked at anew, or is gone."""
        self.unreadable.pop(directory, None)
        self.unwatched.discard(directory)

    @property
    def silent(self) -> set[bytes]:
        """The directories of which no event tells."""
        return {*self.unwatched, *self.unreadable}
