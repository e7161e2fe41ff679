"""The journal replays to what was written; a cut leaves a prefix; damage is found; nothing is lost by compaction."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from sidecar import journal
from sidecar.entry import Entry, Kind
from sidecar.fsops import FileSystem
from sidecar.index import Index
from sidecar.journal import Journal, JournalUnreadable, Replayed, replay
from tests.unit.sidecar.models import entries, paths

_HEADER = struct.pack("<4sH", b"JHSJ", 1)
_ENTRY = Entry(Kind.FILE, 0o644, 5, 1, 2, 3, 4)

_records = st.lists(
    st.tuples(st.just("safe"), paths, entries)
    | st.tuples(st.just("removing"), paths, entries)
    | st.tuples(st.just("removed"), paths)
    | st.tuples(st.just("session"), st.sampled_from([b"one", b"two"])),
    max_size=12,
)
_State = tuple[dict[bytes, tuple[Entry, bool]], dict[bytes, Entry], bytes]


def _written(record: tuple[object, ...]) -> bytes:
    match record:
        case ("safe", bytes(path), Entry() as entry):
            return journal.safe_record(path, entry)
        case ("removing", bytes(path), Entry() as entry):
            return journal.removing_record(path, entry)
        case ("removed", bytes(path)):
            return journal.removed_record(path)
        case (_, bytes(session)):
            return journal.session_record(session)
    raise AssertionError(record)


def _after(records: list[tuple[object, ...]]) -> _State:
    """What a plain reading of the records says."""
    known: dict[bytes, tuple[Entry, bool]] = {}
    unfinished: dict[bytes, Entry] = {}
    session = b""
    for record in records:
        match record:
            case ("safe", bytes(path), Entry() as entry):
                known[path] = (entry, True)
                unfinished.pop(path, None)
            case ("removing", bytes(path), Entry() as entry):
                known.pop(path, None)
                unfinished[path] = entry
            case ("removed", bytes(path)):
                known.pop(path, None)
                unfinished.pop(path, None)
            case (_, bytes(name)) if name != session:
                session = name
                known = {path: (entry, False) for path, (entry, _) in known.items()}
    return known, unfinished, session


def _state(replayed: Replayed) -> _State:
    known = {path: (entry, held) for path, entry, held in replayed.index.items()}
    return known, replayed.unfinished, replayed.session


@given(_records)
def test_any_history_replays_to_what_it_says(records: list[tuple[object, ...]]) -> None:
    replayed = replay(_HEADER + b"".join(map(_written, records)))
    assert _state(replayed) == _after(records)
    assert replayed.records == len(records)


@given(_records.filter(lambda records: len(records) <= 6))
@settings(max_examples=25, phases=[Phase.explicit, Phase.reuse, Phase.generate])  # shrinking takes minutes here
def test_cut_off_at_every_byte_it_replays_to_a_prefix(records: list[tuple[object, ...]]) -> None:
    whole = _HEADER + b"".join(map(_written, records))
    for length in range(len(_HEADER), len(whole) + 1):
        replayed = replay(whole[:length])
        assert _state(replayed) == _after(records[: replayed.records])
        assert replayed.end <= length
        ends = [len(_HEADER) + sum(len(_written(r)) for r in records[:count]) for count in range(len(records) + 1)]
        assert replayed.end == max(end for end in ends if end <= length), "a whole record was dropped"


def test_every_byte_damaged_before_the_last_record_is_found() -> None:
    whole = _HEADER + b"".join(journal.safe_record(b"file-%d" % n, _ENTRY) for n in range(4))
    last = len(whole) - len(journal.safe_record(b"file-3", _ENTRY))
    for position in range(last):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[position] ^= flip
            with pytest.raises(JournalUnreadable):
                replay(bytes(damaged))


def test_a_tail_of_zeros_is_what_a_power_cut_leaves() -> None:
    record = journal.safe_record(b"file", _ENTRY)
    for zeros in (1, 7, 8, 9, 4096):
        assert replay(_HEADER + record + bytes(zeros)).records == 1
    with pytest.raises(JournalUnreadable):
        replay(_HEADER + record + bytes(64) + record)


@pytest.mark.parametrize(
    "data", [b"", b"JHSJ", b"XXXX\x01\x00", struct.pack("<4sH", b"JHSJ", 2), b'{"format": 1}' * 100]
)
def test_another_format_and_no_header_cannot_be_read(data: bytes) -> None:
    with pytest.raises(JournalUnreadable):
        replay(data)


@contextmanager
def _directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


@given(_records)
@example([("safe", b"a", _ENTRY), ("session", b"one"), ("safe", b"b", _ENTRY)])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_compaction_keeps_everything(tmp_path: Path, records: list[tuple[object, ...]]) -> None:
    before = replay(_HEADER + b"".join(map(_written, [("session", b"zero"), *records])))
    with _directory(tmp_path) as at:
        written = Journal(FileSystem(), at)
        written.rewrite(before.index, before.session)
        written.append([journal.safe_record(b"later", _ENTRY)])
        written.close()
        after = journal.read(FileSystem(), at)
    before.index.put(b"later", _ENTRY, held=True)
    assert sorted(after.index.items()) == sorted(before.index.items())
    assert after.session == before.session


def test_an_append_after_a_torn_one_is_read(tmp_path: Path) -> None:
    with _directory(tmp_path) as at:
        first = Journal(FileSystem(), at)
        first.rewrite(Index(), b"s")
        first.append([journal.safe_record(b"one", _ENTRY)])
        first.close()
        with (tmp_path / "journal").open("ab") as file:
            file.write(journal.safe_record(b"torn", _ENTRY)[:-3])
        second = Journal(FileSystem(), at)
        second.open()
        second.append([journal.safe_record(b"two", _ENTRY)])
        second.close()
        assert sorted(path for path, *_ in journal.read(FileSystem(), at).index.items()) == [b"one", b"two"]


class _NoDirectorySync(FileSystem):
    """Fails the sync of a directory once the journal has its name."""

    def __init__(self) -> None:
        self.renamed = False

    def rename(self, source: bytes, target: bytes, *, source_at: int, target_at: int) -> None:
        super().rename(source, target, source_at=source_at, target_at=target_at)
        self.renamed = True

    def fsync(self, fd: int) -> None:
        if self.renamed:
            self.renamed = False
            raise OSError(5, "Input/output error")
        super().fsync(fd)


def test_what_is_appended_after_a_compaction_that_failed_late_is_read(tmp_path: Path) -> None:
    with _directory(tmp_path) as at:
        written = Journal(_NoDirectorySync(), at)
        with pytest.raises(OSError, match="Input/output"):
            written.rewrite(Index(), b"s")
        written.append([journal.safe_record(b"later", _ENTRY)])
        written.close()
        assert [path for path, *_ in journal.read(FileSystem(), at).index.items()] == [b"later"]


def test_a_journal_is_bloated_only_when_most_of_it_is_history(tmp_path: Path) -> None:
    with _directory(tmp_path) as at:
        written = Journal(FileSystem(), at)
        written.rewrite(Index(), b"s")
        written.append([journal.safe_record(b"same", _ENTRY)] * 9_000)
        assert not written.is_bloated(1)
        written.append([journal.safe_record(b"same", _ENTRY)] * 2_000)
        assert written.is_bloated(1)
        assert not written.is_bloated(1_000)
        written.close()
