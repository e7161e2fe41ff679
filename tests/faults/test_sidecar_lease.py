"""Whatever call fails while a lease is taken, kept and given back: never two holders, and nobody waits for ever."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.backup.lease import Lease, Taken
from sidecar.backup.lease_record import Record, encode
from sidecar.errors import Fenced
from sidecar.fsops import FileSystem
from tests.faults.faulty import NO_FAULT, Fault, FaultyFileSystem, Killed
from tests.faults.turns import FAULTS
from tests.unit.sidecar.leases import ELSEWHERE, SOMEBODY, Bench, beside
from tests.unit.sidecar.stores import SetClock

_US, _BESIDE, _DEAD = beside(SOMEBODY, 7), beside(SOMEBODY, 8), beside(SOMEBODY, 9)
_LOOK_S = 60.0
"""Between two looks: as much as can count of it."""
_LONGEST_S = 2 * 4 * _LOOK_S
"""A lease and a claim that were both cut short: by nobody known."""
_ONCE = {name: fault for name, fault in FAULTS.items() if not fault.lasting and not fault.killed}
_KILLED = {name: fault for name, fault in FAULTS.items() if fault.killed}


class _NoLinks(FaultyFileSystem):
    def perform(self, name: str, call: Callable[..., object], *args: object, **keywords: object) -> object:
        if name == "link":
            raise PermissionError(1, "Operation not permitted")
        return super().perform(name, call, *args, **keywords)


def _nothing(bench: Bench) -> None:
    """There is no lease."""


def _released(bench: Bench) -> None:
    before = bench.lease(_DEAD)
    before.look()
    before.release()


def _left(bench: Bench) -> None:
    bench.lease(_DEAD).look()
    bench.dead.add(_DEAD)


def _still(bench: Bench) -> None:
    bench.lease(ELSEWHERE).look()


def _claimed(bench: Bench) -> None:
    """Two newcomers died on the way."""
    _left(bench)
    for generation in (2, 3):
        claim = Record(generation=generation, token=f"{generation:016x}", holder=_DEAD)
        (bench.top / f"lease.claim-{generation}").write_bytes(encode(claim))
        (bench.top / f"lease.own-{claim.token}").write_bytes(encode(claim))


def _damaged(bench: Bench) -> None:
    (bench.top / "lease").write_bytes(b"")


_SCENES = {scene.__name__[1:]: scene for scene in (_nothing, _released, _left, _still, _claimed, _damaged)}


def _wait(lease: Lease, clock: SetClock, at_most_s: float) -> bool:
    """Whether the lease was taken, by looking again and again through every error."""
    give_up_s = clock.passed_s + at_most_s
    while clock.passed_s < give_up_s:
        with suppress(OSError):
            if isinstance(lease.look(), Taken):
                return True
        clock.passed_s += _LOOK_S
    return False


def _live(lease: Lease, clock: SetClock) -> None:
    """A life with a lease, each step tried again through errors, a few times."""
    if not _wait(lease, clock, 6 * _LOOK_S):
        return
    for step in (lease.check, lease.beat, lease.check, lease.release):
        for _ in range(3):
            with suppress(OSError):
                step()
                break


def _has_it(lease: Lease) -> bool:
    try:
        lease.check()
    except (OSError, Fenced):
        return False
    return True


def _turns(
    top: Path,
    scene: Callable[[Bench], None],
    kind: type[FaultyFileSystem] = FaultyFileSystem,
    faults: Mapping[str, Fault] = FAULTS,
) -> Iterator[tuple[Bench, SetClock, FaultyFileSystem, str]]:
    """A bench with the scene on it, for each call and each fault; until a life has no such call any more."""
    at = 0
    while True:
        at += 1
        for name, fault in faults.items():
            shutil.rmtree(top, ignore_errors=True)
            top.mkdir()
            clock = SetClock()
            with closing(Bench(top, clock)) as bench:
                scene(bench)
                fs = kind(replace(fault, at=at))
                yield bench, clock, fs, f"{name} at call {at}"
                if not fs.happened:
                    assert at > 10
                    return


@pytest.mark.parametrize("kind", [FaultyFileSystem, _NoLinks], ids=["links", "no links"])
@pytest.mark.parametrize("scene", _SCENES.values(), ids=list(_SCENES))
def test_one_failing_call_makes_no_second_holder_and_blocks_nobody(
    tmp_path: Path, scene: Callable[[Bench], None], kind: type[FaultyFileSystem]
) -> None:
    for bench, clock, fs, what in _turns(tmp_path / "state", scene, kind):
        lease = bench.lease(_US, fs)
        try:
            _live(lease, clock)
        except Killed:
            fs.bury()
            bench.dead.add(_US)
        held = not fs.fault.killed and _has_it(lease)
        # Somebody beside us, and somebody elsewhere, who both beat when they have it.
        near, far = bench.lease(_BESIDE), bench.lease(ELSEWHERE)
        if held:
            assert not isinstance(near.look(), Taken), what
        near_has_it = _wait(near, clock, _LONGEST_S)
        assert near_has_it, f"blocked after {what}: {bench.names()}"
        assert not isinstance(far.look(), Taken), what
        if not fs.fault.killed:
            assert not _has_it(lease), what
            fs.fault = NO_FAULT
            with suppress(Fenced):
                assert not isinstance(lease.look(), Taken), what
        near.check()
        near.release()
        assert isinstance(far.look(), Taken), what
        assert [name for name in bench.names() if name.startswith("lease.own")] == [], what


@pytest.mark.parametrize(
    "scene", [_nothing, _released, _left, _claimed], ids=["nothing", "released", "left", "claimed"]
)
def test_who_comes_after_one_that_was_killed_on_the_same_machine_waits_for_nothing(
    tmp_path: Path, scene: Callable[[Bench], None]
) -> None:
    for bench, clock, fs, what in _turns(tmp_path / "state", scene, faults=_KILLED):
        with suppress(Killed):
            _live(bench.lease(_US, fs), clock)
        fs.bury()
        bench.dead.add(_US)
        assert isinstance(bench.lease(_BESIDE).look(), Taken), f"{what}: {bench.names()}"


def test_a_call_that_fails_once_costs_another_look_and_not_the_lease(tmp_path: Path) -> None:
    for bench, _, fs, what in _turns(tmp_path / "state", _left, faults=_ONCE):
        lease = bench.lease(_US, fs)
        assert any(isinstance(_look(lease), Taken) for _ in range(3)), what
        assert _has_it(lease) or _has_it(lease), what
        for step in (lease.beat, lease.release):
            with suppress(OSError):
                step()


def _look(lease: Lease) -> object:
    try:
        return lease.look()
    except OSError as error:
        return error


class _Lost(FileSystem):
    """An NFS server whose answers get lost: the call has happened, is asked again, and then fails."""

    def link(self, source: bytes, target: bytes, *, source_at: int, target_at: int) -> None:
        super().link(source, target, source_at=source_at, target_at=target_at)
        super().link(source, target, source_at=source_at, target_at=target_at)

    def rename(self, source: bytes, target: bytes, *, source_at: int, target_at: int) -> None:
        super().rename(source, target, source_at=source_at, target_at=target_at)
        super().rename(source, target, source_at=source_at, target_at=target_at)


def test_answers_that_get_lost_make_no_difference(tmp_path: Path) -> None:
    with closing(Bench(tmp_path, SetClock())) as bench:
        for generation in (1, 2):
            lease = bench.lease(SOMEBODY, _Lost())
            found = lease.look()
            assert isinstance(found, Taken)
            assert found.record.generation == generation
            lease.check()
        assert bench.names() == ["lease"]
