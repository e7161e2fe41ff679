"""A directory that was moved is recognised where it arrives, when the two events of its move could not be joined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from sidecar.backup.index import Index
from sidecar.entry import Entry, Kind, join
from sidecar.home.scan import Scanner

_TRAVEL_S = 5.0
"""It is recognised for so long after it was moved away."""
_SAMPLE = 4


class Arrivals:
    """Told by what is in it: the same files, inode by inode. Time comes in as seconds on any one clock."""

    def __init__(self, index: Index, scanner: Scanner) -> None:
        self._index, self._scanner = index, scanner
        self._departed: dict[bytes, float] = {}

    def departed(self, paths: Iterable[bytes], now_s: float) -> None:
        """The directories ``paths`` were moved away; those that left long before ``now_s`` are forgotten."""
        self._departed = {path: at_s for path, at_s in self._departed.items() if at_s > now_s - _TRAVEL_S}
        self._departed.update(dict.fromkeys(paths, now_s))

    def origin(self, directory: bytes) -> bytes | None:
        """Where ``directory``, which the mirror does not know, was moved from. It is told once, and else None."""
        if not self._departed or self._index.get(directory) is not None:
            return None
        for old in self._departed:
            sample = list(islice(self._files_below(old), _SAMPLE))
            if sample and all(self._is_at(directory + path[len(old) :], entry) for path, entry in sample):
                del self._departed[old]
                return old
        return None

    def _files_below(self, directory: bytes) -> Iterator[tuple[bytes, Entry]]:
        waiting = [directory]
        while waiting:
            above = waiting.pop()
            for name in self._index.names(above):
                path = join(above, name)
                entry = self._index.get(path)
                if entry is not None and entry.kind is not Kind.DIRECTORY:
                    yield path, entry
                else:
                    waiting.append(path)

    def _is_at(self, path: bytes, known: Entry) -> bool:
        try:
            seen = Entry.of(self._scanner.status(path))
        except OSError:
            return False
        return seen is not None and seen.ino == known.ino
