"""Every move that was written down is read again; damage costs only what it hit; the record stays small."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.backup import moves as module
from sidecar.backup.moves import Move, Moves, parse, record
from sidecar.backup.retention import DAY_S
from sidecar.fsops import FileSystem
from tests.faults.faulty import Fault, FaultyFileSystem, Killed

_S = 10**9
_no_name = {b".", b".."}
_names = st.binary(min_size=1, max_size=8).filter(lambda name: not {0, ord("/")} & {*name} and name not in _no_name)
_paths = st.lists(_names, min_size=1, max_size=3).map(b"/".join)
_moves = st.lists(st.builds(Move, st.integers(0, 2**63 - 1), _paths, _paths), max_size=6)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def _by_time(moves: list[Move]) -> list[Move]:
    return sorted(moves, key=lambda move: move.at_ns)


@given(_moves)
def test_what_was_written_is_read(written: list[Move]) -> None:
    data = b"".join(map(record, written))
    assert parse(data) == (_by_time(written), len(data))


@given(_moves)
def test_cut_off_at_every_byte_the_whole_records_are_read(written: list[Move]) -> None:
    data = b"".join(map(record, written))
    # The end of a line is for people: a record counts without it.
    ends = [len(b"".join(map(record, written[: count + 1]))) - 1 for count in range(len(written))]
    for length in range(len(data) + 1):
        found, reached = parse(data[:length])
        assert found == _by_time(written[: sum(end <= length for end in ends)])
        assert reached <= length
        assert parse(data[:reached])[0] == found


@given(_moves.filter(len), st.data())
def test_a_damaged_byte_costs_one_record_at_most(written: list[Move], data: st.DataObject) -> None:
    whole = bytearray(b"".join(map(record, written)))
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] = data.draw(st.integers(0, 255))
    hit = next(n for n in range(len(written)) if position < sum(len(record(move)) for move in written[: n + 1]))
    found, _ = parse(bytes(whole))
    others = _by_time(written[:hit] + written[hit + 1 :])
    assert found in (others, _by_time(written))


@pytest.mark.parametrize(
    "path", [b"", b"/", b"/etc", b"a/", b"a//b", b".", b"..", b"../x", b"a/../b", b"a/..", b"./a", b"a\0b"]
)
def test_a_record_that_leads_out_of_the_home_is_none(path: bytes) -> None:
    assert parse(record(Move(1, path, b"b")) + record(Move(2, b"a", path))) == ([], 0)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"at_ns":1}',
        b'{"at_ns":"1","old_b64":"YQ==","new_b64":"Yg=="}',
        b'{"at_ns":true,"old_b64":"YQ==","new_b64":"Yg=="}',
        b'{"at_ns":-1,"old_b64":"YQ==","new_b64":"Yg=="}',
        b'{"at_ns":9223372036854775808,"old_b64":"YQ==","new_b64":"Yg=="}',
        b'{"at_ns":1.5,"old_b64":"YQ==","new_b64":"Yg=="}',
        b'{"at_ns":1,"old_b64":"Y","new_b64":"Yg=="}',
        b'{"at_ns":1,"old_b64":["YQ=="],"new_b64":"Yg=="}',
        b'{"at_ns":1,"old_b64":%b"YQ==","new_b64":"Yg=="}' % (b"[" * 100_000),
        b"{not json}",
    ],
)
def test_a_record_of_something_else_is_skipped(body: bytes) -> None:
    sound = Move(5, b"a", b"b")
    assert parse(b"%08x %b\n" % (zlib.crc32(body), body) + record(sound))[0] == [sound]


def test_appends_are_read_by_anybody(state: int) -> None:
    assert Moves(FileSystem(), state).read() == []
    writer = Moves(FileSystem(), state)
    assert writer.append(5_000_999, b"a\n\xff", b"b/c") == 5_000_000, "versions have whole microseconds"
    assert writer.append(9_000_000, b"b", b"d") == 9_000_000
    assert Moves(FileSystem(), state).append(12_000_000, b"d", b"e") == 12_000_000
    expected = [Move(5_000_000, b"a\n\xff", b"b/c"), Move(9_000_000, b"b", b"d"), Move(12_000_000, b"d", b"e")]
    assert writer.read() == Moves(FileSystem(), state).read() == expected


def test_no_two_moves_have_the_same_time_and_none_is_before_the_one_before(state: int) -> None:
    first, second = Moves(FileSystem(), state), Moves(FileSystem(), state)
    assert first.append(_S, b"a", b"b") == _S
    assert first.append(_S + 999, b"b", b"a") == _S + 1000
    assert second.append(5, b"a", b"b") == _S + 2000, "the clock was set back"
    assert [move.new for move in first.read()] == [b"b", b"a", b"b"]


@pytest.mark.parametrize("garbage", [b"\0" * 4096, record(Move(1, b"torn", b"t"))[:-5], b"{", b"\n\n"])
def test_an_append_cuts_off_what_a_kill_left(state: int, tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "moves"
    Moves(FileSystem(), state).append(1000, b"a", b"b")
    whole = path.read_bytes()
    path.write_bytes(whole + garbage)
    assert len(Moves(FileSystem(), state).read()) == 1
    Moves(FileSystem(), state).append(2000, b"b", b"c")
    assert path.read_bytes() == whole + record(Move(2000, b"b", b"c"))


def test_a_record_without_its_line_end_counts_and_the_next_one_too(state: int, tmp_path: Path) -> None:
    (tmp_path / "moves").write_bytes(record(Move(1000, b"a", b"b"))[:-1])
    Moves(FileSystem(), state).append(2000, b"b", b"c")
    assert [move.at_ns for move in Moves(FileSystem(), state).read()] == [1000, 2000]


@pytest.mark.parametrize("how", ["renamed", "emptied"])
def test_a_file_that_somebody_took_away_is_begun_again(state: int, tmp_path: Path, how: str) -> None:
    path = tmp_path / "moves"
    writer = Moves(FileSystem(), state)
    writer.append(1000, b"a", b"b")
    if how == "renamed":
        path.rename(tmp_path / "away")
    else:
        path.write_bytes(b"")
    writer.append(2000, b"b", b"c")
    assert path.read_bytes() == record(Move(2000, b"b", b"c"))


def test_a_planted_link_is_not_followed(state: int, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"work")
    (tmp_path / "moves").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        Moves(FileSystem(), state).append(1000, b"a", b"b")
    assert victim.read_bytes() == b"work"


_FAULTS = [Fault(number=number) for number in (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE)]
_FAULTS += [Fault(short=True), Fault(killed="before"), Fault(killed="after")]


@pytest.mark.parametrize("thinning", [False, True])
@pytest.mark.parametrize("fault", _FAULTS, ids=str)
def test_whatever_call_fails_what_was_written_is_read_and_the_next_append_works(
    tmp_path: Path, fault: Fault, thinning: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if thinning:
        monkeypatch.setattr(module, "_THIN_BYTES", 1)
    before = [Move(n * 1000, b"d%d" % n, b"e%d" % n) for n in range(1, 4)]
    at = 0
    happened = True
    while happened:
        at += 1
        place = tmp_path / str(at)
        place.mkdir()
        (place / "moves").write_bytes(b"".join(map(record, before)))
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        fs = FaultyFileSystem(Fault(at=at, number=fault.number, short=fault.short, killed=fault.killed))
        moves = Moves(fs, fd)
        succeeded = True
        try:
            moves.append(10_000, b"a", b"b")
        except (OSError, Killed):
            succeeded = False
        happened, fs.fault = fs.happened, Fault()
        new = Move(10_000, b"a", b"b")
        allowed = [[*before, new]] if succeeded else [before, [*before, new]]
        assert Moves(FileSystem(), fd).read() in allowed
        if not fault.killed:
            assert moves.append(11_000, b"a", b"b") >= 11_000
            assert [move for move in moves.read() if move != new] == [*before, Move(11_000, b"a", b"b")]
        fs.bury()
        os.close(fd)
    assert at > 5


def test_only_what_can_still_be_asked_for_is_kept_once_there_is_much(
    state: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_THIN_BYTES", 2000)
    writer = Moves(FileSystem(), state)
    day_ns = DAY_S * _S
    for day in range(1, 401):
        writer.append(day * 5 * day_ns, b"d", b"e")
        expected_from = day * 5 - 365
        kept = [move.at_ns // day_ns for move in writer.read()]
        needed = [each for each in range(5, day * 5 + 1, 5) if each >= expected_from]
        assert kept[-len(needed) :] == needed, "nothing within the reach of the retention rule is given up"
    assert len(kept) < 2.5 * 365 / 5
    assert (tmp_path / "moves").stat().st_size < 20_000


def test_a_small_record_is_never_thinned(state: int) -> None:
    writer = Moves(FileSystem(), state)
    writer.append(_S, b"a", b"b")
    writer.append(100 * 365 * DAY_S * _S, b"b", b"c")
    assert len(writer.read()) == 2


@example(30)
@given(st.integers(1, 60))
def test_the_record_never_grows_beyond_its_bound_and_keeps_the_newest(count: int) -> None:
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_THIN_BYTES", 300)
        patch.setattr(module, "_MOST_BYTES", 1200)
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        writer = Moves(FileSystem(), fd)
        for number in range(1, count + 1):
            writer.append(number * 1000, b"d", b"e%d" % number)
            assert Path(place, "moves").stat().st_size <= 1300
        found = [move.at_ns // 1000 for move in writer.read()]
        assert found == list(range(count - len(found) + 1, count + 1))
        assert len(found) >= min(count, 5)
        assert Path(place, "moves").read_bytes() == b"".join(map(record, writer.read())), "in the order of time"
        os.close(fd)


class _NeverDurable(FileSystem):
    """What ``refuses`` says cannot be made durable."""

    def __init__(self, refuses: Callable[[int], bool]) -> None:
        self._refuses = refuses

    def fsync(self, fd: int) -> None:
        if self._refuses(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("refuses", [stat.S_ISREG, stat.S_ISDIR])
def test_what_is_not_durable_was_not_written_down(state: int, refuses: Callable[[int], bool]) -> None:
    with pytest.raises(OSError, match="Input/output"):
        Moves(_NeverDurable(refuses), state).append(1000, b"a", b"b")
