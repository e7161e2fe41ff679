"""Earlier contents: their names, which one was the state at a time, and which of them may go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.entry import Kind
from sidecar.retention import DAY_S, HOUR_S, LADDER, expired
from sidecar.versions import Span, Version, at_time, parse_name, version_name

_S = 10**9
_YEAR_S = 365 * DAY_S
_micros = st.integers(0, 4_000_000_000 * 10**6).map(lambda micros: micros * 1000)
_spans = st.tuples(_micros, _micros).map(lambda pair: Span(min(pair), max(pair) + 1000))


def _version(from_s: int, until_s: int) -> Version:
    span = Span(from_s * _S, until_s * _S)
    return Version(b"f", span, version_name(span), Kind.FILE, 0o644, 0, 0)


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
        b"\xff_\xff",
    ],
)
def test_other_names_are_no_versions(name: bytes) -> None:
    assert parse_name(name) is None


@pytest.mark.parametrize(
    ("at_s", "from_s"),
    [(9, None), (10, 10), (19, 10), (20, 20), (29, 20), (30, None), (39, None), (40, 40), (50, None)],
)
def test_the_state_at_a_time_is_the_version_that_was_current_then(at_s: int, from_s: int | None) -> None:
    versions = [_version(10, 20), _version(20, 30), _version(40, 50)]
    found = at_time(versions, at_s * _S)
    assert (None if found is None else found.span.from_ns // _S) == from_s


def test_of_overlapping_versions_the_later_counts() -> None:
    found = at_time([_version(10, 30), _version(15, 25)], 20 * _S)
    assert found is not None
    assert found.span.from_ns == 15 * _S


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
