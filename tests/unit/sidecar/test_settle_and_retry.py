"""When a change is copied, and when a failure is tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.home.settle import Settle
from sidecar.saving.retry import LONGEST_S, Retry, delay_s


def test_a_path_is_due_once_it_was_quiet() -> None:
    settle = Settle(quiet_s=0.25, max_delay_s=1.0)
    settle.touch(b"a", 10.0)
    settle.touch(b"a", 10.2)
    assert settle.next_due_s() == pytest.approx(10.45)
    assert settle.take_due(10.4) == []
    assert settle.take_due(10.46) == [b"a"]
    assert (len(settle), settle.next_due_s(), settle.oldest_s()) == (0, None, None)


def test_a_path_that_never_goes_quiet_is_due_after_the_longest_delay() -> None:
    settle = Settle(quiet_s=0.25, max_delay_s=1.0)
    for step in range(20):
        settle.touch(b"busy", 10.0 + step / 10)
        due = settle.take_due(10.0 + step / 10)
        if due:
            assert (due, step) == ([b"busy"], 10)
            return
    pytest.fail("it was never due")


def test_no_more_are_taken_than_asked_for() -> None:
    settle = Settle(quiet_s=0.1, max_delay_s=1.0)
    for number in range(5):
        settle.touch(b"%d" % number, 0.0)
    assert settle.take_due(5.0, 2) == [b"0", b"1"]
    assert settle.take_all() == [b"2", b"3", b"4"]


@given(
    st.lists(
        st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.floats(0, 0.4), st.booleans(), st.sampled_from([None, 1]))
    ),
)
def test_every_touched_path_is_taken_within_its_bounds(steps: list[tuple[bytes, float, bool, int | None]]) -> None:
    settle, now_s = Settle(quiet_s=0.25, max_delay_s=1.0), 0.0
    first: dict[bytes, float] = {}
    last: dict[bytes, float] = {}
    for path, passed_s, takes, limit in steps:
        now_s += passed_s
        settle.touch(path, now_s)
        first.setdefault(path, now_s)
        last[path] = now_s
        if takes:
            for due in settle.take_due(now_s, limit):
                assert last[due] <= now_s - 0.25 or first[due] <= now_s - 1.0
                del first[due], last[due]
            if limit is None:
                assert all(last[p] > now_s - 0.25 and first[p] > now_s - 1.0 for p in first)
        assert sorted(settle.paths()) == sorted(first)
        assert settle.oldest_s() == min(first.values(), default=None)
    assert sorted(settle.take_due(now_s + 0.26)) == sorted(first)


def test_a_failure_is_tried_soon_and_then_ever_more_rarely_up_to_the_bound() -> None:
    delays = [delay_s(attempts) for attempts in range(1, 100)]
    assert delays[:4] == [0.5, 1.0, 2.0, 4.0]
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_S == 30.0


def test_what_failed_again_waits_longer_until_it_is_settled() -> None:
    retry = Retry()
    retry.later(b"a", 0.0)
    assert (retry.take_due(0.4), retry.take_due(0.5)) == ([], [b"a"])
    retry.later(b"a", 1.0)
    assert retry.next_due_s() == 2.0
    retry.forget(b"a")
    assert (len(retry), retry.next_due_s()) == (0, None)
    retry.later(b"a", 10.0)
    assert retry.next_due_s() == 10.5
