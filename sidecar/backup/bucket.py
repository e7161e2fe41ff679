"""Names and their records packed into one ``bytes``: a file costs its record, its name and one byte more.

A bucket is where its records begin, its names, and one record of ``RECORD_BYTES`` for each name in the same order::

    bucket   I  offset of the records   \\0 name \\0 name \\0   record record

No name is empty or holds NUL. A bucket is never changed, only replaced, and small, so that this costs little. The names
of a larger directory are spread over a list of buckets by linear hashing: it grows and shrinks by one bucket at a time.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from sidecar.entry import PACKED_BYTES

RECORD_BYTES = 1 + PACKED_BYTES
MOST_NAMES = 64
"""With more of them a directory gets one bucket more: the larger it is the slower, the smaller the more memory."""

_START = struct.Struct("<I")
_NAMES = _START.size
EMPTY = _START.pack(_NAMES + 1) + b"\0"


def pack(items: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A bucket of the names and records ``items``. Raises ``ValueError`` where one can be no name."""
    names, records = [], []
    for name, record in items:
        names.append(name)
        records.append(record)
    return pack_all(names, b"".join(records))


def pack_all(names: Collection[bytes], records: bytes) -> bytes:
    """A bucket of ``names`` and their ``records`` in the same order. Raises ``ValueError`` as ``pack`` does."""
    if not names:
        return EMPTY
    joined = b"\0%b\0" % b"\0".join(names)
    if b"\0\0" in joined or joined.count(b"\0") > len(names) + 1:
        raise ValueError("a name is empty or holds NUL")
    return _packed(joined, records)


def _packed(names: bytes, records: bytes) -> bytes:
    return b"".join((_START.pack(_NAMES + len(names)), names, records))


def start_of(bucket: bytes) -> int:
    """Where the records begin."""
    start: int = _START.unpack_from(bucket)[0]
    return start


def find(bucket: bytes, name: bytes) -> int:
    """Where the record of ``name`` is, or -1."""
    start: int = _START.unpack_from(bucket)[0]
    at = bucket.find(b"\0%b\0" % name, _NAMES, start)
    if at < 0 or b"\0" in name:
        return -1
    return start + RECORD_BYTES * bucket.count(b"\0", _NAMES, at)


def added(bucket: bytes, name: bytes, record: bytes) -> bytes:
    """``bucket`` with ``name``, which it does not have. Raises ``ValueError`` where that can be no name."""
    if not name or b"\0" in name:
        raise ValueError(f"{name!r} is no name")
    start = start_of(bucket)
    head = _START.pack(start + len(name) + 1)
    return b"".join((head, bucket[_NAMES:start], name, b"\0", bucket[start:], record))


def replaced(bucket: bytes, at: int, record: bytes) -> bytes:
    """``bucket`` with ``record`` at ``at``."""
    return b"".join((bucket[:at], record, bucket[at + RECORD_BYTES :]))


def set_byte(bucket: bytes, at: int, value: int) -> bytes:
    """``bucket`` with ``value`` at ``at``."""
    return b"".join((bucket[:at], bytes((value,)), bucket[at + 1 :]))


def without(bucket: bytes, name: bytes) -> bytes:
    """``bucket`` without ``name``, which it has."""
    start = start_of(bucket)
    name_at = bucket.find(b"\0%b\0" % name, _NAMES, start)
    at = start + RECORD_BYTES * bucket.count(b"\0", _NAMES, name_at)
    names = bucket[_NAMES:name_at] + bucket[name_at + 1 + len(name) : start]
    return _packed(names, bucket[start:at] + bucket[at + RECORD_BYTES :])


def names_in(bucket: bytes) -> list[bytes]:
    """Every name, in the order of the records."""
    start = start_of(bucket)
    return bucket[_NAMES + 1 : start - 1].split(b"\0") if start > len(EMPTY) else []


def column(bucket: bytes, offset: int) -> bytes:
    """The byte at ``offset`` of every record."""
    return bucket[start_of(bucket) + offset :: RECORD_BYTES]


def with_column(bucket: bytes, offset: int, values: bytes) -> bytes:
    """``bucket`` with ``values``, one for every record, in place of the byte at ``offset``."""
    changed = bytearray(bucket)
    changed[start_of(bucket) + offset :: RECORD_BYTES] = values
    return bytes(changed)


def items_in(bucket: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every name with its record."""
    at = start_of(bucket)
    for name in names_in(bucket):
        yield name, bucket[at : at + RECORD_BYTES]
        at += RECORD_BYTES


def slot_of(buckets: Sequence[bytes], name: bytes) -> int:
    """Which of ``buckets`` is the one for ``name``."""
    # Python's own hash is keyed: nobody can choose names that all fall into one bucket.
    slot = hash(name) & _mask(len(buckets))
    return slot if slot < len(buckets) else _origin(slot)


def shares_of(buckets: Sequence[bytes], items: Mapping[bytes, bytes]) -> Mapping[int, Mapping[bytes, bytes]]:
    """``items`` by the slot of ``buckets`` that their names belong in."""
    count, mask = len(buckets), _mask(len(buckets))
    if count == 1:
        return {0: items}
    shares: dict[int, dict[bytes, bytes]] = {}
    for name, value in items.items():
        slot = hash(name) & mask
        if slot >= count:
            slot = _origin(slot)
        if slot in shares:
            shares[slot][name] = value
        else:
            shares[slot] = {name: value}
    return shares


def _mask(count: int) -> int:
    return (1 << (count - 1).bit_length()) - 1


def _origin(slot: int) -> int:
    """The bucket that ``slot`` was split from: the slot without its highest bit."""
    return slot ^ (1 << (slot.bit_length() - 1))


def count_in(bucket: bytes) -> int:
    """How many names ``bucket`` has."""
    return (len(bucket) - start_of(bucket)) // RECORD_BYTES


def is_full(bucket: bytes) -> bool:
    """Whether ``bucket`` has more than ``MOST_NAMES``."""
    return count_in(bucket) > MOST_NAMES


def grow(buckets: list[bytes]) -> None:
    """There is one bucket more, with its share of the names."""
    slot = _origin(len(buckets))
    items = dict(items_in(buckets[slot]))
    buckets.append(EMPTY)
    shares = shares_of(buckets, items)
    for each in (slot, len(buckets) - 1):
        buckets[each] = pack(shares.get(each, {}).items())


def shrink(buckets: list[bytes]) -> None:
    """There are as few buckets as can be without soon growing again: at least one."""
    while len(buckets) > 1:
        slot = _origin(len(buckets) - 1)
        if count_in(buckets[slot]) + count_in(buckets[-1]) > MOST_NAMES // 2:
            return
        last = buckets.pop()
        buckets[slot] = pack([*items_in(buckets[slot]), *items_in(last)])
