"""The append-only record of what is safe on Persist.

The file is a header (magic, format number) and records, each a length, a CRC-32 and a payload::

    header   4s  "JHSJ"   H  format
    record   I   payload length   I  crc32(payload)   payload
    payload  B   tag, then  SAFE, REMOVING: packed entry + path   REMOVED: path   SESSION: id
                            MOVING, MOVED: I length of the old path + old path + new path

A SAFE record is written only after the content is durable in the mirror, a REMOVING record before the content leaves
it for the versions, and REMOVED after; MOVING before a directory gets another name in the mirror, and MOVED after:
whatever a kill leaves half done is finished at the next start. A record cut off at the end is what a kill leaves, and
is dropped. Damage before the end, and a later format, make the journal worthless: it is then rebuilt from the mirror,
which is the truth about what is saved. No more than a few records are ever in memory.
"""

from __future__ import annotations

import enum
import errno
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain

from sidecar.backup.frames import framed, payloads
from sidecar.backup.index import Index
from sidecar.entry import PACKED_BYTES, Entry, Kind, name_of, parent
from sidecar.fsops import CREATE_FLAGS, FileSystem, sync_directory, write_all

FORMAT = 1
NAME = b"journal"
_MAGIC = b"JHSJ"
_HEADER = struct.Struct("<4sH")
_LENGTH = struct.Struct("<I")
_COMPACT_MIN_RECORDS = 10_000
_READ_BYTES = 1 << 18
_WRITE_BYTES = 1 << 20
_MOST_WAITING = 1 << 14
_NO_FILE = {errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO}
"""What opening says where there is nothing, or a link, a directory, a socket."""


class _Tag(enum.IntEnum):
    SAFE = 1
    REMOVING = 2
    REMOVED = 3
    SESSION = 4
    MOVING = 5
    MOVED = 6


_TAGS = frozenset(map(int, _Tag))
_KINDS = frozenset(map(int, Kind))
_SAFE = int(_Tag.SAFE)
_PATH_AT = 1 + PACKED_BYTES


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
    unfinished_moves: dict[bytes, bytes] = field(default_factory=dict)
    """Directories that were about to be renamed, by their old path: ``index`` has that, the mirror that or the new."""


def _record(tag: _Tag, body: bytes) -> bytes:
    return framed(bytes((tag,)) + body)


def safe_record(path: bytes, entry: Entry) -> bytes:
    """``path`` is safe as ``entry``, and this session's home holds it."""
    return _record(_Tag.SAFE, entry.pack() + path)


def removing_record(path: bytes, entry: Entry) -> bytes:
    """``path``, last safe as ``entry``, is about to leave the mirror."""
    return _record(_Tag.REMOVING, entry.pack() + path)


def removed_record(path: bytes) -> bytes:
    """``path`` has left the mirror."""
    return _record(_Tag.REMOVED, path)


def session_record(session: bytes) -> bytes:
    """From here on the records are of the home ``session``; what came before is known, but not held."""
    return _record(_Tag.SESSION, session)


def moving_record(old: bytes, new: bytes) -> bytes:
    """The directory ``old`` is about to be renamed to ``new`` in the mirror, where nothing is."""
    return _record(_Tag.MOVING, _LENGTH.pack(len(old)) + old + new)


def moved_record(old: bytes, new: bytes) -> bytes:
    """What was the directory ``old``, with everything below it, is ``new``; with the same path twice, it stayed."""
    return _record(_Tag.MOVED, _LENGTH.pack(len(old)) + old + new)


def replay(blocks: Iterable[bytes]) -> Replayed:
    """The state that the journal, read as ``blocks``, describes. Raises ``JournalUnreadable``."""
    rest = iter(blocks)
    head = b""
    while len(head) < _HEADER.size and (block := next(rest, b"")):
        head += block
    if len(head) < _HEADER.size:
        raise JournalUnreadable("the header is cut off")
    magic, version = _HEADER.unpack_from(head)
    if magic != _MAGIC or version != FORMAT:
        raise JournalUnreadable(f"magic {magic!r}, format {version}; this version reads format {FORMAT}")
    reading, records, end = _Reading(), 0, 0
    try:
        for some, end in payloads(chain([head[_HEADER.size :]], rest), _TAGS):  # noqa: B007  the last is used below
            reading.take(some)
            records += len(some)
        reading.settle()
    except (ValueError, struct.error) as error:
        raise JournalUnreadable(f"after record {records}: {error}") from error
    reading.state.records, reading.state.end = records, _HEADER.size + end
    return reading.state


