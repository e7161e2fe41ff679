"""Which files of the home are SQLite databases with a log, and what stands for each of them in the index."""

from __future__ import annotations

import threading

from sidecar.entry import Entry, join, name_of, parent
from sidecar.fsops import FileSystem, Tree
from sidecar.outcome import Skipped
from sidecar.sqlite.files import (
    changed_with,
    companion_of,
    fold,
    is_database,
    logs_of,
    owns_companions,
    part_of,
    with_logs,
)

_MOST = 10_000


class Databases:
    """Those that were seen with a log since the start. For one thread, but for ``note_unreadable``."""

    def __init__(self, fs: FileSystem, home: Tree) -> None:
        self._fs, self._home = fs, home
        self._known: dict[bytes, None] = {}
        self._lock = threading.Lock()
        self._unreadable: dict[tuple[object, ...], None] = {}

    def __contains__(self, path: object) -> bool:
        return path in self._known

    def note(self, path: bytes) -> None:
        """``path`` is one."""
        self._known[path] = None
        if len(self._known) > _MOST:
            del self._known[next(iter(self._known))]

    def note_unreadable(self, entry: Entry) -> None:
        """SQLite has no use for the file that was ``entry``: until it changes, its logs are files of their own."""
        with self._lock:
            self._unreadable[_identity(entry)] = None
            if len(self._unreadable) > _MOST:
                del self._unreadable[next(iter(self._unreadable))]

    def is_unreadable(self, path: bytes) -> bool:
        """Whether ``path`` still is what SQLite had no use for."""
        try:
            entry = Entry.of(self._fs.lstat(name_of(path), at=self._home.directory(parent(path))))
        except OSError:
            return False
        return entry is not None and _identity(entry) in self._unreadable

    def note_if_one(self, path: bytes) -> None:
        """``path`` could not be copied as it is: if it is a database, it is copied as one from now on."""
        try:
            if is_database(self._fs, self._home.directory(parent(path)), name_of(path)):
                self.note(path)
        except OSError:
            return

    def companion(self, path: bytes) -> tuple[Skipped, bytes | None] | None:
        """What ``path`` is if it belongs to a database: why it is left out, and what changed instead, if anything."""
        database = companion_of(path)
        if database is None or not self._owns(database):
            return None
        self.note(database)
        return Skipped(path, part_of(database)), changed_with(path)

    def fold(self, directory: bytes, found: dict[bytes, Entry]) -> list[Skipped]:
        """In ``found``, what ``directory`` holds by name, a database and its companions are one; what is left out."""
        skipped = []
        for name, database in fold(found, lambda name: self._owns(join(directory, name))).items():
            self.note(join(directory, database))
            skipped.append(Skipped(join(directory, name), part_of(database)))
        return skipped

    def entry(self, path: bytes, entry: Entry) -> Entry:
        """What stands for ``path``, which is ``entry`` by itself: its logs count too. Raises ``OSError``."""
        if path not in self._known or _identity(entry) in self._unreadable:
            return entry
        logs = logs_of(self._fs, self._home.directory(parent(path)), name_of(path))
        return with_logs(entry, filter(None, map(Entry.of, logs.values())))

    def _owns(self, path: bytes) -> bool:
        if self._unreadable and self.is_unreadable(path):
            return False
        try:
            return owns_companions(self._fs, self._home.directory(parent(path)), name_of(path))
        except OSError:
            return False


def _identity(entry: Entry) -> tuple[object, ...]:
    """The same for the same content of the same file: see ``Entry.same_as``."""
    return entry[:6]
