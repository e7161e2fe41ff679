"""The backup as it can be asked: what a path was, and what has to be put back for a path or a time.

Reads Persist without a lease, beside a running sidecar or without one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from sidecar import journal
from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.entry import Entry, Kind, join, legible, name_of, parent
from sidecar.errors import NothingToRestore, PersistMissing, UsageError
from sidecar.fsops import FileSystem
from sidecar.index import Index
from sidecar.journal import JournalUnreadable
from sidecar.mirror import read_mirror
from sidecar.persist import Layout, mirror_of, state_of
from sidecar.restore import Wanted
from sidecar.versions import Version, at_time, versions_in, walk


@dataclass(frozen=True, slots=True)
class Past:
    """One content of a path: from when, until when (None for the current one), and how large it is."""

    from_ns: int
    until_ns: int | None
    size: int
    kind: Kind


def home_path(settings: Settings, text: str) -> bytes:
    """``text``, relative to the home or absolute below it, as a path in the home; ``b""`` is the home itself.

    Raises ``UsageError`` for a path outside of the home.
    """
    path = os.path.normpath(text)
    if os.path.isabs(path):
        path = os.path.relpath(path, os.path.normpath(settings.home))
    if path == ".." or path.startswith("../"):
        raise UsageError(f"{text} is not in the home {settings.home}")
    return b"" if path == "." else os.fsencode(path)


class Archive:
    """What one server's backup holds."""

    def __init__(self, fs: FileSystem, clock: Clock, settings: Settings) -> None:
        """Raises ``OSError``, ``PersistForeign``, and ``PersistMissing`` where there is no backup at all."""
        self._fs = fs
        self.layout = Layout(fs, clock, settings)
        if not self.layout.check_format():
            raise PersistMissing(f"there is no backup on the Persist at {settings.persist}")
        self._tiers = frozenset(os.fsencode(name) for name in settings.mounts)
        self._mirror = mirror_of(self.layout.server)
        self._versions = state_of(self.layout.server) + b"/versions"
        self.index = self._read_index()

    def _read_index(self) -> Index:
        try:
            state = self.layout.root.directory(state_of(self.layout.server))
        except FileNotFoundError as error:
            raise PersistMissing(f"there is no backup of the server {legible(self.layout.server)}") from error
        try:
            return journal.read(self._fs, state).index
        except JournalUnreadable:
            return read_mirror(self._fs, self.layout)

    def history(self, path: bytes) -> list[Past]:
        """Every content of ``path`` that is kept, the oldest first. Raises ``NothingToRestore`` where there is none."""
        past = [
            Past(version.span.from_ns, version.span.until_ns, version.size, version.kind)
            for version in self._versions_of(path)
        ]
        current = self.index.get(path)
        if current is not None and current.kind is not Kind.DIRECTORY:
            past.append(Past(current.since_ns, None, current.size, current.kind))
        if not past:
            raise NothingToRestore(f"the backup has never held a file {legible(path)}")
        return past

    def wanted(self, path: bytes, at_ns: int | None) -> list[Wanted]:
        """What has to be put back for ``path``, and everything below it, to be what it was at ``at_ns``.

        Without a time it is what the mirror holds, and, for what has left the mirror, its last version. Raises
        ``NothingToRestore`` where the backup knows nothing of ``path``, or nothing at that time.
        """
        found = {item.path: item for item in self._current(path, at_ns)}
        if at_ns is not None or not found:
            for version in self._past(path, at_ns):
                found.setdefault(version.path, self._of_version(version))
        # A backup never holds another tier; what somebody planted there must not be written through the mount.
        found = {each: item for each, item in found.items() if each.split(b"/", 1)[0] not in self._tiers}
        if not found and path:
            when = "" if at_ns is None else " at that time"
            raise NothingToRestore(
                f"the backup holds no {legible(path)}{when}", hint="sidecar versions shows what it has"
            )
        return list(found.values())

    def _current(self, path: bytes, at_ns: int | None) -> Iterator[Wanted]:
        entry = self.index.get(path) if path else None
        paths = [*self.index.below(path), *([path] if entry is not None else [])]
        for each in paths:
            known = self.index.get(each)
            # A directory's history is not kept: it comes back with what was in it.
            if known is None or (at_ns is not None and (known.kind is Kind.DIRECTORY or known.since_ns > at_ns)):
                continue
            yield Wanted(each, known, self._in_mirror(parent(each)), name_of(each))

    def _past(self, path: bytes, at_ns: int | None) -> Iterator[Version]:
        try:
            directory = self.layout.root.directory(join(self._versions, path) if path else self._versions)
        except OSError:
            return
        by_path: dict[bytes, list[Version]] = {}
        for version in walk(self._fs, directory, path):
            by_path.setdefault(version.path, []).append(version)
        for versions in by_path.values():
            chosen = versions[-1] if at_ns is None else at_time(versions, at_ns)
            if chosen is not None:
                yield chosen

    def _of_version(self, version: Version) -> Wanted:
        directory = join(self._versions, version.path)
        entry = Entry(version.kind, version.mode, version.size, version.mtime_ns, 0, 0, version.span.from_ns)
        return Wanted(version.path, entry, directory, version.name)

    def _versions_of(self, path: bytes) -> list[Version]:
        try:
            directory = self.layout.root.directory(join(self._versions, path))
        except OSError:
            return []
        return versions_in(self._fs, directory, path)

    def _in_mirror(self, path: bytes) -> bytes:
        return join(self._mirror, path) if path else self._mirror

    def close(self) -> None:
        self.layout.close()
