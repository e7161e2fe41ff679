"""The backup as it can be asked: what a path was, and what has to be put back for a path or a time.

Reads Persist without a lease, beside a running sidecar or without one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

from sidecar.backup import journal
from sidecar.backup.index import Index
from sidecar.backup.journal import JournalUnreadable
from sidecar.backup.mirror import read_mirror
from sidecar.backup.moves import Moves
from sidecar.backup.path_history import PathHistory, Stay, is_within
from sidecar.backup.persist import Layout, mirror_of, state_of
from sidecar.backup.versions import GONE, Version, versions_in, walk
from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.entry import Entry, Kind, join, legible, name_of, parent
from sidecar.errors import NothingToRestore, PersistMissing, UsageError
from sidecar.fsops import FileSystem
from sidecar.restore import Wanted

_TICK_NS = 1000
"""Stored times, and those that people give, are in whole microseconds; those in the journal are finer."""


@dataclass(frozen=True, slots=True)
class Past:
    """One content of a path: from when, until when (None for the current one), and how large it is."""

    from_ns: int
    until_ns: int | None
    size: int
    kind: Kind


class _Content(NamedTuple):
    """What lies on Persist at ``wanted.path``; that it was always there is for ``PathHistory`` to say."""

    wanted: Wanted
    from_ns: int
    until_ns: int | None


def _as(path: bytes, wanted: Wanted) -> Wanted:
    return wanted if wanted.path == path else replace(wanted, path=path)


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
        self._tiers = frozenset(os.fsencode(name) for name in settings.mounts)
        self._mirror = mirror_of(self.layout.server)
        self._versions = state_of(self.layout.server) + b"/versions"
        self.session = b""
        """Whose home the last records are of; empty where only the mirror can tell what there is."""
        with ExitStack() as on_failure:
            on_failure.callback(self.close)
            if not self.layout.check_format():
                raise PersistMissing(f"there is no backup on the Persist at {settings.persist}")
            self.index = self._read_index()
            # After the index: a move that the index does not know yet does no harm, one that only the index knows does.
            self._places = PathHistory(Moves(fs, self._state()).read())
            on_failure.pop_all()

    def _state(self) -> int:
        return self.layout.root.directory(state_of(self.layout.server))

    def _read_index(self) -> Index:
        try:
            state = self._state()
        except FileNotFoundError as error:
            raise PersistMissing(f"there is no backup of the server {legible(self.layout.server)}") from error
        try:
            replayed = journal.read(self._fs, state)
        except JournalUnreadable:
            return read_mirror(self._fs, self.layout)
        self.session = replayed.session
        return replayed.index

    def history(self, path: bytes) -> list[Past]:
        """Every content of ``path`` that is kept, the oldest first. Raises ``NothingToRestore`` where there is none.

        What came to ``path`` with a directory counts from then on, and what left with one until then. Raises
        ``OSError``, as ``wanted`` does.
        """
        past = []
        for place in self._places.of(path):
            current = self._current([(place, self.index.get(place))], None)
            for content in chain(current, self._earlier(place, None, versions_in)):
                kind, size = content.wanted.entry.kind, content.wanted.entry.size
                stays = self._places.stays(place, content.from_ns, content.until_ns)
                past += [Past(stay.from_ns, stay.until_ns, size, kind) for stay in stays if stay.path == path]
        if not past:
            raise NothingToRestore(f"the backup has never held a file {legible(path)}")
        return sorted(past, key=lambda each: (each.until_ns is None, each.from_ns, each.until_ns or 0))

    def wanted(self, path: bytes, at_ns: int | None) -> list[Wanted]:
        """What has to be put back for ``path``, and everything below it, to be what it was at ``at_ns``.

        Without a time it is what the mirror holds, and, for what has left the mirror, its last content. Raises
        ``NothingToRestore`` where the backup knows nothing of ``path``, or nothing at that time.
        """
        found = self._at(path, at_ns) if at_ns is not None else self._now(path) or self._last(path)
        # A backup never holds another tier; what somebody planted there must not be written through the mount.
        found = {each: item for each, item in found.items() if each.split(b"/", 1)[0] not in self._tiers}
        if not found and path:
            when = "" if at_ns is None else " at that time"
            raise NothingToRestore(
                f"the backup holds no {legible(path)}{when}", hint="sidecar versions shows what it has"
            )
        return list(found.values())

    def _now(self, path: bytes) -> dict[bytes, Wanted]:
        return {each: self._in_mirror(each, entry) for each, entry in self._known_in(path) if entry is not None}

    def _at(self, path: bytes, at_ns: int) -> dict[bytes, Wanted]:
        found: dict[bytes, _Content] = {}
        for content in self._contents(self._places.within(path, at_ns), at_ns):
            true_path = self._places.path_at(at_ns, content.wanted.path, content.until_ns)
            other = found.get(true_path)
            # Of contents that overlap, because clocks are set, the later counts. And a current one that begins with a
            # version has become that version since the index was read.
            if is_within(true_path, path) and (other is None or other.from_ns <= content.from_ns):
                found[true_path] = content
        return {each: replace(_as(each, content.wanted), exact=True) for each, content in found.items()}

    def _last(self, path: bytes) -> dict[bytes, Wanted]:
        """The last content of what is not in the mirror any more."""
        found: dict[bytes, tuple[Stay, Wanted]] = {}
        for content in self._contents(self._places.within(path, None), None):
            for stay in self._places.stays(content.wanted.path, content.from_ns, content.until_ns):
                other = found.get(stay.path)
                if is_within(stay.path, path) and (other is None or other[0].from_ns <= stay.from_ns):
                    found[stay.path] = stay, content.wanted
        return {each: _as(each, wanted) for each, (_, wanted) in found.items()}

    def _contents(self, places: Iterable[bytes], at_ns: int | None) -> Iterator[_Content]:
        """Every file and link that there was, at ``at_ns`` or ever, in ``places`` or below: the current ones first."""
        for place in places:
            yield from self._current(self._known_in(place), at_ns)
            yield from self._earlier(place, at_ns, walk)

    def _known_in(self, path: bytes) -> Iterator[tuple[bytes, Entry | None]]:
        if not path:
            return ((each, entry) for each, entry, _ in self.index.items())
        return ((each, self.index.get(each)) for each in chain(self.index.below(path), [path]))

    def _current(self, known: Iterable[tuple[bytes, Entry | None]], at_ns: int | None) -> Iterator[_Content]:
        for path, entry in known:
            # A directory's history is not kept: it comes back with what was in it.
            if entry is None or entry.kind is Kind.DIRECTORY:
                continue
            from_ns = entry.since_ns // _TICK_NS * _TICK_NS
            if at_ns is None or from_ns <= at_ns:
                yield _Content(self._in_mirror(path, entry), from_ns, None)

    def _earlier(
        self, place: bytes, at_ns: int | None, read: Callable[[FileSystem, int, bytes], Iterable[Version]]
    ) -> Iterator[_Content]:
        where = join(self._versions, place) if place else self._versions
        try:
            self.layout.root.directory(self._versions)  # stays open: there may be many places in it
            directory = self.layout.root.directory(where)
        except OSError as error:
            if error.errno in GONE:
                return
            raise
        for version in read(self._fs, directory, place):
            span = version.span
            if at_ns is None or span.covers(at_ns):
                entry = Entry(version.kind, version.mode, version.size, version.mtime_ns, 0, 0, span.from_ns)
                wanted = Wanted(version.path, entry, join(self._versions, version.path), version.name)
                yield _Content(wanted, span.from_ns, span.until_ns)
        if place:
            self.layout.root.forget(where)

    def _in_mirror(self, path: bytes, entry: Entry) -> Wanted:
        directory = parent(path)
        return Wanted(path, entry, join(self._mirror, directory) if directory else self._mirror, name_of(path))

    def close(self) -> None:
        self.layout.close()
