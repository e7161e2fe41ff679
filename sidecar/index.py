"""What the mirror holds, in memory: for every path its entry, and whether this home's session has held it.

Grouped by directory, entries packed: a hundred sidecars share a node, and names and objects are what costs there.
"""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.entry import Entry, Kind, join, name_of, parent

_HELD = b"\x01"
_KNOWN = b"\x00"


class Index:
    """Path → entry. *Held* paths were seen in this session's home: only their absence can mean a deletion."""

    def __init__(self) -> None:
        self._directories: dict[bytes, dict[bytes, bytes]] = {}
        self.files = 0
        """Files and links the mirror holds."""
        self.file_bytes = 0
        self.held_files = 0

    def get(self, path: bytes) -> Entry | None:
        """The entry of ``path``, or None where the mirror does not hold it."""
        packed = self._directories.get(parent(path), {}).get(name_of(path))
        return None if packed is None else Entry.unpack(packed[1:])

    def is_held(self, path: bytes) -> bool:
        """Whether this session's home has had ``path``."""
        packed = self._directories.get(parent(path), {}).get(name_of(path))
        return packed is not None and packed.startswith(_HELD)

    def put(self, path: bytes, entry: Entry, *, held: bool) -> None:
        """``path`` is in the mirror as ``entry``."""
        self.remove(path)
        self._directories.setdefault(parent(path), {})[name_of(path)] = (_HELD if held else _KNOWN) + entry.pack()
        self._count(entry, held, 1)

    def remove(self, path: bytes) -> None:
        """``path`` is not in the mirror (any more)."""
        directory = parent(path)
        names = self._directories.get(directory)
        packed = names.pop(name_of(path), None) if names else None
        if packed is None:
            return
        if not names:
            del self._directories[directory]
        self._count(Entry.unpack(packed[1:]), packed.startswith(_HELD), -1)

    def _count(self, entry: Entry, held: bool, sign: int) -> None:
        if entry.kind is Kind.DIRECTORY:
            return
        self.files += sign
        self.file_bytes += sign * entry.size
        self.held_files += sign * held

    def replace(self, other: Index) -> None:
        """This index says what ``other`` says."""
        self._directories = other._directories
        self.files, self.file_bytes, self.held_files = other.files, other.file_bytes, other.held_files

    def release_all(self) -> None:
        """A new session: nothing has been held yet."""
        for names in self._directories.values():
            for name, packed in names.items():
                names[name] = _KNOWN + packed[1:]
        self.held_files = 0

    def names(self, directory: bytes) -> list[bytes]:
        """The names the mirror holds directly in ``directory``."""
        return list(self._directories.get(directory, ()))

    def below(self, path: bytes) -> Iterator[bytes]:
        """Every path below the directory ``path``, children before their directory, ``path`` itself left out."""
        # No recursion: a home can be deeper than Python's stack.
        found, waiting = [], [path]
        while waiting:
            directory = waiting.pop()
            children = [join(directory, name) for name in self.names(directory)]
            found += children
            waiting += children
        yield from reversed(found)

    def items(self) -> Iterator[tuple[bytes, Entry, bool]]:
        """Every path with its entry and whether it is held, in no order."""
        for directory, names in self._directories.items():
            for name, packed in names.items():
                yield join(directory, name), Entry.unpack(packed[1:]), packed.startswith(_HELD)

    def __len__(self) -> int:
        return sum(len(names) for names in self._directories.values())
