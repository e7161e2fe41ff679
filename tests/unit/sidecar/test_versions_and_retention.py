"""Earlier contents: their names, which one was the state at a time, and which of them may go."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.backup.retention import DAY_S, HOUR_S, LADDER, expired, ladder
from sidecar.backup.versions import Span, parse_name, version_name, versions_in, walk
from sidecar.fsops import FileSystem

_S = 10**9
_YEAR_S = 365 * DAY_S
_micros = st.integers(0, 4_000_000_000 * 10**6).map(lambda micros: micros * 1000)
_spans = st.tuples(_micros, _micros).map(lambda pair: Span(min(pair), max(pair) + 1000))


@given(_spans, st.integers(0, 100))
def test_a_versions_name_says_its_span(span: Span, attempt: int) -> None:
    assert parse_name(version_name(span, attempt)) == span


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b"_",
        b"notes.txt",
        b"20260101T000000.000000Z",
        b"20260101T000000.000000Z_",
        b"20260101T000000.000000Z_20260101T000001.000000Z.txt",
        b"20261301T000000.000000Z_20260101T000001.000000Z",
        b"20260101T000000.000000Z_20260101T000001.000000Zx1",
        b"20260101T000000.000000Z_20260101T000001.000000Z.1\n",
        b"\xff_\xff",
    ],
)
def test_other_names_are_no_versions(name: bytes) -> None:
    assert parse_name(name) is None


@pytest.mark.parametrize(("at_ns", "covered"), [(9, False), (10, True), (19, True), (20, False)])
def test_a_span_ends_just_before_its_end(at_ns: int, covered: bool) -> None:
    assert Span(10, 20).covers(at_ns) is covered


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A directory of versions, and its descriptor."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield tmp_path, fd
    os.close(fd)


def _keep(directory: Path, from_s: int) -> bytes:
    name = version_name(Span(from_s * _S, (from_s + 1) * _S))
    directory.mkdir(parents=True, exist_ok=True)
    (directory / os.fsdecode(name)).write_text(str(from_s))
    return name


def test_the_walk_meets_every_version_and_each_paths_oldest_first(tree: tuple[Path, int]) -> None:
    top, fd = tree
    kept = {b"f": [3, 1, 2], b"d/g": [5, 4], b"d/deep/h": [6]}
    for path, times in kept.items():
        for from_s in times:
            _keep(top / os.fsdecode(path), from_s)
    _keep(top / os.fsdecode(version_name(Span(0, _S))), 7)  # a file of the home can have such a name
    (top / "f" / "no version").touch()
    os.mkfifo(top / "f" / os.fsdecode(version_name(Span(0, _S))))
    found: dict[bytes, list[int]] = {}
    for version in walk(FileSystem(), fd, b""):
        found.setdefault(version.path, []).append(version.span.from_ns // _S)
    assert found == {**{path: sorted(times) for path, times in kept.items()}, version_name(Span(0, _S)): [7]}
    directory = os.open(top / "d", os.O_RDONLY)
    assert {version.path for version in walk(FileSystem(), directory, b"d")} == {b"d/g", b"d/deep/h"}
    os.close(directory)


def test_a_tree_deeper_and_wider_than_the_descriptors_we_may_have_is_walked(tree: tuple[Path, int]) -> None:
    top, fd = tree
    for number in range(400):
        _keep(top / "wide" / str(number), number)
    deep = top
    for _ in range(400):
        deep = deep / "d"
    _keep(deep, 400)
    before = len(os.listdir("/proc/self/fd"))
    most = 0
    found = set()
    for version in walk(FileSystem(), fd, b""):
        found.add(version.span.from_ns // _S)
        most = max(most, len(os.listdir("/proc/self/fd")))
    assert found == set(range(401))
    assert most <= before + 200
    assert len(os.listdir("/proc/self/fd")) == before


class _Thief(FileSystem):
    """What was listed is gone, or something else, in the moment it is opened."""

    def __init__(self, take: Callable[[], None]) -> None:
        self._take = take

    def open(self, name: bytes, flags: int, mode: int = 0o600, *, at: int | None = None) -> int:
        if name == b"goes":
            self._take()
        return super().open(name, flags, mode, at=at)


@pytest.mark.parametrize("instead", ["nothing", "a file", "a link"])
def test_what_vanishes_while_it_is_read_is_left_out(tree: tuple[Path, int], instead: str) -> None:
    top, fd = tree
    _keep(top / "stays", 1)
    _keep(top / "goes", 2)

    def take() -> None:
        (top / "goes").rename(top.with_name(top.name + "-gone"))
        if instead == "a file":
            (top / "goes").touch()
        elif instead == "a link":
            (top / "goes").symlink_to(top / "stays")

    assert [version.path for version in walk(_Thief(take), fd, b"")] == [b"stays"]


def test_what_cannot_be_read_is_no_empty_history(tree: tuple[Path, int]) -> None:
    class Broken(FileSystem):
        def open(self, name: bytes, flags: int, mode: int = 0o600, *, at: int | None = None) -> int:  # noqa: ARG002  the call's signature
            raise OSError(errno.EIO, "Input/output error")

    top, fd = tree
    _keep(top / "f", 1)
    with pytest.raises(OSError, match="Input/output"):
        list(walk(Broken(), fd, b""))
    assert versions_in(FileSystem(), fd, b"") == []


@given(st.lists(_spans, max_size=40), _micros)
def test_the_newest_version_is_never_given_up(spans: list[Span], now_ns: int) -> None:
    gone = expired(spans, now_ns)
    assert len(set(gone)) == len(gone)
    if spans:
        kept = [span for position, span in enumerate(spans) if position not in gone]
        assert max(span.until_ns for span in spans) in [span.until_ns for span in kept]


@given(st.lists(_spans, max_size=40), _micros)
def test_thinning_twice_is_thinning_once(spans: list[Span], now_ns: int) -> None:
    gone = expired(spans, now_ns)
    assert expired([span for position, span in enumerate(spans) if position not in gone], now_ns) == []


@pytest.mark.parametrize(
    ("age_s", "every_s", "kept_of_100"),
    [
        (0, 5, 100),  # in the last ten minutes each
        (HOUR_S // 2, 1, (1, 3)),  # then one for each minute
        (DAY_S // 2, 60, (9, 12)),  # then one for each ten minutes
        (10 * DAY_S, HOUR_S, (4, 6)),  # then one for each day
        (100 * DAY_S, DAY_S, (14, 16)),  # then one for each week
        (2 * _YEAR_S, DAY_S, 0),  # then none
    ],
)
def test_the_older_the_fewer(age_s: int, every_s: int, kept_of_100: int | tuple[int, int]) -> None:
    now_s = 10 * _YEAR_S
    spans = [Span(0, (now_s - age_s - number * every_s) * _S) for number in range(100)]
    newest = Span(0, now_s * _S)  # so that the rule alone decides about the others
    kept = 100 - len(expired([newest, *spans], now_s * _S))
    low, high = kept_of_100 if isinstance(kept_of_100, tuple) else (kept_of_100, kept_of_100)
    assert low <= kept <= high


def test_the_ladder_rises() -> None:
    assert [rung.age_s for rung in LADDER] == sorted({rung.age_s for rung in LADDER})
    assert [rung.spacing_s for rung in LADDER] == sorted({rung.spacing_s for rung in LADDER})


@pytest.mark.parametrize("days", [1, 2, 29, 30, 31, 364, 365, 366, 3650])
def test_a_ladder_of_so_many_days_is_the_same_up_to_there_and_ends_there(days: int) -> None:
    now_s = 20 * _YEAR_S
    newest = Span(0, now_s * _S)
    spans = [Span(0, (now_s - number * HOUR_S) * _S) for number in range(1, (days + 30) * 24)]
    gone = set(expired([newest, *spans], now_s * _S, ladder(days)))
    kept_s = [now_s - spans[number].until_ns // _S for number in range(len(spans)) if number + 1 not in gone]
    assert days * DAY_S - 8 * DAY_S < max(kept_s) <= days * DAY_S
    usual = set(expired([newest, *spans], now_s * _S))
    usual_s = [now_s - spans[number].until_ns // _S for number in range(len(spans)) if number + 1 not in usual]
    assert [age_s for age_s in kept_s if age_s <= 365 * DAY_S] == [age_s for age_s in usual_s if age_s <= days * DAY_S]


def test_the_usual_ladder_is_the_one_of_a_year() -> None:
    assert ladder(365) == LADDER
