"""What became of one path: values, because one bad file never stops the run."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.entry import Entry


@dataclass(frozen=True, slots=True)
class Saved:
    """The mirror holds this content, durably."""

    path: bytes
    entry: Entry


@dataclass(frozen=True, slots=True)
class Removed:
    """The path has left the mirror; its last content is a version."""

    path: bytes


@dataclass(frozen=True, slots=True)
class Vanished:
    """The path went away before it could be read; nothing was done."""

    path: bytes


@dataclass(frozen=True, slots=True)
class ChangedWhileReading:
    """The content changed under every attempt; the mirror still holds the last whole one."""

    path: bytes


@dataclass(frozen=True, slots=True)
class Skipped:
    """Left out on purpose."""

    path: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Could not be read, or does not fit on Persist; owed until it succeeds."""

    path: bytes
    reason: str


Outcome = Saved | Removed | Vanished | ChangedWhileReading | Skipped | Failed
