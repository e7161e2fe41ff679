"""What is known of one path: the values that tell whether it changed."""

from __future__ import annotations

import os
import stat
import struct
from enum import IntEnum
from typing import NamedTuple, Self


class Kind(IntEnum):
    """What is saved; anything else in a home is skipped with a reason."""

    FILE = 1
    LINK = 2
    DIRECTORY = 3


_PACKED = struct.Struct("<BIQqqQq")
_LATEST_NS = 2**63 - 1
_TYPE_BITS = stat.S_IFMT(0o177777)
_KINDS = {stat.S_IFREG: Kind.FILE, stat.S_IFLNK: Kind.LINK, stat.S_IFDIR: Kind.DIRECTORY}


class Entry(NamedTuple):
    """One path as it was when it was last seen or saved.

    ``ctime_ns`` and ``ino`` belong to the home of this session; both are 0 where only the mirror is known.
    """

    kind: Kind
    mode: int
    """Permission bits, 0o7777."""
    size: int
    """Bytes; 0 for a directory."""
    mtime_ns: int
    ctime_ns: int
    ino: int
    since_ns: int
    """From when on this content was the state of the home: what ``restore --at`` asks for."""

    @classmethod
    def of(cls, status: os.stat_result) -> Self | None:
        """The entry that ``status`` describes; None for a kind that is not saved (socket, FIFO, device)."""
        mode = status.st_mode
        kind = _KINDS.get(mode & _TYPE_BITS)
        if kind is None:
            return None
        mode &= 0o7777
        if kind is Kind.DIRECTORY:
            # A directory's size and times change with its children, which are saved for themselves.
            return cls(Kind.DIRECTORY, mode, 0, 0, 0, 0, 0)
        changed_ns = status.st_ctime_ns
        modified_ns = status.st_mtime_ns
        if not -_LATEST_NS <= modified_ns <= _LATEST_NS:
            # Anybody can give a file a time beyond the year 2262, where 64 bits of nanoseconds end.
            modified_ns = _LATEST_NS if modified_ns > 0 else -_LATEST_NS
        return cls(kind, mode, status.st_size, modified_ns, changed_ns, status.st_ino, changed_ns)

    def same_as(self, other: Entry) -> bool:
        """Whether ``other`` is the same content: everything but ``since_ns``, which is history, agrees."""
        return self[:6] == other[:6]

    def pack(self) -> bytes:
        """A fixed-width form for the journal and for memory."""
        return _PACKED.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The entry that ``pack`` wrote. Raises ``ValueError`` or ``struct.error`` on anything else."""
        kind, *rest = _PACKED.unpack(data)
        return cls(Kind(kind), *rest)


PACKED_BYTES = _PACKED.size


def parent(path: bytes) -> bytes:
    """The directory of ``path``; the home itself is ``b""``."""
    return path.rpartition(b"/")[0]


def name_of(path: bytes) -> bytes:
    """The last component of ``path``."""
    return path.rpartition(b"/")[2]


def join(directory: bytes, name: bytes) -> bytes:
    """``name`` in ``directory``, relative to the home."""
    return directory + b"/" + name if directory else name


def ancestors(path: bytes) -> list[bytes]:
    """The directories above ``path``, outermost first, without the home itself."""
    parts = path.split(b"/")[:-1]
    return [b"/".join(parts[: length + 1]) for length in range(len(parts))]


def shown(path: bytes) -> str:
    """``path`` for JSON: UTF-8, any other byte as ``\\xNN``."""
    return path.decode("utf-8", "backslashreplace")


def visible(text: str) -> str:
    """``text`` for a terminal or a log: control, bidirectional and other unprintable characters are escaped."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


def legible(path: bytes) -> str:
    """``path`` for people: one line, whatever somebody put into a file's name."""
    return visible(shown(path))
