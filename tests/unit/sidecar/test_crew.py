"""Work on many files at once: none is left out, and errors wait until nobody works any more."""

import threading
import time
from collections.abc import Iterator

import pytest

from sidecar.crew import MOST, Crew, Timed, threads_for


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew()
    yield crew
    crew.close()


def test_results_come_in_the_order_of_the_items(crew: Crew) -> None:
    assert crew.map(lambda number: number * 2, list(range(1000))) == [number * 2 for number in range(1000)]
    assert crew.map(str, []) == []


def test_an_error_keeps_no_other_item_from_being_done(crew: Crew) -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 3:
            raise OSError(28, "full")
        done.append(number)

    with pytest.raises(OSError, match="full"):
        crew.map(work, list(range(50)))
    assert sorted(done) == [number for number in range(50) if number != 3]


def test_what_only_waits_is_done_at_the_same_time(crew: Crew) -> None:
    began = time.monotonic()
    crew.map(lambda _: time.sleep(0.05), list(range(crew.size)))
    assert time.monotonic() - began < 0.05 * crew.size / 2


def test_a_slow_persist_gets_more_threads_and_a_quick_one_fewer(crew: Crew) -> None:
    assert threads_for(0.00005) == 1
    assert 1 < threads_for(0.005) < MOST
    assert threads_for(2.0) == MOST
    crew.learn([0.02] * 100)
    assert crew.size == MOST
    crew.learn([5.0] * 3)  # too few to tell
    assert crew.size == MOST
    crew.learn([0.5] * 99 + [0.0004])
    assert crew.size == 2
    names = set(crew.map(lambda _: threading.current_thread().name, list(range(200))))
    assert 1 <= len(names) <= 2


def test_the_seconds_of_each_call_are_kept_also_of_one_that_fails() -> None:
    work = Timed[int, int](lambda number: 1 // number)
    assert work(1) == 1
    with pytest.raises(ZeroDivisionError):
        work(0)
    assert len(work.seconds) == 2
    assert min(work.seconds) >= 0
