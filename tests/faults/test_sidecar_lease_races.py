"""Any number of newcomers at the same moment, in any order of their calls, killed and stopped between any two."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.backup.holder import Holder
from sidecar.backup.lease import Taken
from sidecar.backup.lease_record import Damaged, Record, decode
from tests.faults.faulty import FaultyFileSystem, Killed
from tests.unit.sidecar.leases import ELSEWHERE, SOMEBODY, Bench, beside
from tests.unit.sidecar.stores import SetClock

_ACTORS = 3


class _Stepped(FaultyFileSystem):
    """Makes a call only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self._may_go, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        self._killed = False

    def perform(self, name: str, call: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        self._waits.release()
        self._may_go.acquire()
        if self._killed:
            raise Killed
        return super().perform(name, call, *args, **keywords)

    def step(self, *, kill: bool = False) -> None:
        """One call is made, and the next one waits, or nothing is left to do."""
        self._killed = self._killed or kill
        self._may_go.release()
        self._waits.acquire()

    def begin(self) -> None:
        self._waits.acquire()

    def end(self) -> None:
        """Its actor makes no call any more."""
        self._waits.release()


class _Actor:
    """A newcomer who looks until he has it, one call after the other as he is told."""

    def __init__(self, bench: Bench, holder: Holder) -> None:
        self.holder, self._fs = holder, _Stepped()
        self._lease = bench.lease(holder, self._fs)
        self._bench = bench
        self.taken: Record | None = None
        self.ended = self.dead = False
        self._thread = threading.Thread(target=self._live)
        self._thread.start()
        self._fs.begin()

    def _live(self) -> None:
        try:
            while self.taken is None:
                found = self._lease.look()
                if isinstance(found, Taken):
                    self.taken = found.record
        except Killed:
            self.dead = True
        finally:
            self.ended = True
            self._fs.end()

    def step(self) -> None:
        if not self.ended:
            self._fs.step()

    def kill(self) -> None:
        self._bench.dead.add(self.holder)
        self.dead = True
        if not self.ended:
            self._fs.step(kill=True)

    def close(self) -> None:
        while not self.ended:
            self._fs.step(kill=True)
        self._thread.join()
        self._fs.bury()


def _nothing(bench: Bench) -> None:
    """There is no lease."""


def _released(bench: Bench) -> None:
    before = bench.lease(ELSEWHERE)
    before.look()
    before.release()


def _left(bench: Bench) -> None:
    dead = beside(SOMEBODY, 99)
    bench.lease(dead).look()
    bench.dead.add(dead)


def _still(bench: Bench) -> None:
    bench.lease(ELSEWHERE).look()


@contextmanager
def _stage(scene: Callable[[Bench], None]) -> Iterator[tuple[Bench, SetClock, list[_Actor]]]:
    clock = SetClock()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as top, closing(Bench(Path(top), clock)) as bench:
        scene(bench)
        actors = [_Actor(bench, beside(SOMEBODY, 10 + number)) for number in range(_ACTORS)]
        try:
            yield bench, clock, actors
        finally:
            for actor in actors:
                actor.close()


def _generation(bench: Bench) -> int:
    try:
        found = decode((bench.top / "lease").read_bytes())
    except FileNotFoundError:
        return 0
    assert not isinstance(found, Damaged)
    return found.generation


def _go(bench: Bench, actor: _Actor, steps: int, last: int) -> int:
    """The generation after so many calls of ``actor``; it never goes down from the ``last`` one."""
    for _ in range(steps):
        if actor.ended:
            break
        actor.step()
        found = _generation(bench)
        assert found >= last
        last = found
    return last


_turn = st.tuples(st.integers(0, _ACTORS - 1), st.integers(1, 30), st.sampled_from(["", "", "", "", "kill", "later"]))


@pytest.mark.parametrize("scene", [_nothing, _released, _left], ids=["nothing", "released", "left"])
@settings(max_examples=25, deadline=None)
@given(turns=st.lists(_turn, min_size=3, max_size=14))
def test_of_newcomers_in_any_order_one_that_lives_gets_it(
    scene: Callable[[Bench], None], turns: list[tuple[int, int, str]]
) -> None:
    """No time passes, so nobody may be followed but the dead."""
    with _stage(scene) as (bench, _, actors):
        last = _generation(bench)
        for number, steps, after in turns:
            last = _go(bench, actors[number], steps, last)
            if after == "kill":
                actors[number].kill()
            holders = [actor for actor in actors if actor.taken and not actor.dead]
            assert len(holders) <= 1
            if holders and holders[0].taken:
                assert bench.on_disk().token == holders[0].taken.token
        living = [actor for actor in actors if not actor.dead]
        for actor in 2 * living:
            last = _go(bench, actor, 150, last)
        if living:
            assert len([actor for actor in living if actor.taken]) == 1
        else:
            assert isinstance(bench.lease(beside(SOMEBODY, 50)).look(), Taken)


@pytest.mark.parametrize(
    "scene", [_nothing, _released, pytest.param(_still, marks=pytest.mark.slow)], ids=["nothing", "released", "still"]
)
@settings(max_examples=25, deadline=None)
@given(turns=st.lists(_turn, min_size=3, max_size=20))
def test_of_newcomers_that_are_stopped_for_any_time_the_latest_has_it_and_no_earlier_one_gets_it_back(
    scene: Callable[[Bench], None], turns: list[tuple[int, int, str]]
) -> None:
    with _stage(scene) as (bench, clock, actors):
        last = _generation(bench)
        for number, steps, after in turns:
            last = _go(bench, actors[number], steps, last)
            if after == "later":
                clock.passed_s += 60.0
            elif after == "kill":
                actors[number].kill()
        for _ in range(4 * (_ACTORS + 1)):
            for actor in actors:
                last = _go(bench, actor, 40, last)
            clock.passed_s += 60.0
        on_disk = bench.on_disk()
        assert len([actor for actor in actors if actor.taken and actor.taken.token == on_disk.token]) <= 1
        # Whoever wants it afterwards gets it in the end, whatever was left lying about.
        newcomer = bench.lease(ELSEWHERE)
        for _ in range(4 * (_ACTORS + 1)):
            if isinstance(newcomer.look(), Taken):
                break
            clock.passed_s += 60.0
        newcomer.check()
        assert bench.names() == ["lease"]
