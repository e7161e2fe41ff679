"""Whatever was written, deleted and moved: for every time and path the backup knows which content it was."""

from __future__ import annotations

from itertools import pairwise, permutations

import pytest
from hypothesis import given, settings

from sidecar.backup.moves import Move
from sidecar.backup.path_history import PathHistory, Stay, is_within
from tests.unit.sidecar.histories import History, Step, steps


def _at(history: History, places: PathHistory, path: bytes, at_ns: int) -> list[tuple[bytes, int]]:
    """Path and content of what is found of ``path``, and of all below it, at ``at_ns``."""
    found = []
    for place in places.within(path, at_ns):
        for stored in history.stored:
            if is_within(stored.place, place) and stored.covers(at_ns):
                true_path = places.path_at(at_ns, stored.place, stored.until_ns)
                if is_within(true_path, path):
                    found.append((true_path, stored.content))
    return sorted(found)


@given(steps)
@settings(max_examples=200)
def test_at_every_time_every_path_was_what_it_was(taken: list[Step]) -> None:
    history = History.of(taken)
    places = PathHistory(history.moves)
    for at_ns in history.times:
        then = sorted(history.at(at_ns).items())
        for path in history.paths:
            assert _at(history, places, path, at_ns) == [each for each in then if is_within(each[0], path)]


@given(steps)
@settings(max_examples=200)
def test_the_history_of_every_path_has_every_content_it_was(taken: list[Step]) -> None:
    history = History.of(taken)
    places = PathHistory(history.moves)
    for path in history.paths - {b""}:
        found = [
            (stored.content, stay)
            for place in places.of(path)
            for stored in history.stored
            if stored.place == place
            for stay in places.stays(place, stored.from_ns, stored.until_ns)
            if stay.path == path
        ]
        for at_ns in history.times:
            at_that_time = [content for content, stay in found if _covers(stay, at_ns)]
            assert at_that_time == [content for each, content in history.at(at_ns).items() if each == path]


@given(steps)
def test_what_was_ever_below_a_directory_is_found(taken: list[Step]) -> None:
    history = History.of(taken)
    places = PathHistory(history.moves)
    for path in history.paths:
        candidates = places.within(path, None)
        ever = {
            content for state in history.states.values() for each, content in state.items() if is_within(each, path)
        }
        found = {s.content for s in history.stored if any(is_within(s.place, place) for place in candidates)}
        assert ever & {stored.content for stored in history.stored} <= found


@given(steps)
def test_a_content_is_always_somewhere_and_never_twice(taken: list[Step]) -> None:
    history = History.of(taken)
    places = PathHistory(history.moves)
    for stored in history.stored:
        latest_first = list(places.stays(stored.place, stored.from_ns, stored.until_ns))
        assert latest_first[0].until_ns == stored.until_ns
        assert latest_first[-1].from_ns == stored.from_ns
        for later, earlier in pairwise(latest_first):
            assert later.from_ns == earlier.until_ns
            assert earlier.from_ns < later.from_ns


def _covers(stay: Stay, at_ns: int) -> bool:
    return stay.from_ns <= at_ns and (stay.until_ns is None or at_ns < stay.until_ns)


def test_without_moves_everything_is_where_it_was() -> None:
    places = PathHistory([])
    assert places.of(b"a/b") == places.within(b"a/b", 5) == places.within(b"a/b", None) == [b"a/b"]
    assert places.within(b"", 5) == places.within(b"", None) == [b""]
    assert places.path_at(5, b"a/b", None) == b"a/b"
    assert list(places.stays(b"a/b", 5, None)) == [Stay(b"a/b", 5, None)]


