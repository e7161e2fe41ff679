"""What the mirror holds, in memory: for every path its entry, and whether this home's session has held it.

Grouped by directory and packed: a hundred sidecars share a node, and names and objects are what costs there. What is
done to one path costs the same in a directory of ten and of a million.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import compress

from sidecar.backup.bucket import (
    EMPTY,
    MOST_NAMES,
    RECORD_BYTES,
    added,
    column,
    count_in,
    find,
    grow,
    is_full,
    items_in,
    names_in,
    pack,
    pack_all,
    replaced,
    set_byte,
    shares_of,
    shrink,
    slot_of,
    start_of,
    with_column,
    without,
)
from sidecar.entry import PACKED_BYTES, Entry, Kind, join, name_of, parent

# A record is a byte of flags and a packed entry, which begins with the kind. Every directory that holds something has
# a record in the directory above it; while it has no entry of its own, that is _ONLY_HOLDS.
_HELD = 1
_HOLDS = 2
_FLAGS_AT, _KIND_AT = 0, 1
_ONLY_HOLDS = bytes((_HOLDS,)) + bytes(PACKED_BYTES)
_IS_HELD = bytes(flags & _HELD for flags in range(256))
_DOES_HOLD = bytes(flags & _HOLDS for flags in range(256))
_NOT_HELD = bytes(flags & ~_HELD for flags in range(256))
_FILE, _DIRECTORY = int(Kind.FILE), int(Kind.DIRECTORY)
_FEW = 4
"""From so many names on it is faster to make a bucket anew than to put them into it one by one."""
_COUNTED = struct.Struct("<BB4xQ32x")
# What ``Entry.same_as`` looks at.
_COMPARED = struct.Struct("<xBIQqqQ8x")
_COMPARED_FIELDS = 6


class Index:
    """Path → entry. *Held* paths were seen in this session's home: only their absence can mean a deletion."""

    def __init__(self) -> None:
        self._directories: dict[bytes, bytes | list[bytes]] = {}
        """Of each directory that holds something its bucket, or its buckets where it holds much."""
        self._paths = 0
        self.files = 0
        """Files and links the mirror holds."""
        self.file_bytes = 0
        self.held_files = 0

    def __len__(self) -> int:
        return self._paths

    # One path.

    def get(self, path: bytes) -> Entry | None:
        """The entry of ``path``, or None where the mirror does not hold it."""
        _, bucket, at = self._locate(path)
        if at < 0 or not bucket[at + _KIND_AT]:
            return None
        return Entry.unpack(bucket[at + _KIND_AT : at + RECORD_BYTES])

    def is_held(self, path: bytes) -> bool:
        """Whether this session's home has had ``path``."""
        _, bucket, at = self._locate(path)
        return at >= 0 and bucket[at] & _HELD != 0

    def put(self, path: bytes, entry: Entry, *, held: bool) -> None:
        """``path`` is in the mirror as ``entry``. Raises ``ValueError`` for what can be no path in a home."""
        self.put_packed(path, entry.pack(), held=held)

    def put_packed(self, path: bytes, packed: bytes, *, held: bool) -> None:
        """``path`` is in the mirror as the entry that was packed. Raises ``ValueError`` as ``put`` does."""
        record = (b"\1" if held else b"\0") + packed
        slot, bucket, at = self._locate(path)
        if at < 0:
            self._add(path, record, slot, bucket)
        else:
            old = bucket[at : at + RECORD_BYTES]
            self._count(old, -1)
            if old[_FLAGS_AT] & _HOLDS:
                record = bytes((_HOLDS | held,)) + packed
            self._store(path, slot, replaced(bucket, at, record))
        self._count(record, 1)

    def put_all(self, directory: bytes, packed: Mapping[bytes, bytes], *, held: bool) -> None:
        """Every name in ``packed`` is in ``directory`` as the entry that was packed; the more, the cheaper each.

        Raises ``ValueError`` as ``put`` does.
        """
        singles = packed
        if packed and directory not in self._directories:
            self._announce(directory)
            if len(packed) <= MOST_NAMES:
                self._directories[directory] = self._fresh(packed, held)
                return
            singles = self._merge_all(directory, packed, held)
        elif len(packed) >= _FEW:
            singles = self._merge_all(directory, packed, held)
        for name, entry in singles.items():
            self.put_packed(join(directory, name), entry, held=held)

    def remove(self, path: bytes) -> None:
        """``path`` is not in the mirror (any more)."""
        slot, bucket, at = self._locate(path)
        if at < 0 or not bucket[at + _KIND_AT]:
            return
        self._count(bucket[at : at + RECORD_BYTES], -1)
        if bucket[at] & _HOLDS:
            self._store(path, slot, replaced(bucket, at, _ONLY_HOLDS))
        else:
            self._drop(path, slot, bucket)

    def move(self, old: bytes, new: bytes) -> None:
        """``old`` with everything below it is ``new``, and is held as before; nothing happens where it is unknown.

        Costs by the directories below. Raises ``ValueError`` where the index holds ``new`` or anything below it, and
        where ``new`` is below ``old``.
        """
        slot, bucket, at = self._locate(old)
        if at < 0 or old == new:
            return
        if not _is_path(new) or new.startswith(old + b"/") or self._locate(new)[2] >= 0:
            raise ValueError(f"{old!r} cannot become {new!r}: that is taken, below it, or no path")
        record = bucket[at : at + RECORD_BYTES]
        waiting = [old] if bucket[at] & _HOLDS else []
        while waiting:
            directory = waiting.pop()
            waiting += [join(directory, name) for name in self._holding(directory)]
            self._directories[new + directory[len(old) :]] = self._directories.pop(directory)
        self._drop(old, slot, bucket)
        slot, bucket, _ = self._locate(new)
        self._add(new, record, slot, bucket)

    # One directory.

    def names(self, directory: bytes) -> list[bytes]:
        """The names the mirror holds directly in ``directory``."""
        return [name for bucket in self._buckets(directory) for name in _names_where(bucket, column(bucket, _KIND_AT))]

    def compare(self, directory: bytes, found: Mapping[bytes, Entry]) -> tuple[list[bytes], list[bytes]]:
        """How ``found``, all that is in ``directory`` by name, differs from what the mirror has of this session's home.

        First the names in ``found`` that are unknown, not held, or not the same; then the names it lacks that are held,
        or that only hold something.
        """
        changed: list[bytes] = []
        missing: list[bytes] = []
        met = 0
        for bucket in self._buckets(directory):
            flags, fields = column(bucket, _FLAGS_AT), _COMPARED.iter_unpack(bucket[start_of(bucket) :])
            for name, flag, known in zip(names_in(bucket), flags, fields, strict=True):
                entry = found.get(name)
                if entry is None:
                    if flag & _HELD or not known[0]:
                        missing.append(name)
                    continue
                met += 1
                if not flag & _HELD or entry[:_COMPARED_FIELDS] != known:
                    changed.append(name)
        if met < len(found):
            known_names = {name for bucket in self._buckets(directory) for name in names_in(bucket)}
            changed += [name for name in found if name not in known_names]
        return changed, missing

    # All paths.

    def below(self, path: bytes) -> Iterator[bytes]:
        """Every path below the directory ``path``, children before their directory, ``path`` itself left out.

        What was yielded may be removed meanwhile; nothing else may change.
        """
        # No recursion: a home can be deeper than Python's stack.
        waiting = [(path, False)]
        while waiting:
            directory, is_read = waiting.pop()
            if not is_read:
                holding = self._holding(directory)
                waiting.append((directory, True))
                waiting += [(join(directory, name), False) for name in holding]
                for name in self.names(directory):
                    if name not in holding:
                        yield join(directory, name)
            elif directory != path and self._has_entry(directory):
                yield directory

    def items(self) -> Iterator[tuple[bytes, Entry, bool]]:
        """Every path with its entry and whether it is held, in no order; the index must not change meanwhile."""
        for held in (False, True):
            for path, packed in self.packed_items(held=held):
                yield path, Entry.unpack(packed), held

    def packed_items(self, *, held: bool) -> Iterator[tuple[bytes, bytes]]:
        """Every path that is held, or is not, with its packed entry; the index must not change meanwhile."""
        for directory, buckets in self._directories.items():
            for bucket in (buckets,) if isinstance(buckets, bytes) else buckets:
                if not held and all(_marked(bucket, _IS_HELD)):
                    continue
                for name, record in items_in(bucket):
                    if record[_KIND_AT] and bool(record[_FLAGS_AT] & _HELD) is held:
                        yield join(directory, name), record[_KIND_AT:]

    def replace(self, other: Index) -> None:
        """This index says what ``other`` says."""
        self._directories = other._directories
        self._paths = other._paths
        self.files, self.file_bytes, self.held_files = other.files, other.file_bytes, other.held_files

    def release_all(self) -> None:
        """A new session: nothing has been held yet."""
        for directory, buckets in self._directories.items():
            if isinstance(buckets, bytes):
                self._directories[directory] = _released(buckets)
            else:
                buckets[:] = map(_released, buckets)
        self.held_files = 0

    # Where a path's record is.

    def _buckets(self, directory: bytes) -> list[bytes]:
        buckets = self._directories.get(directory, EMPTY)
        return [buckets] if isinstance(buckets, bytes) else buckets

    def _locate(self, path: bytes) -> tuple[int, bytes, int]:
        """Slot and bucket that ``path`` belongs in, and where its record is in that: -1 where it has none."""
        directory, _, name = path.rpartition(b"/")
        buckets = self._directories.get(directory, EMPTY)
        if isinstance(buckets, bytes):
            return 0, buckets, find(buckets, name)
        slot = slot_of(buckets, name)
        bucket = buckets[slot]
        return slot, bucket, find(bucket, name)

    def _store(self, path: bytes, slot: int, bucket: bytes) -> None:
        """The bucket that ``path`` belongs in is ``bucket``."""
        directory = parent(path)
        buckets = self._directories.get(directory, EMPTY)
        if isinstance(buckets, bytes):
            self._directories[directory] = bucket
        else:
            buckets[slot] = bucket

    def _add(self, path: bytes, record: bytes, slot: int, bucket: bytes) -> None:
        """``path``, which has no record, has ``record`` in the bucket that it belongs in."""
        directory, _, name = path.rpartition(b"/")
        bucket = added(bucket, name, record)
        if directory not in self._directories:
            self._announce(directory)
        self._insert(path, slot, bucket)

    def _insert(self, path: bytes, slot: int, bucket: bytes) -> None:
        self._store(path, slot, bucket)
        if is_full(bucket):
            directory = parent(path)
            buckets = self._buckets(directory)
            grow(buckets)
            self._directories[directory] = buckets

    def _announce(self, directory: bytes) -> None:
        """The record of ``directory``, which is to hold its first path, says so, and so on above it."""
        if directory and not _is_path(directory):
            raise ValueError(f"{directory!r} is no path in a home")
        while directory:
            slot, bucket, at = self._locate(directory)
            if at >= 0:
                self._store(directory, slot, set_byte(bucket, at, bucket[at] | _HOLDS))
                return
            above = parent(directory)
            is_announced = above in self._directories
            self._insert(directory, slot, added(bucket, name_of(directory), _ONLY_HOLDS))
            if is_announced:
                return
            directory = above

    def _merge_all(self, directory: bytes, packed: Mapping[bytes, bytes], held: bool) -> Mapping[bytes, bytes]:
        """The buckets of ``directory`` have the entries ``packed``, but for those that are better put one by one."""
        buckets = self._buckets(directory)
        names = len(packed) + sum(map(count_in, buckets))
        while names > MOST_NAMES and 2 * names > MOST_NAMES * len(buckets):
            grow(buckets)
        singles: dict[bytes, bytes] = {}
        for slot, share in shares_of(buckets, packed).items():
            if len(share) >= _FEW or buckets[slot] == EMPTY:
                buckets[slot] = self._merge(buckets[slot], share, held)
            else:
                singles |= share
        self._directories[directory] = buckets if len(buckets) > 1 else buckets[0]
        return singles

    def _fresh(self, packed: Mapping[bytes, bytes], held: bool) -> bytes:
        """A bucket of the entries ``packed``, which are counted."""
        flags = b"\1" if held else b"\0"
        records = flags + flags.join(packed.values())
        bucket = pack_all(packed, records)
        self._count(records, 1)
        return bucket

    def _merge(self, bucket: bytes, packed: Mapping[bytes, bytes], held: bool) -> bytes:
        """``bucket`` with the entries ``packed``, which are counted."""
        known = dict(items_in(bucket))
        flags = b"\1" if held else b"\0"
        fresh = {name: flags + entry for name, entry in packed.items()}
        for name in known.keys() & fresh.keys():
            self._count(known[name], -1)
            if known[name][_FLAGS_AT] & _HOLDS:
                fresh[name] = bytes((_HOLDS | held,)) + packed[name]
        self._count(b"".join(fresh.values()), 1)
        return pack((known | fresh).items())

    def _drop(self, path: bytes, slot: int, bucket: bytes) -> None:
        """``path`` has no record any more, and neither has a directory above it that had one only for this."""
        while True:
            directory, _, name = path.rpartition(b"/")
            self._store(path, slot, without(bucket, name))
            buckets = self._directories[directory]
            if isinstance(buckets, list):
                shrink(buckets)
                if len(buckets) > 1:
                    return
                buckets = buckets[0]
            if buckets != EMPTY:
                return
            del self._directories[directory]
            if not directory:
                return
            path = directory
            slot, bucket, at = self._locate(path)
            if bucket[at + _KIND_AT]:
                self._store(path, slot, set_byte(bucket, at, bucket[at] & _HELD))
                return

    def _has_entry(self, path: bytes) -> bool:
        _, bucket, at = self._locate(path)
        return at >= 0 and bucket[at + _KIND_AT] != 0

    def _holding(self, directory: bytes) -> set[bytes]:
        """The names in ``directory`` that hold something themselves."""
        buckets = self._buckets(directory)
        return {name for bucket in buckets for name in _names_where(bucket, _marked(bucket, _DOES_HOLD))}

    def _count(self, records: bytes, sign: int) -> None:
        """Every record in ``records`` counts once more, or less, by ``sign``."""
        kinds = records[_KIND_AT::RECORD_BYTES]
        if kinds.count(_FILE) == len(kinds) <= MOST_NAMES:
            self._paths += sign * len(kinds)
            self.files += sign * len(kinds)
            self.file_bytes += sign * sum(_sizes_in(len(kinds)).unpack(records))
            self.held_files += sign * records[_FLAGS_AT::RECORD_BYTES].translate(_IS_HELD).count(_HELD)
            return
        for flags, kind, size in _COUNTED.iter_unpack(records):
            if not kind:
                continue
            self._paths += sign
            if kind != _DIRECTORY:
                self.files += sign
                self.file_bytes += sign * size
                self.held_files += sign * (flags & _HELD)


@cache
def _sizes_in(count: int) -> struct.Struct:
    """For the sizes in so many records at once."""
    return struct.Struct("<" + "6xQ32x" * count)


def _is_path(path: bytes) -> bool:
    return b"\0" not in path and b"" not in path.split(b"/")


def _marked(bucket: bytes, table: bytes) -> bytes:
    return column(bucket, _FLAGS_AT).translate(table)


def _names_where(bucket: bytes, chosen: bytes) -> Iterator[bytes]:
    """The names whose byte in ``chosen`` is not 0."""
    return compress(names_in(bucket), chosen) if any(chosen) else iter(())


def _released(bucket: bytes) -> bytes:
    return with_column(bucket, _FLAGS_AT, _marked(bucket, _NOT_HELD))
