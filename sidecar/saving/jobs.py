"""What is owed: everything that is not safe and should be, in the order in which it is saved."""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterable
from dataclasses import replace
from typing import NamedTuple

from sidecar.backup.moves import Move
from sidecar.entry import Entry
from sidecar.select import class_of

APART_BYTES = 16 << 20
"""Larger files are copied on a thread of their own: hundreds of small ones are safe before one of these is.

Databases too, for SQLite takes its time.
"""

_ENOUGH_FILES = 64
_ENOUGH_BYTES = 4 << 20
"""So much of one class is a batch of its own."""


class Wanted(NamedTuple):
    """One file or link to copy."""

    entry: Entry
    may_be_core: bool = False
    """See ``copy.Source``."""
    mapped: bool = False
    """It may be written through a mapping: see ``copy.Source``."""
    is_database: bool = False
    """A SQLite database that has, or had, a log beside it."""
    may_be_there: bool = False
    """The mirror may have this very content, from before the journal was lost or the home was new."""


_Job = tuple[bool, int, int, bytes]
"""Bulk, class, bytes, path: what is fresh before what comes in a mass, then by what matters, then the small."""


class Jobs:
    """Pure. A path stays owed until ``done``, whether it waits or is being copied."""

    def __init__(self) -> None:
        self._heaps: tuple[list[_Job], list[_Job]] = ([], [])
        self._places: dict[bytes, _Job] = {}
        """Of each waiting file the job that counts: others of it, from before it changed, are passed over."""
        self.files: dict[bytes, Wanted] = {}
        self.directories: dict[bytes, Entry] = {}
        self.gone: dict[bytes, None] = {}
        self.moves: list[Move] = []
        """Directories that were renamed, in the order in which that happened."""

    def add(self, path: bytes, wanted: Wanted, *, bulk: bool) -> None:
        """``path`` is owed as ``wanted``. What came in a mass and has changed since is fresh."""
        size = wanted.entry.size
        waiting = self._places.get(path)
        job = (bulk and (waiting is None or waiting[0]), class_of(path, size), size, path)
        apart = _is_apart(wanted)
        if waiting != job or _is_apart(self.files[path]) != apart:
            self._places[path] = job
            heapq.heappush(self._heaps[apart], job)
        self.files[path] = wanted

    def drop(self, path: bytes) -> None:
        """Nothing of ``path`` is to be copied any more."""
        self.directories.pop(path, None)
        if path in self.files:
            self._take(path)

    def add_move(self, move: Move) -> None:
        """A directory was renamed. One that is moved on before it was looked at was moved once, or not at all."""
        earlier = next((each for each in self.moves if each.new == move.old), None)
        if earlier is not None:
            self.moves.remove(earlier)
            move = replace(move, old=earlier.old)
        if move.old != move.new:
            self.moves.append(move)

    def put_back(self, files: Iterable[tuple[bytes, Wanted]], *, bulk: bool = False) -> None:
        """What was taken and not saved is owed again, unless it changed meanwhile: then it is owed as it is now."""
        for path, wanted in files:
            if path not in self.files:
                self.add(path, wanted, bulk=bulk)

    def take_batch(self, most: int, most_bytes: int) -> list[tuple[bytes, Wanted]]:
        """The next small files. What is fresh does not wait for a mass, nor what matters much for what matters less.

        From then on they are owed by who takes them; a change meanwhile makes them owed here again.
        """
        heap = self._heaps[False]
        batch: list[tuple[bytes, Wanted]] = []
        size = 0
        first = heap[0] if heap else (False, 0)
        while heap and len(batch) < most and (not batch or size + heap[0][2] <= most_bytes):
            if heap[0][0] != first[0]:
                break
            if heap[0][1] != first[1] and (len(batch) >= _ENOUGH_FILES or size >= _ENOUGH_BYTES):
                break
            job = heapq.heappop(heap)
            if self._counts(job, apart=False):
                batch.append((job[-1], self._take(job[-1])))
                size += job[2]
        return batch

    def _counts(self, job: _Job, *, apart: bool) -> bool:
        return self._places.get(job[-1]) == job and _is_apart(self.files[job[-1]]) == apart

    def _take(self, path: bytes) -> Wanted:
        del self._places[path]
        return self.files.pop(path)

    def waiting_in_mass(self) -> int:
        """How many small files wait, if all of them came in a mass; else none."""
        heap = self._heaps[False]
        return len(heap) if heap and heap[0][0] else 0

    def take_large(self, busy: Container[bytes]) -> tuple[bytes, Wanted] | None:
        """The next large file that is not ``busy``.

        From then on it is owed by who takes it; a change meanwhile makes it owed here again.
        """
        heap = self._heaps[True]
        heap[:] = [job for job in heap if self._counts(job, apart=True)]
        waiting = [job for job in heap if job[-1] not in busy]
        if not waiting:
            return None
        job = min(waiting)
        heap.remove(job)
        heapq.heapify(heap)
        return job[-1], self._take(job[-1])

    def ready(self) -> bool:
        """Whether anything but a large file or a deletion can be done now."""
        return bool(self._heaps[False] or self.directories or self.moves)

    def large_ready(self, busy: Container[bytes]) -> bool:
        """Whether ``take_large`` has something."""
        return any(job[-1] not in busy and self._counts(job, apart=True) for job in self._heaps[True])

    @property
    def total_bytes(self) -> int:
        """The size of the files that are owed."""
        return sum(wanted.entry.size for wanted in self.files.values())

    def paths(self) -> list[bytes]:
        """Every owed path, the most important first."""
        files = [path for *_, path in sorted(self._places.values())]
        moved = [move.new for move in self.moves]
        return list(dict.fromkeys([*files, *self.directories, *moved, *self.gone]))

    def __len__(self) -> int:
        return len(self.files) + len(self.directories) + len(self.gone) + len(self.moves)


def _is_apart(wanted: Wanted) -> bool:
    return wanted.entry.size > APART_BYTES or wanted.is_database
