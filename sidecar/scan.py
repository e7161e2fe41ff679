"""One directory of the home, read and sorted into what is saved and what is left out.

The scan is the truth: start, interval, overflow and the events of a new directory all come through here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from sidecar import select
from sidecar.entry import Entry, Kind, join
from sidecar.fsops import FileSystem, Tree, read_file
from sidecar.outcome import Skipped


@dataclass(frozen=True, slots=True)
class Listing:
    """What one directory holds. ``names`` are all its names: what is missing among them is gone."""

    kept: list[tuple[bytes, Entry]]
    directories: list[bytes]
    skipped: list[Skipped]
    names: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Pruned:
    """The whole directory is left out."""

    reason: str


class Scanner:
    """Reads directories of ``home``; decides by ``select`` alone."""

    def __init__(self, fs: FileSystem, home: Tree, mounts: frozenset[bytes], max_file_bytes: int) -> None:
        self._fs = fs
        self._home = home
        self._mounts = mounts
        self._max_file_bytes = max_file_bytes

    def skip_name(self, path: bytes) -> str | None:
        """Why ``path`` is left out by its name alone, or None."""
        return select.skip_name(path, self._mounts)

    def is_ours(self, path: bytes) -> bool:
        """Whether ``path`` may be written to: it is not left out, and does not lie in another tier."""
        return self.skip_name(path) is None and path.split(b"/", 1)[0] not in self._mounts

    def skip_status(self, status: os.stat_result) -> str | None:
        """Why what ``status`` describes is left out, or None."""
        return select.skip_status(status, self._max_file_bytes)

    def read(self, directory: bytes) -> Listing | Pruned:
        """What ``directory`` holds now. Raises ``OSError`` where it cannot be read or is no directory any more."""
        fd = self._home.directory(directory)
        found = dict(self._fs.entries(fd))
        names = frozenset(found)
        if directory:  # a home is never left out as a whole, whatever is in it
            reason = select.skip_directory(names, lambda name: self._head(fd, name))
            if reason is None and self._is_installed(directory):
                reason = select.INSTALLED
            if reason is not None:
                return Pruned(reason)
        listing = Listing([], [], [], names)
        for name, status in found.items():
            path = join(directory, name)
            reason = self.skip_name(path) or self.skip_status(status)
            entry = Entry.of(status)
            if reason is not None or entry is None:
                listing.skipped.append(Skipped(path, reason or "not a file, a link or a directory"))
                continue
            listing.kept.append((path, entry))
            if entry.kind is Kind.DIRECTORY:
                listing.directories.append(path)
        return listing

    def _is_installed(self, directory: bytes) -> bool:
        environment = select.environment_of(directory)
        if environment is None:
            return False
        try:
            self._fs.lstat(b"pyvenv.cfg", at=self._home.directory(environment))
        except OSError:
            return False
        return True

    def _head(self, fd: int, name: bytes) -> bytes:
        try:
            return read_file(self._fs, fd, name, 64)
        except OSError:
            return b""

    def status(self, path: bytes) -> os.stat_result:
        """The status of ``path`` itself, no link followed. Raises ``OSError``."""
        above, _, name = path.rpartition(b"/")
        return self._fs.lstat(name, at=self._home.directory(above))
