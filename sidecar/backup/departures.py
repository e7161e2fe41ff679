"""What leaves the mirror, one batch at a time: it is among the versions before anything takes its place.

A batch may touch any number of directories. It is gone through in parts, stage by stage, so that all of it has reached
one stage before any of it enters the next: the order of what is durable is the same for many directories as for one.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import NamedTuple

from sidecar.backup.durable import Durable
from sidecar.backup.keeper import Keeper
from sidecar.backup.place import Place
from sidecar.backup.versions import Span
from sidecar.copy import Staged
from sidecar.crew import Crew
from sidecar.entry import Entry, name_of, parent
from sidecar.fsops import FileSystem

_MOST_ARRIVED = 100
"""Directories of which it is remembered when they were moved; it matters while older changes may come in."""

_LISTED = 32
"""So many names of a directory come with one round trip, at least."""


class _Leaving(NamedTuple):
    """A content of the mirror that becomes a version, with its directories open: see ``Keeper``."""

    path: bytes
    above: int
    beside: int
    span: Span


class Departures:
    """Brings contents of the mirror to the versions, by ``keeper``. For one thread, which waits for the crew.

    All methods raise ``OSError``, and may close what was open of ``place``.
    """

    def __init__(self, fs: FileSystem, place: Place, durable: Durable, keeper: Keeper, crew: Crew) -> None:
        self._fs, self._place, self._durable, self._keeper, self._crew = fs, place, durable, keeper, crew
        self._arrived_at: dict[bytes, int] = {}
        """When the directories that were moved came to where they are, in nanoseconds since 1970."""

    def directory_arrived(self, path: bytes, at_ns: int) -> None:
        """The directory ``path`` has its name since ``at_ns``: what was in it before has ended after that."""
        self._arrived_at[path] = at_ns
        if len(self._arrived_at) > _MOST_ARRIVED:
            del self._arrived_at[next(iter(self._arrived_at))]

    def keep_replaced(
        self,
        staged: Sequence[Staged],
        known: Callable[[bytes], Entry | None],
        names: Callable[[bytes], Sequence[bytes]],
        changed: set[bytes],
    ) -> None:
        """What stands in the mirror where something staged is to stand is a version too, and may be replaced.

        ``known`` tells what the mirror holds, ``names`` which names in a directory. The directories that have to be
        synced are added to ``changed``.
        """
        spans: dict[bytes, Span] = {}
        by_path = {item.path: item for item in staged}
        # In the order of their directories: what is above those is opened once.
        for part in self._place.parts(sorted(by_path)):
            above = dict(zip(part, self._place.directories(part), strict=True))
            if not self._durable.at_once:
                for path in self._absent([path for path in part if known(path) is None], above, names):
                    del above[path]
            standing = self._crew.map(lambda each: self._status(*each), list(above.items()), apart=itemgetter(1))
            for path, status in zip(above, standing, strict=True):
                if status is None:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    # Everything the index knows in it was removed before; the rest is not ours.
                    self._place.layout.move_aside(self._place.in_mirror(path))
                    continue
                spans[path] = self._span(path, status, known(path), by_path[path].entry.since_ns)
        self._keeper.make_directories(spans, changed)
        for leaving in self._opened(spans):
            self._crew.map(self._keep_one, leaving, apart=attrgetter("beside"))

    def _absent(
        self, paths: Iterable[bytes], above: Mapping[bytes, int], names: Callable[[bytes], Sequence[bytes]]
    ) -> Iterator[bytes]:
        """Of ``paths``, in the directories open as ``above``, those that a listing shows not to be there.

        Where every call is a round trip, and a directory gets many new names, one listing is cheaper than many looks.
        """
        by_directory: dict[bytes, list[bytes]] = {}
        for path in paths:
            by_directory.setdefault(parent(path), []).append(path)
        many = [new for directory, new in by_directory.items() if len(names(directory)) + _LISTED < _LISTED * len(new)]
        for new, listed in zip(many, self._crew.map(self._fs.names, [above[new[0]] for new in many]), strict=True):
            there = set(listed)
            yield from (path for path in new if name_of(path) not in there)

    def _span(self, path: bytes, status: os.stat_result, known: Entry | None, ended_ns: int) -> Span:
        # What a kill left there before the journal could say so was the state only from its own time on.
        is_known = known is not None and known.mtime_ns == status.st_mtime_ns
        since_ns = known.since_ns if known is not None and is_known else status.st_mtime_ns
        return Span.between(since_ns, self._until_ns(path, ended_ns))

    def take_out(self, known: Mapping[bytes, Entry], now_ns: int, changed: set[bytes]) -> None:
        """What stands in the mirror at the paths is a version; empty directories are gone.

        The paths come children before their directory. The directories that have to be synced are added to ``changed``.
        """
        spans: dict[bytes, Span] = {}
        directories: list[bytes] = []
        for part in self._place.parts(known):
            for path in part:
                status = self._place.status(path)
                changed.add(self._place.in_mirror(parent(path)))
                if status is None:  # already out, by an attempt that failed, or died, before that was durable
                    changed.add(self._keeper.where(path))
                elif stat.S_ISDIR(status.st_mode):
                    directories.append(path)
                else:
                    spans[path] = Span.between(known[path].since_ns, self._until_ns(path, now_ns))
        self._keeper.make_directories(spans, changed)
        made = [any(self._crew.map(self._prepare_one, leaving)) for leaving in self._opened(spans)]
        if any(made):
            self._durable.sync(changed)  # no content must be only where a power cut can leave no way to
        for leaving in self._opened(spans):
            self._crew.map(self._move_one, leaving)
        if directories:
            self._remove_empty(directories)

    def _remove_empty(self, directories: Iterable[bytes]) -> None:
        root = self._place.layout.root
        root.forget()  # what is made anew under such a name must not be looked for in the one that is gone
        try:
            for part in self._place.parts(directories):
                for path in part:
                    try:
                        self._fs.rmdir(name_of(path), at=self._place.directory(parent(path)))
                    except OSError as error:
                        # Something that is not ours, or not restored yet, is in it: the directory stays for that.
                        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                            raise
        finally:
            root.forget()

    def _opened(self, spans: Mapping[bytes, Span]) -> Iterator[list[_Leaving]]:
        """The paths with their directories open, which they are until the next list."""
        for part in self._place.parts(spans):
            places = zip(part, self._place.directories(part), self._keeper.directories_of(part), strict=True)
            yield [_Leaving(path, above, beside, spans[path]) for path, above, beside in places]

    def _prepare_one(self, one: _Leaving) -> bool:
        return self._keeper.prepare(one.path, one.beside)

    def _keep_one(self, one: _Leaving) -> None:
        self._keeper.keep(one.path, one.above, one.beside, span=one.span, durably=not self._durable.at_once)

    def _move_one(self, one: _Leaving) -> None:
        self._keeper.move(one.path, one.above, one.beside, span=one.span, durably=not self._durable.at_once)

    def _until_ns(self, path: bytes, ended_ns: int) -> int:
        """When the content of ``path`` ended, after ``path`` itself began, with a directory that was moved here."""
        for directory, at_ns in self._arrived_at.items():
            if path.startswith(directory + b"/"):
                ended_ns = max(ended_ns, at_ns + 1000)
        return ended_ns

    def _status(self, path: bytes, at: int) -> os.stat_result | None:
        try:
            return self._fs.lstat(name_of(path), at=at)
        except FileNotFoundError:
            return None
