"""The journal replays to what was written; a cut leaves a prefix; damage is found; nothing is lost by compaction."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, assume, example, given, settings
from hypothesis import strategies as st

from sidecar.backup import journal
from sidecar.backup.index import Index
from sidecar.backup.journal import Journal, JournalUnreadable, Replayed, replay
from sidecar.entry import Entry, Kind
from sidecar.fsops import FileSystem
from tests.unit.sidecar.models import entries, paths

_HEADER = struct.pack("<4sH", b"JHSJ", 1)
_ENTRY = Entry(Kind.FILE, 0o644, 5, 1, 2, 3, 4)

_records = st.lists(
    st.tuples(st.just("safe"), paths, entries)
    | st.tuples(st.just("removing"), paths, entries)
    | st.tuples(st.just("removed"), paths)
    | st.tuples(st.just("session"), st.sampled_from([b"one", b"two"]))
    | st.tuples(st.sampled_from(["moving", "moved"]), paths, paths.map(lambda path: b"new/" + path)),
    max_size=12,
)
_Known = dict[bytes, tuple[Entry, bool]]
_State = tuple[_Known, dict[bytes, Entry], bytes, dict[bytes, bytes]]


def _written(record: tuple[object, ...]) -> bytes:
    match record:
        case ("safe", bytes(path), Entry() as entry):
            return journal.safe_record(path, entry)
        case ("removing", bytes(path), Entry() as entry):
            return journal.removing_record(path, entry)
        case ("removed", bytes(path)):
            return journal.removed_record(path)
        case ("session", bytes(session)):
            return journal.session_record(session)
        case ("moving", bytes(old), bytes(new)):
            return journal.moving_record(old, new)
        case ("moved", bytes(old), bytes(new)):
            return journal.moved_record(old, new)
    raise AssertionError(record)


def _at_or_below(known: Iterable[bytes], path: bytes) -> list[bytes]:
    return [each for each in known if each == path or each.startswith(path + b"/")]


def _after(records: list[tuple[object, ...]]) -> _State:
    """What a plain reading of the records says."""
    known: _Known = {}
    unfinished: dict[bytes, Entry] = {}
    moves: dict[bytes, bytes] = {}
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
            case ("session", bytes(name)) if name != session:
                session = name
                known = {path: (entry, False) for path, (entry, _) in known.items()}
            case ("moving", bytes(old), bytes(new)):
                moves[old] = new
            case ("moved", bytes(old), bytes(new)):
                moves.pop(old, None)
                moved = _at_or_below(known, old)
                assume(not moved or not _at_or_below(known, new))  # no writer moves onto what is there
                known |= {new + path[len(old) :]: known.pop(path) for path in moved}
                left = _at_or_below(unfinished, old)
                unfinished |= {new + path[len(old) :]: unfinished.pop(path) for path in left}
    return known, unfinished, session, moves


def _replay(data: bytes, block_bytes: int = 1 << 20) -> Replayed:
    return replay(data[at : at + block_bytes] for at in range(0, len(data), block_bytes))


def _state(replayed: Replayed) -> _State:
    known = {path: (entry, held) for path, entry, held in replayed.index.items()}
    return known, replayed.unfinished, replayed.session, replayed.unfinished_moves


@given(_records, st.integers(1, 100))
def test_any_history_replays_to_what_it_says(records: list[tuple[object, ...]], block_bytes: int) -> None:
    expected = _after(records)
    replayed = _replay(_HEADER + b"".join(map(_written, records)), block_bytes)
    assert _state(replayed) == expected
    assert replayed.records == len(records)


@given(_records.filter(lambda records: len(records) <= 6))
@settings(max_examples=25, phases=[Phase.explicit, Phase.reuse, Phase.generate])  # shrinking takes minutes here
def test_cut_off_at_every_byte_it_replays_to_a_prefix(records: list[tuple[object, ...]]) -> None:
    _after(records)  # which refuses what no writer writes
    whole = _HEADER + b"".join(map(_written, records))
    for length in range(len(_HEADER), len(whole) + 1):
        replayed = _replay(whole[:length])
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
            for block_bytes in (1000, 7):
                with pytest.raises(JournalUnreadable):
                    _replay(bytes(damaged), block_bytes)


def test_a_tail_of_zeros_is_what_a_power_cut_leaves() -> None:
    record = journal.safe_record(b"file", _ENTRY)
    for block_bytes in (1 << 20, 16, 1):
        for zeros in (1, 7, 8, 9, 4096):
            assert _replay(_HEADER + record + bytes(zeros), block_bytes).records == 1
        assert _replay(_HEADER + record + record[:8] + bytes(4096), block_bytes).records == 1
        with pytest.raises(JournalUnreadable):
            _replay(_HEADER + record + bytes(64) + record, block_bytes)


def _framed(payload: bytes) -> bytes:
    return struct.pack("<II", len(payload), zlib.crc32(payload)) + payload


_PACKED = _ENTRY.pack()


@pytest.mark.parametrize(
    "payload",
    [
        b"\0",
        b"\7" + _PACKED + b"path",
        b"\1" + b"\0" + _PACKED[1:] + b"path",
        b"\1" + b"\4" + _PACKED[1:] + b"path",
        b"\1" + _PACKED[:-1],
        b"\1" + _PACKED,
        b"\1",
        b"\1" + _PACKED + b"a\0b",
        b"\1" + _PACKED + b"directory/",
        b"\2" + b"\0" + _PACKED[1:] + b"path",
        b"\2" + b"\4" + _PACKED[1:] + b"path",
        b"\2" + _PACKED[:-1],
        b"\2" + _PACKED,
        b"\3",
        b"\5\1\0",
        b"\5" + struct.pack("<I", 9) + b"old" + b"new",
        b"\6" + struct.pack("<I", 3) + b"old",
        b"\6" + struct.pack("<I", 0) + b"new",
    ],
)
def test_a_whole_record_that_says_nothing_possible_makes_the_journal_unreadable(payload: bytes) -> None:
    with pytest.raises(JournalUnreadable):
        _replay(_HEADER + _framed(payload))


def test_a_directory_moved_onto_another_makes_the_journal_unreadable() -> None:
    safe = journal.safe_record(b"old/file", _ENTRY) + journal.safe_record(b"new/file", _ENTRY)
    with pytest.raises(JournalUnreadable):
        _replay(_HEADER + safe + journal.moved_record(b"old", b"new"))


def test_a_move_that_did_not_take_place_is_forgotten() -> None:
    begun = _HEADER + journal.safe_record(b"old/file", _ENTRY) + journal.moving_record(b"old", b"new")
    assert _replay(begun).unfinished_moves == {b"old": b"new"}
    replayed = _replay(begun + journal.moved_record(b"old", b"old"))
    assert _state(replayed) == ({b"old/file": (_ENTRY, True)}, {}, b"", {})


@pytest.mark.parametrize(
    "data", [b"", b"JHSJ", b"XXXX\x01\x00", struct.pack("<4sH", b"JHSJ", 2), b'{"format": 1}' * 100]
)
def test_another_format_and_no_header_cannot_be_read(data: bytes) -> None:
    with pytest.raises(JournalUnreadable):
        _replay(data)


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
    _after(records)  # leaves out what no writer does
    before = _replay(_HEADER + b"".join(map(_written, [("session", b"zero"), *records])))
    with _directory(tmp_path) as at:
        written = Journal(FileSystem(), at)
        written.rewrite(before.index, before.session)
        written.append([journal.safe_record(b"later", _ENTRY)])
        written.close()
        after = journal.read(FileSystem(), at)
    before.index.put(b"later", _ENTRY, held=True)
    assert sorted(after.index.items()) == sorted(before.index.items())
    assert after.session == before.session


def test_neither_reading_nor_compaction_holds_the_file_in_memory(tmp_path: Path) -> None:
    index = Index()
    for number in range(20_000):
        index.put(b"directory-%d/%d" % (number // 100, number), _ENTRY, held=number % 2 == 0)
    with _directory(tmp_path) as at:
        written = Journal(FileSystem(), at)
        tracemalloc.start()
        try:
            written.rewrite(index, b"s")
            assert tracemalloc.get_traced_memory()[1] < 3_000_000
            written.append([journal.removed_record(b"x" * 4000)] * 2_000)
            written.close()
            assert (tmp_path / "journal").stat().st_size > 9_000_000
            tracemalloc.clear_traces()
            again = journal.read(FileSystem(), at)
            left, most = tracemalloc.get_traced_memory()
            assert most - left < 5_000_000
        finally:
            tracemalloc.stop()
    assert (len(again.index), again.records) == (20_000, 22_001)


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


class _LostAnswer(FileSystem):
    """A rename works, and then says what NFS says to a call that it has carried out before."""

    def rename(self, source: bytes, target: bytes, *, source_at: int, target_at: int) -> None:
        super().rename(source, target, source_at=source_at, target_at=target_at)
        raise FileNotFoundError(2, "No such file or directory")


class _NoRename(FileSystem):
    """A rename does nothing."""

    def rename(self, source: bytes, target: bytes, *, source_at: int, target_at: int) -> None:  # noqa: ARG002  the call's signature
        raise OSError(5, "Input/output error")


def test_what_is_appended_after_a_rename_whose_answer_was_lost_is_read(tmp_path: Path) -> None:
    with _directory(tmp_path) as at:
        first = Journal(FileSystem(), at)
        first.rewrite(Index(), b"s")
        first.close()
        written = Journal(_LostAnswer(), at)
        index = written.open().index
        index.put(b"one", _ENTRY, held=True)
        written.rewrite(index, b"s")
        written.append([journal.safe_record(b"two", _ENTRY)])
        written.close()
        assert sorted(path for path, *_ in journal.read(FileSystem(), at).index.items()) == [b"one", b"two"]


def test_what_is_appended_after_a_rename_that_failed_is_read(tmp_path: Path) -> None:
    with _directory(tmp_path) as at:
        first = Journal(FileSystem(), at)
        first.rewrite(Index(), b"s")
        first.close()
        written = Journal(_NoRename(), at)
        written.open()
        with pytest.raises(OSError, match="Input/output"):
            written.rewrite(Index(), b"s")
        written.append([journal.safe_record(b"later", _ENTRY)])
        written.close()
        assert [path for path, *_ in journal.read(FileSystem(), at).index.items()] == [b"later"]


@pytest.mark.parametrize(
    "plant",
    [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("elsewhere"), lambda path: path.symlink_to("journal")],
    ids=["a FIFO", "a directory", "a link", "a link to itself"],
)
def test_what_is_no_file_is_no_journal_and_nobody_waits_for_it(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    plant(tmp_path / "journal")
    with _directory(tmp_path) as at:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(JournalUnreadable):
            journal.read(FileSystem(), at)
        with pytest.raises(JournalUnreadable):
            Journal(FileSystem(), at).open()
        assert len(os.listdir("/proc/self/fd")) == before
