"""The errors of this package, drawn as a tree.

    SidecarError                 1  a defect of ours
    ├── UsageError               2  a setting or an argument that cannot be used
    ├── NothingToRestore         3  the path, or the path at that time, is not in the backup
    └── PersistError             4  Persist cannot be used
        ├── PersistMissing          not mounted, or not there
        ├── PersistUnwell           full, read-only or failing: it may work again
        ├── PersistForeign          belongs to somebody else, or has a format from the future
        ├── WriterActive            another sidecar on this machine already writes for this server
        ├── LeaseHeld               another sidecar holds the lease of this server's place
        └── Fenced                  another sidecar took over this server's place on Persist

A failure of one source file is no exception: it is a value (see ``outcome``).
"""

from __future__ import annotations

from typing import ClassVar

EXIT_SAFE = 0
EXIT_DEFECT = 1
EXIT_USAGE = 2
EXIT_UNSAVED = 3
EXIT_PERSIST = 4
EXIT_DEADLINE = 5


class SidecarError(Exception):
    """Ends a command with ``exit_code``; ``hint`` says what to do, or is empty."""

    exit_code: ClassVar[int] = EXIT_DEFECT

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} ({self.hint})" if self.hint else message


class UsageError(SidecarError):
    """A setting or an argument cannot be used."""

    exit_code = EXIT_USAGE


class NothingToRestore(SidecarError):
    """The backup holds no such path, or none at the time asked for."""

    exit_code = EXIT_UNSAVED


class PersistError(SidecarError):
    """Persist cannot be used; nothing was written to it."""

    exit_code = EXIT_PERSIST


class PersistMissing(PersistError):
    """Persist is not mounted, or is not there at all."""


class PersistUnwell(PersistError):
    """Persist is full, read-only, stale or failing, and may work again; ``cause`` is what it said."""

    def __init__(self, message: str, cause: OSError) -> None:
        super().__init__(message)
        self.cause = cause


class PersistForeign(PersistError):
    """Persist belongs to somebody else, or was written by a later version."""


class WriterActive(PersistError):
    """Another sidecar on this machine already writes for the same server."""


class LeaseHeld(PersistError):
    """Another sidecar writes for the same server; the lease may be free later."""


class Fenced(PersistError):
    """The lease is not ours any more: another sidecar writes for this server, and we write nothing."""
