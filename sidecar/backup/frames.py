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


def payloads(blocks: Iterator[bytes], tags: frozenset[int]) -> Iterator[tuple[bytes, int]]:
    """Every payload in ``blocks``, none of them empty, and how many bytes of them its frame ends after.

    A payload begins with one of ``tags``. One that is cut off at the end is left out, and so are zeros there. Raises
    ``ValueError`` for any other damage. In memory are one block and one payload.
    """
    passed, at, buffer = 0, 0, b""
    for block in blocks:
        passed, at, buffer = passed + at, 0, buffer[at:] + block
        while at + _FRAME.size <= len(buffer):
            length, crc = _FRAME.unpack_from(buffer, at)
            start = at + _FRAME.size
            end = start + length
            if end > len(buffer) and length <= _MAX_PAYLOAD_BYTES:
                break
            payload = buffer[start:end]
            if length > _MAX_PAYLOAD_BYTES or not payload or zlib.crc32(payload) != crc:
                if _is_tail(length, buffer[start:], blocks, tags):
                    return
                raise ValueError(f"damaged {passed + at} bytes after the header")
            yield payload, passed + end
            at = end
    if at + _FRAME.size <= len(buffer):
        length, _ = _FRAME.unpack_from(buffer, at)
        if not _is_tail(length, buffer[at + _FRAME.size :], blocks, tags):
            raise ValueError(f"damaged {passed + at} bytes after the header")


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
