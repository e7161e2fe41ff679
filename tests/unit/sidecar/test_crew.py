"""Work on many files at once: none is left out, and errors wait until nobody works any more."""

import threading
import time
from collections.abc import Iterator

import pytest

from sidecar.crew import MOST, Crew, threads_for


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
    crew.map(time.sleep, [0.03] * 100, learn=True)
    assert crew.size == MOST
    crew.map(time.sleep, [0.0] * 3, learn=True)  # too few to tell
    assert crew.size == MOST
    crew.map(time.sleep, [0.02] * 99 + [0.0], learn=True)
    assert crew.size < 8
    names = set(crew.map(lambda _: threading.current_thread().name, list(range(200))))
    assert 1 <= len(names) < 8


def test_a_persist_that_has_become_slow_gets_more_threads_in_the_middle_of_the_work(crew: Crew) -> None:
    crew.size = 1
    began = time.monotonic()
    names: set[str] = set()

    def work(seconds: float) -> None:
        time.sleep(seconds)
        names.add(threading.current_thread().name)

    crew.map(work, [0.03] * 400)
    assert len(names) > MOST // 2
    assert time.monotonic() - began < 400 * 0.03 / 4


def test_threads_take_items_of_different_groups_and_the_results_stay_in_order(crew: Crew) -> None:
    taken: list[int] = []

    def work(item: int) -> int:
        taken.append(item)
        return item

    crew.size = 2
    items = [0] * 8 + [1] * 8
    assert crew.map(work, items, apart=lambda item: item) == items
    assert taken.count(0) == taken.count(1) == 8
    assert 3 <= sum(taken[:8]) <= 5
    crew.size = 1
    taken.clear()
    assert crew.map(work, items, apart=lambda item: item) == items
    assert taken == items, "one thread has nothing to wait for, and keeps the order"


def test_a_crew_that_rests_has_no_threads_and_works_again() -> None:
    crew = Crew()
    crew.size = 4
    others = set(threading.enumerate())
    for _ in range(2):
        assert crew.map(lambda number: number * 2, range(100)) == [number * 2 for number in range(100)]
        ours = set(threading.enumerate()) - others
        assert ours
        crew.rest()
        for thread in ours:
            thread.join(5)
            assert not thread.is_alive(), "it waits for work that may never come"
    crew.close()
