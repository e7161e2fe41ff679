"""The append-only record of what is safe on Persist.

The file is a header (magic, format number) and records, each a length, a CRC-32 and a payload::

    header   4s  "JHSJ"   H  format
    record   I   payload length   I  crc32(payload)   payload
    payload  B   tag, then  SAFE: packed entry + path   REMOVING: packed entry + path   REMOVED: path   SESSION: id

A SAFE record is written only after the content is durable in the mirror, a REMOVING record before the content leaves
it for the versions, and REMOVED after: whatever a kill leaves half done is finished at the next start. A record cut
off at the end is what a kill leaves, and is dropped. Damage before the end, and a later format, make the journal
worthless: it is then rebuilt from the mirror, which is the truth about what is saved.
"""

from __future__ import annotations

import enum
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from sidecar.entry import PACKED_BYTES, Entry
from sidecar.fsops import CREATE_FLAGS, FileSystem, sync_directory, write_all
from sidecar.index import Index

FORMAT = 1
NAME = b"journal"
_MAGIC = b"JHSJ"
_HEADER = struct.Struct("<4sH")
_FRAME = struct.Struct("<II")
# A path beyond this is no path: the longest that inotify and the walk can meet are far shorter.
_MAX_PAYLOAD_BYTES = 1 << 20
_COMPACT_MIN_RECORDS = 10_000


class _Tag(enum.IntEnum):
    SAFE = 1
    REMOVING = 2
    REMOVED = 3
    SESSION = 4


_TAGS = frozenset(_Tag)


class JournalUnreadable(Exception):
    """The journal is missing, damaged before its end, or of a later format; the mirror has to be read instead."""


@dataclass
class Replayed:
    """What a journal says."""

    index: Index
    session: bytes
    """The session that wrote last; empty where none did."""
    records: int
    end: int
    """Where the last whole record ends."""
    unfinished: dict[bytes, Entry] = field(default_factory=dict)
    """Paths whose removal had begun: they may still stand in the mirror."""


def _frame(tag: _Tag, body: bytes) -> bytes:
    payload = bytes([tag]) + body
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def safe_record(path: bytes, entry: Entry) -> bytes:
    """``path`` is safe as ``entry``, and this session's home holds it."""
    return _frame(_Tag.SAFE, entry.pack() + path)


def removing_record(path: bytes, entry: Entry) -> bytes:
    """``path``, last safe as ``entry``, is about to leave the mirror."""
    return _frame(_Tag.REMOVING, entry.pack() + path)


def removed_record(path: bytes) -> bytes:
    """``path`` has left the mirror."""
    return _frame(_Tag.REMOVED, path)


def session_record(session: bytes) -> bytes:
    """From here on the records are of the home ``session``; what came before is known, but not held."""
    return _frame(_Tag.SESSION, session)


def replay(data: bytes) -> Replayed:
    """The state that the journal ``data`` describes. Raises ``JournalUnreadable``."""
    if len(data) < _HEADER.size:
        raise JournalUnreadable("the header is cut off")
    magic, version = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != FORMAT:
        raise JournalUnreadable(f"magic {magic!r}, format {version}; this version reads format {FORMAT}")
    state = Replayed(Index(), b"", 0, _HEADER.size)
    for tag, body, end in _records(data):
        if tag is _Tag.SAFE or tag is _Tag.REMOVING:
            entry, path = Entry.unpack(body[:PACKED_BYTES]), body[PACKED_BYTES:]
            if tag is _Tag.SAFE:
                state.index.put(path, entry, held=True)
                state.unfinished.pop(path, None)
            else:
                state.index.remove(path)
                state.unfinished[path] = entry
        elif tag is _Tag.REMOVED:
            state.index.remove(body)
            state.unfinished.pop(body, None)
        elif body != state.session:
            state.session = body
            state.index.release_all()
        state.records += 1
        state.end = end
    return state