def test_a_move_that_came_about_later_than_it_was_written_down_changes_nothing_before() -> None:
    """The process was killed between record and rename, or the index was read before both."""
    places = PathHistory([Move(10, b"a", b"b")])
    assert b"a/x" in places.within(b"a/x", 5)
    assert b"a/x" in places.of(b"a/x")
    assert places.path_at(5, b"a/x", None) == b"a/x"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"work/tmp", {b"work/tmp", b"runs/0"}),
        (b"work/tmp/x", {b"work/tmp/x", b"runs/0/x"}),
        (b"work", {b"work", b"runs/0"}),
        (b"runs", {b"runs"}),
        (b"elsewhere", {b"elsewhere"}),
    ],
)
def test_a_name_that_is_used_again_and_again_leads_only_to_what_had_it_at_the_time(
    path: bytes, expected: set[bytes]
) -> None:
    places = PathHistory([Move(10 * n + 10, b"work/tmp", b"runs/%d" % n) for n in range(1000)])
    assert set(places.within(path, 5)) == expected


def test_a_thousand_moves_back_and_forth_lead_to_two_places() -> None:
    places = PathHistory([Move(10 * n + 10, *((b"a", b"b") if n % 2 == 0 else (b"b", b"a"))) for n in range(1000)])
    assert set(places.within(b"a/x/y", 5)) == set(places.of(b"a/x/y")) == {b"a/x/y", b"b/x/y"}
    assert places.path_at(5, b"a/x/y", None) == b"a/x/y"
    assert places.path_at(15, b"a/x/y", None) == b"b/x/y"


def _moves(*pairs: tuple[bytes, bytes]) -> list[Move]:
    return [Move(10 * number, old, new) for number, (old, new) in enumerate(pairs, 1)]


@pytest.mark.parametrize(
    ("path", "moves", "expected"),
    [
        # A name that begins with another one is another directory.
        (b"a-", _moves((b"a", b"b"), (b"a-", b"c")), {b"a-", b"c"}),
        (b"a-/x", _moves((b"a", b"b"), (b"a-", b"c")), {b"a-/x", b"c/x"}),
        (b"a", _moves((b"a-", b"c"), (b"a0", b"d")), {b"a"}),
        # It went away, came back deeper, and went on; the third move was written down twice.
        (
            b"a/x",
            _moves((b"a", b"k"), (b"k", b"a/y"), (b"a", b"b"), (b"a", b"b"), (b"b", b"c")),
            {b"a/x", b"k/x", b"a/y/x", b"b/x", b"b/y/x", b"c/x", b"c/y/x"},
        ),
        # What moved out of a directory was never at the directory's own path.
        (b"work", _moves((b"work/tmp", b"one"), (b"work/tmp", b"two")), {b"work"}),
    ],
)
def test_what_was_ever_at_a_path_is_followed(path: bytes, moves: list[Move], expected: set[bytes]) -> None:
    assert set(PathHistory(moves).of(path)) == expected


def test_all_that_was_ever_below_a_directory_is_followed() -> None:
    moves = _moves((b"work/tmp", b"one"), (b"work/tmp", b"two"), (b"two", b"three"))
    assert set(PathHistory(moves).within(b"work", None)) == {b"work", b"one", b"two", b"three"}
    assert set(PathHistory(moves).within(b"work", 0)) == {b"work", b"one"}


def test_of_a_move_into_a_directory_and_moves_of_that_directory_the_later_is_undone_first() -> None:
    places = PathHistory(_moves((b"a", b"b/c"), (b"b", b"k"), (b"k", b"b")))
    assert [places.path_at(at_ns, b"b/c/x", None) for at_ns in (5, 15, 25, 35)] == [
        b"a/x",
        b"b/c/x",
        b"k/c/x",
        b"b/c/x",
    ]


def test_moves_made_up_to_hurt_do_not() -> None:
    moves: list[Move] = []
    for _ in range(300):  # each turn would double what is followed, if what has left a place were followed there too
        for old, new in ((b"c", b"d"), (b"c", b"d/c"), (b"d", b"c")):
            moves.append(Move(len(moves) + 1, old, new))
    places = PathHistory(moves)
    assert len(places.within(b"c/x", 0)) <= len(moves) + 1
    assert len(places.of(b"c/x")) <= len(moves) + 1


@given(steps)
def test_no_place_is_below_another(taken: list[Step]) -> None:
    history = History.of(taken)
    for path in history.paths:
        found = PathHistory(history.moves).within(path, None)
        assert not any(is_within(one, other) for one, other in permutations(found, 2))
