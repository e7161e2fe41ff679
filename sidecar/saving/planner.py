"""What stands in the home now becomes what is owed: looked at, selected, and queued in ``Jobs``."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable

from sidecar.backup.directories import most_open
from sidecar.backup.index import Index
from sidecar.entry import Entry, Kind, ancestors, parent
from sidecar.fsops import Tree
from sidecar.home.finder import GONE, Finder
from sidecar.home.scan import Scanner
from sidecar.outcome import Skipped
from sidecar.saving.books import Books
from sidecar.saving.jobs import APART_BYTES, Jobs, Wanted
from sidecar.select import may_be_core
from sidecar.sqlite.files import COMPANION_SUFFIXES


class Planner:
    """Fills ``jobs``. For one thread.

    ``is_under_way`` says whether a path is being copied as that entry, ``holds_back`` whether a large file has to wait.
    """

    def __init__(
        self,
        *,
        home: Tree,
        scanner: Scanner,
        finder: Finder,
        index: Index,
        jobs: Jobs,
        books: Books,
        is_under_way: Callable[[bytes, Entry], bool],
        holds_back: Callable[[bytes], bool],
    ) -> None:
        self._home, self._scanner, self._finder, self._index = home, scanner, finder, index
        self._jobs, self._books = jobs, books
        self._is_under_way, self._holds_back = is_under_way, holds_back
        self._most_open = most_open()

    def plan(self, paths: Iterable[bytes]) -> None:
        """What stands at ``paths`` now is queued, unless it is safe already, left out, or not ours to save."""
        safe: set[bytes] = set()
        # In the order of their directories: what a directory costs, it costs once.
        for path in sorted(set(map(self._instead, paths))):
            self._home.keep_below(self._most_open)
            if path and not self._finder.is_left_out(path) and (entry := self.look(path)) is not None:
                self._queue(path, entry, bulk=False, safe=safe)
        self._home.forget()

    def plan_backlog(self, found: Iterable[tuple[bytes, Entry | None]]) -> None:
        """As ``plan``, after everything that is fresh; what a walk has just seen is not looked at again."""
        safe: set[bytes] = set()
        for path, seen in found:
            self._home.keep_below(self._most_open)
            if seen is not None:
                self._queue(path, seen, bulk=True, safe=safe)
            elif (place := self._instead(path)) and not self._finder.is_left_out(place):
                entry = self.look(place)
                if entry is not None:
                    self._queue(place, entry, bulk=True, safe=safe)
        self._home.forget()

    def _instead(self, path: bytes) -> bytes:
        """What has to be looked at when ``path`` changed: for a database's log its database, for a lost log nothing."""
        part = self._finder.databases.companion(path) if path.endswith(COMPANION_SUFFIXES) else None
        if part is None:
            return path
        self._finder.skips.add(part[0])
        return part[1] or b""

    def _queue(self, path: bytes, entry: Entry, *, bulk: bool, safe: set[bytes]) -> None:
        """``path`` is owed, unless the mirror has it. ``safe`` are directories that it has, for sure."""
        known = self._index.get(path)
        if known is not None and known.same_as(entry) and self._index.is_held(path):
            self._books.settle(path)
            return
        if self._is_under_way(path, entry):
            return
        if parent(path) not in safe:
            self._plan_ancestors(path)
            safe.add(parent(path))
        if entry.kind is Kind.DIRECTORY:
            self._jobs.drop(path)
            self._jobs.directories[path] = entry
        elif not (entry.size > APART_BYTES and self._holds_back(path)):
            has_its_size = known is not None and entry.kind is Kind.FILE and known.size == entry.size
            wanted = Wanted(
                entry,
                may_be_core=may_be_core(path, entry.size) and not self._scanner.is_brought_back(path),
                mapped=self._finder.may_be_mapped(path),
                is_database=path in self._finder.databases,
                may_be_there=has_its_size and not self._index.is_held(path),
            )
            self._jobs.add(path, wanted, bulk=bulk)

    def look(self, path: bytes) -> Entry | None:
        """What stands at ``path``, if it is to be saved; what is gone is queued as gone."""
        try:
            status = self._scanner.status(path)
            entry = Entry.of(status)
            if entry is not None:
                entry = self._finder.databases.entry(path, entry)
        except OSError as error:
            if error.errno not in GONE:
                self._books.fail(path, f"cannot be read: {error.strerror}")
                return None
            self._jobs.drop(path)
            if self._has_held(path):
                self._jobs.gone[path] = None
            else:
                self._books.settle(path)
            return None
        reason = self._scanner.skip(path, status)
        if entry is None or reason is not None:
            self._jobs.drop(path)
            self._books.settle(path)
            self._finder.skips.add(Skipped(path, reason or "not a file, a link or a directory"))
            return None
        self._finder.skips.discard(path)
        return entry

    def _has_held(self, path: bytes) -> bool:
        """Whether this home has had ``path``, or anything below it."""
        return self._index.is_held(path) or any(map(self._index.is_held, self._index.below(path)))

    def is_still(self, path: bytes, entry: Entry) -> bool:
        """Whether ``path`` in the home is still the file or link that was seen as ``entry``."""
        try:
            now = self._scanner.status(path)
        except OSError:
            return False
        return (now.st_ino, now.st_ctime_ns, now.st_size) == (entry.ino, entry.ctime_ns, entry.size)

    def kind(self, path: bytes) -> Kind | None:
        """What stands at ``path`` in the home; None where nothing that is saved does, or nobody can tell."""
        try:
            now = Entry.of(self._scanner.status(path))
        except OSError as error:
            if error.errno not in GONE:
                self._books.later(path)
            return None
        return None if now is None else now.kind

    def may_be_directory(self, path: bytes) -> bool:
        """Whether a directory stands at ``path`` in the home, or nobody can tell what does."""
        try:
            return stat.S_ISDIR(self._scanner.status(path).st_mode)
        except OSError as error:
            return error.errno not in GONE

    def is_gone(self, path: bytes) -> bool:
        """Whether nothing stands at ``path`` in the home; where nobody can tell, not yet."""
        try:
            self._scanner.status(path)
        except OSError as error:
            if error.errno in GONE:
                return True
            self._books.later(path)
        return False

    def unsaved_above(self, path: bytes) -> list[bytes]:
        """The directories above ``path`` that are not safe, outermost first: they are queued."""
        self._plan_ancestors(path)
        return [above for above in ancestors(path) if above in self._jobs.directories]

    def _plan_ancestors(self, path: bytes) -> None:
        """The directories above ``path`` that are not safe are queued; above one that is safe or queued, all are."""
        while (path := parent(path)) and path not in self._jobs.directories:
            known = self._index.get(path)
            if known is not None and known.kind is Kind.DIRECTORY and self._index.is_held(path):
                return
            try:
                entry = Entry.of(self._scanner.status(path))
            except OSError:
                return  # gone again, and what was in it too
            if entry is not None and entry.kind is Kind.DIRECTORY:
                self._jobs.directories[path] = entry