def _records(data: bytes) -> Iterator[tuple[_Tag, bytes, int]]:
    offset = _HEADER.size
    while offset < len(data):
        start = offset + _FRAME.size
        if start > len(data):
            return
        length, crc = _FRAME.unpack_from(data, offset)
        end = start + length
        payload = data[start:end]
        if length <= _MAX_PAYLOAD_BYTES and len(payload) == length and zlib.crc32(payload) == crc and payload:
            try:
                tag = _Tag(payload[0])
            except ValueError as error:
                raise JournalUnreadable(f"unknown record at byte {offset}") from error
            yield tag, payload[1:], end
            offset = end
            continue
        if not any(data[start:]) or (
            length <= _MAX_PAYLOAD_BYTES and end >= len(data) and not _any_record(data[start:])
        ):
            return  # a tail of zeros by a power cut, or cut off by a kill
        raise JournalUnreadable(f"damaged at byte {offset}")


def _any_record(tail: bytes) -> bool:
    """Whether a whole record stands anywhere in ``tail``: then the length before it was damaged, not cut off."""
    for offset in range(len(tail) - _FRAME.size):
        length, crc = _FRAME.unpack_from(tail, offset)
        start = offset + _FRAME.size
        payload = tail[start : start + length]
        if 1 < length == len(payload) and payload[0] in _TAGS and zlib.crc32(payload) == crc:
            return True
    return False


class Journal:
    """The journal as it lies in the state directory ``at``. Every append is durable when it returns."""

    def __init__(self, fs: FileSystem, at: int) -> None:
        self._fs = fs
        self._at = at
        self._fd = -1
        self._end = 0
        self._records = 0

    def open(self) -> Replayed:
        """What the journal says; it is ready for ``append``. Raises ``JournalUnreadable`` and ``OSError``."""
        try:
            self._fd = self._fs.open(NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, at=self._at)
        except FileNotFoundError as error:
            raise JournalUnreadable("there is none") from error
        state = replay(_read_whole(self._fs, self._fd))
        self._fs.truncate(self._fd, state.end)
        self._end, self._records = state.end, state.records
        return state

    def rewrite(self, index: Index, session: bytes) -> None:
        """The journal says exactly what ``index`` and ``session`` say, in as few records as that takes."""
        known: list[bytes] = []
        held: list[bytes] = []
        for path, entry, is_held in index.items():
            (held if is_held else known).append(safe_record(path, entry))
        records = [*known, session_record(session), *held]
        data = _HEADER.pack(_MAGIC, FORMAT) + b"".join(records)
        temporary = NAME + b".new"
        with suppress(FileNotFoundError):
            self._fs.unlink(temporary, at=self._at)
        fd = self._fs.open(temporary, CREATE_FLAGS, at=self._at)
        try:
            write_all(self._fs, fd, data)
            self._fs.fsync(fd)
            self._fs.rename(temporary, NAME, source_at=self._at, target_at=self._at)
        except OSError:
            self._fs.close(fd)
            raise
        # Before anything else can fail: what is appended to the old file from here on, nobody would ever read.
        old, self._fd = self._fd, fd
        self._end, self._records = len(data), len(records)
        if old >= 0:
            self._fs.close(old)
        sync_directory(self._fs, self._at)

    def append(self, records: Iterable[bytes]) -> None:
        """``records`` are durable. Raises ``OSError``; then none of them counts, and the next append starts clean."""
        batch = list(records)
        data = b"".join(batch)
        if not data:
            return
        self._fs.truncate(self._fd, self._end)
        os.lseek(self._fd, self._end, os.SEEK_SET)
        write_all(self._fs, self._fd, data)
        self._fs.fsync(self._fd)
        self._end += len(data)
        self._records += len(batch)

    def is_bloated(self, live: int) -> bool:
        """Whether most records are history that ``rewrite`` would drop; ``live`` is the number of paths."""
        return self._records > 2 * live + _COMPACT_MIN_RECORDS

    def close(self) -> None:
        if self._fd >= 0:
            self._fs.close(self._fd)
            self._fd = -1


def read(fs: FileSystem, at: int) -> Replayed:
    """What the journal in ``at`` says, read beside its writer. Raises ``JournalUnreadable`` and ``OSError``."""
    try:
        fd = fs.open(NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, at=at)
    except FileNotFoundError as error:
        raise JournalUnreadable("there is none") from error
    try:
        return replay(_read_whole(fs, fd))
    finally:
        fs.close(fd)


def _read_whole(fs: FileSystem, fd: int) -> bytes:
    blocks = []
    while block := fs.read(fd, 1 << 20):
        blocks.append(block)
    return b"".join(blocks)