class _Reading:
    """A journal on its way into memory, some records at a time.

    What is safe waits to be put into the index by the directory, which is faster. Raises ``ValueError`` and
    ``struct.error`` for what is no record.
    """

    def __init__(self) -> None:
        self.state = Replayed(Index(), b"", 0, 0)
        self._waiting: dict[bytes, dict[bytes, bytes]] = {}
        self._taken = 0

    def take(self, payloads: list[bytes]) -> None:
        """The state is what it was, changed by ``payloads``."""
        waiting = self._waiting
        for payload in payloads:
            if payload[0] != _SAFE:
                self._take_other(payload)
                continue
            path = payload[_PATH_AT:]
            directory, _, name = path.rpartition(b"/")
            if not name or payload[1] not in _KINDS:
                raise ValueError("no entry, or none of a known kind")
            if directory in waiting:
                waiting[directory][name] = payload[1:_PATH_AT]
            else:
                waiting[directory] = {name: payload[1:_PATH_AT]}
            if self.state.unfinished:
                self.state.unfinished.pop(path, None)
        self._taken += len(payloads)
        if self._taken >= _MOST_WAITING:
            self.settle()

    def _take_other(self, payload: bytes) -> None:
        tag = payload[0]
        if tag == _Tag.REMOVING:
            self._remove(payload[_PATH_AT:])
            self.state.unfinished[payload[_PATH_AT:]] = Entry.unpack(payload[1:_PATH_AT])
        elif tag == _Tag.REMOVED:
            self._remove(payload[1:])
        elif tag == _Tag.SESSION:
            self._session(payload[1:])
        else:
            self._move(_Tag(tag), payload[1:])

    def settle(self) -> None:
        """The index has what waited."""
        for directory, names in self._waiting.items():
            self.state.index.put_all(directory, names, held=True)
        self._waiting.clear()
        self._taken = 0

    def _remove(self, path: bytes) -> None:
        if not path:
            raise ValueError("no path")
        self._waiting.get(parent(path), {}).pop(name_of(path), None)
        self.state.index.remove(path)
        self.state.unfinished.pop(path, None)

    def _session(self, session: bytes) -> None:
        if session != self.state.session:
            self.settle()
            self.state.session = session
            self.state.index.release_all()

    def _move(self, tag: _Tag, body: bytes) -> None:
        (length,) = _LENGTH.unpack_from(body)
        old, new = body[_LENGTH.size : _LENGTH.size + length], body[_LENGTH.size + length :]
        if not old or not new:
            raise ValueError("a path is cut off")
        if tag is _Tag.MOVING:
            self.state.unfinished_moves[old] = new
        else:
            self.settle()
            self.state.index.move(old, new)
            self.state.unfinished_moves.pop(old, None)
            # What a removal had left in the directory has moved with it.
            unfinished = self.state.unfinished
            for path in [each for each in unfinished if each == old or each.startswith(old + b"/")]:
                unfinished[new + path[len(old) :]] = unfinished.pop(path)


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
        self._fd = _open(self._fs, self._at, os.O_RDWR)
        state = replay(_blocks(self._fs, self._fd))
        self._fs.truncate(self._fd, state.end)
        self._end, self._records = state.end, state.records
        return state

    def rewrite(self, index: Index, session: bytes) -> None:
        """The journal says exactly what ``index`` and ``session`` say, in as few records as that takes."""
        temporary = NAME + b".new"
        with suppress(FileNotFoundError):
            self._fs.unlink(temporary, at=self._at)
        fd = self._fs.open(temporary, CREATE_FLAGS, at=self._at)
        try:
            end = 0
            for block in _in_blocks(_compact(index, session)):
                write_all(self._fs, fd, block)
                end += len(block)
            self._fs.fsync(fd)
            self._put_in_place(temporary, fd)
        except OSError:
            self._fs.close(fd)
            raise
        # Before anything else can fail: what is appended to the old file from here on, nobody would ever read.
        old, self._fd = self._fd, fd
        self._end, self._records = end, len(index) + 1
        if old >= 0:
            self._fs.close(old)
        sync_directory(self._fs, self._at)

    def _put_in_place(self, temporary: bytes, fd: int) -> None:
        """The file ``temporary``, open as ``fd``, is the journal. Raises ``OSError``; then the one before still is."""
        try:
            self._fs.rename(temporary, NAME, source_at=self._at, target_at=self._at)
        except OSError:
            # NFS repeats a call whose answer was lost, and then says that there is nothing to rename.
            ours = self._fs.fstat(fd)
            with suppress(FileNotFoundError):
                there = self._fs.lstat(NAME, at=self._at)
                if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                    return
            raise

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
    fd = _open(fs, at, os.O_RDONLY)
    try:
        return replay(_blocks(fs, fd))
    finally:
        fs.close(fd)


def _open(fs: FileSystem, at: int, access: int) -> int:
    try:
        # O_NONBLOCK: a FIFO in its place must not keep us waiting for whoever may write to it.
        fd = fs.open(NAME, access | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, at=at)
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        raise JournalUnreadable("there is none") from error
    try:
        if not stat.S_ISREG(fs.fstat(fd).st_mode):
            raise JournalUnreadable("what stands there is no file")
    except (OSError, JournalUnreadable):
        fs.close(fd)
        raise
    return fd


def _blocks(fs: FileSystem, fd: int) -> Iterator[bytes]:
    while block := fs.read(fd, _READ_BYTES):
        yield block


def _compact(index: Index, session: bytes) -> Iterator[bytes]:
    """A whole journal, record by record: what is only known before the session, what it held after."""
    yield _HEADER.pack(_MAGIC, FORMAT)
    for path, packed in index.packed_items(held=False):
        yield _record(_Tag.SAFE, packed + path)
    yield session_record(session)
    for path, packed in index.packed_items(held=True):
        yield _record(_Tag.SAFE, packed + path)


def _in_blocks(records: Iterable[bytes]) -> Iterator[bytes]:
    """All of ``records`` in blocks that are large enough to be written at once."""
    block = bytearray()
    for record in records:
        block += record
        if len(block) >= _WRITE_BYTES:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)
