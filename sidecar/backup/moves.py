"""The append-only record of the directories that were moved inside the home, by one rename in the mirror each.

The versions of what lies in such a directory stay where they are: only with this record can be said which path a
content had at a time. The file is text, one record a line: the CRC-32 of the rest, and the rest as JSON::

    0c5ab1e2 {"at_ns":1767225600000000000,"old_b64":"YQ==","new_b64":"Yg=="}

A record is found by its shape and its checksum and not by where a line begins, so that damage costs nothing but the
records it hit. A record that is cut off at the end is what a kill leaves: the next append cuts it off.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter

from sidecar.backup.retention import DAY_S
from sidecar.fsops import FileSystem, read_file, sync_directory, write_all, write_file

NAME = b"moves"

_RECORD = re.compile(rb"([0-9a-f]{8}) (\{[^{}\n]*\})\n?")
_LATEST_NS = 2**63 - 1
_TICK_NS = 1000
"""A version's span is in whole microseconds, and so is the time of a move."""
_THIN_BYTES = 1 << 20
"""Some eight thousand records: below that nothing is thinned."""
_MOST_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Move:
    """From ``at_ns`` on what was the directory ``old``, with all that is in it, is ``new``. Whole microseconds, UTC."""

    at_ns: int
    old: bytes
    new: bytes


def record(move: Move) -> bytes:
    """``move`` as it is written down."""
    fields = {"at_ns": move.at_ns, "old_b64": b64encode(move.old).decode(), "new_b64": b64encode(move.new).decode()}
    body = json.dumps(fields, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(body), body)


def parse(data: bytes) -> tuple[list[Move], int]:
    """The moves that the file content ``data`` tells of, sorted by time, and where the last whole record ends."""
    moves, end = [], 0
    for match in _RECORD.finditer(data):
        move = _move(match[2]) if int(match[1], 16) == zlib.crc32(match[2]) else None
        if move is not None:
            moves.append(move)
            end = match.end()
    return sorted(moves, key=attrgetter("at_ns")), end


def _move(body: bytes) -> Move | None:
    try:
        fields = json.loads(body)
        at_ns, old, new = fields["at_ns"], *(b64decode(fields[key], validate=True) for key in ("old_b64", "new_b64"))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    # Whoever can write to Persist can write a record too, and what is restored goes where the record says.
    is_sound = type(at_ns) is int and 0 <= at_ns <= _LATEST_NS and _is_path(old) and _is_path(new)
    return Move(at_ns, old, new) if is_sound else None


def _is_path(path: bytes) -> bool:
    return b"\0" not in path and not {b"", b".", b".."}.intersection(path.split(b"/"))


class Moves:
    """The record in the open state directory of a server. One writer; anybody may read beside it."""

    def __init__(self, fs: FileSystem, state_fd: int, *, reach_days: int = 365) -> None:
        """``reach_days`` is the age at which the retention rule gives up all but the last version of a file: nothing
        before it is asked for by time.
        """
        self._fs = fs
        self._reach_ns = reach_days * DAY_S * 1_000_000_000
        self._state_fd = state_fd
        self._inode = -1
        self._end = 0
        self._last_ns = 0
        self._limit = _THIN_BYTES

    def read(self) -> list[Move]:
        """Every move that is known, sorted by time; none where nothing was ever moved. Raises ``OSError``."""
        return parse(self._content())[0]

    def append(self, at_ns: int, old: bytes, new: bytes) -> int:
        """The move is durably written down; its time, which is ``at_ns`` in whole microseconds or, if need be, later.

        Moves are told apart by their times, so each is later than the one before. Whoever writes versions takes care
        that one made before the move ends at its time or earlier, and one made after it ends later than that.

        Raises ``OSError``; then the move does not count, though a reader may see it until the next append. Writing
        the same move down twice does no harm.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = self._fs.open(NAME, flags, 0o600, at=self._state_fd)
        try:
            self._look(fd)
            move = Move(max(at_ns // _TICK_NS * _TICK_NS, self._last_ns + _TICK_NS), old, new)
            data = record(move)
            if self._end + len(data) > self._limit:
                self._thin(move)
                return move.at_ns
            self._fs.truncate(fd, self._end)
            os.lseek(fd, self._end, os.SEEK_SET)
            write_all(self._fs, fd, data)
            self._fs.fsync(fd)
            if not self._end:
                sync_directory(self._fs, self._state_fd)
        finally:
            self._fs.close(fd)
        self._end += len(data)
        self._last_ns = move.at_ns
        return move.at_ns

    def _content(self) -> bytes:
        try:
            return read_file(self._fs, self._state_fd, NAME, 2 * _MOST_BYTES)
        except FileNotFoundError:
            return b""

    def _look(self, fd: int) -> None:
        """Where the next record goes is known: the file is read, unless it is the one we have written to before."""
        status = self._fs.fstat(fd)
        if (status.st_ino, status.st_size >= self._end) == (self._inode, True):
            return
        self._inode = -1
        moves, self._end = parse(self._content())
        self._last_ns = moves[-1].at_ns if moves else 0
        self._inode = status.st_ino

    def _thin(self, move: Move) -> None:
        """``move`` and those before it that can still be asked for are all that is written down, in a new file."""
        kept = list(_newest([*self.read(), move], move.at_ns - self._reach_ns))
        data = b"".join(map(record, reversed(kept)))
        write_file(self._fs, self._state_fd, NAME, data)
        self._limit = max(_THIN_BYTES, 2 * len(data))


def _newest(moves: list[Move], from_ns: int) -> Iterator[Move]:
    """The moves since ``from_ns``, the newest first, and no more than half of what the file may hold."""
    size = 0
    for move in reversed(moves):
        size += len(record(move))
        if move.at_ns < from_ns or size > _MOST_BYTES // 2:
            return
        yield move
