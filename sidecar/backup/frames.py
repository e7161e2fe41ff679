"""The frames of the journal: each payload with its length and checksum, and what a kill can leave after the last.

::

    frame   I  payload length   I  crc32(payload)   payload
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_FRAME = struct.Struct("<II")
# A path beyond this is no path: the longest that inotify and the walk can meet are far shorter.
_MAX_PAYLOAD_BYTES = 1 << 20


def framed(payload: bytes) -> bytes:
    """``payload`` as it stands in the file."""
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def payloads(blocks: Iterator[bytes], tags: frozenset[int]) -> Iterator[tuple[list[bytes], int]]:
    """The payloads of one block after the other, none of them empty, and after how many bytes the last frame ends.

    A payload begins with one of ``tags``. One that is cut off at the end is left out, and so are zeros there. Raises
    ``ValueError`` for any other damage. In memory are one block and its payloads.
    """
    passed, buffer = 0, b""
    for block in blocks:
        buffer += block
        found, at = _whole(buffer)
        yield found, passed + at
        passed, buffer = passed + at, buffer[at:]
        if _is_damaged(buffer):
            break
    if len(buffer) >= _FRAME.size:
        length, _ = _FRAME.unpack_from(buffer)
        if not _is_tail(length, buffer[_FRAME.size :], blocks, tags):
            raise ValueError(f"damaged {passed} bytes after the header")


def _whole(buffer: bytes) -> tuple[list[bytes], int]:
    """The payloads that ``buffer`` begins with, and where the first frame begins that is cut off or damaged."""
    found: list[bytes] = []
    unpack, crc32, take = _FRAME.unpack_from, zlib.crc32, found.append
    at, last = 0, len(buffer) - _FRAME.size
    while at <= last:
        length, crc = unpack(buffer, at)
        start = at + _FRAME.size
        payload = buffer[start : start + length]
        if len(payload) != length or not payload or length > _MAX_PAYLOAD_BYTES or crc32(payload) != crc:
            break
        take(payload)
        at = start + length
    return found, at


def _is_damaged(buffer: bytes) -> bool:
    """Whether more of the file cannot make a whole frame of what ``buffer`` begins with."""
    if len(buffer) < _FRAME.size:
        return False
    length, _ = _FRAME.unpack_from(buffer)
    return not length or length > _MAX_PAYLOAD_BYTES or len(buffer) >= _FRAME.size + length


def _is_tail(length: int, rest: bytes, blocks: Iterator[bytes], tags: frozenset[int]) -> bool:
    """Whether what follows a frame of ``length`` is zeros, as after a power cut, or cut off, as after a kill."""
    if not rest.strip(b"\0"):
        return not any(block.strip(b"\0") for block in blocks)
    is_cut_off = len(rest) <= length <= _MAX_PAYLOAD_BYTES and next(blocks, None) is None
    return is_cut_off and not _any_frame(rest, tags)


def _any_frame(tail: bytes, tags: frozenset[int]) -> bool:
    """Whether a whole frame stands anywhere in ``tail``: then the length before it was damaged, not cut off."""
    for at in range(len(tail) - _FRAME.size):
        length, crc = _FRAME.unpack_from(tail, at)
        start = at + _FRAME.size
        payload = tail[start : start + length]
        if 1 < length == len(payload) and payload[0] in tags and zlib.crc32(payload) == crc:
            return True
    return False
