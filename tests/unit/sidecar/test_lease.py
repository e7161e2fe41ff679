"""One holder at a time: how a lease is got, kept, lost and given back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.backup.lease import Held, Lease, Taken
from sidecar.backup.lease_record import IDLE_S, Damaged, Reason, Record, encode
from sidecar.errors import EXIT_PERSIST, Fenced, PersistForeign
from sidecar.fsops import FileSystem
from tests.unit.sidecar.leases import ELSEWHERE, SOMEBODY, Bench, beside
from tests.unit.sidecar.stores import SetClock


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def bench(tmp_path: Path, clock: SetClock) -> Iterator[Bench]:
    bench = Bench(tmp_path, clock)
    yield bench
    bench.close()


def _taken(lease: Lease) -> Taken:
    found = lease.look()
    assert isinstance(found, Taken), str(found)
    lease.check()
    return found


def _held(lease: Lease) -> Held:
    found = lease.look()
    assert isinstance(found, Held)
    return found


def _wait(lease: Lease, clock: SetClock, at_most_s: float) -> tuple[Taken, float]:
    """The lease is taken by looking every 2 s; after how long."""
    began_s = clock.passed_s
    while clock.passed_s <= began_s + at_most_s:
        found = lease.look()
        if isinstance(found, Taken):
            return found, clock.passed_s - began_s
        clock.passed_s += 2.0
    pytest.fail(f"not taken within {at_most_s} s")


def test_the_first_one_gets_it_at_once_and_a_second_one_hears_who_has_it(bench: Bench) -> None:
    lease = bench.lease(SOMEBODY)
    assert _taken(lease).reason is Reason.FREE
    held = _held(bench.lease(ELSEWHERE))
    assert isinstance(held.by, Record)
    assert held.by.holder == SOMEBODY
    assert str(held) == "process 7 on node-a, pod pod-a"
    assert bench.names() == ["lease"]
    lease.check()


def test_after_a_clean_end_the_next_one_gets_it_at_once(bench: Bench) -> None:
    first = bench.lease(SOMEBODY)
    _taken(first)
    first.release()
    found = _taken(bench.lease(ELSEWHERE))
    assert (found.record.generation, found.reason) == (2, Reason.RELEASED)
    for call in (first.check, first.beat, first.release):
        with pytest.raises(Fenced):
            call()


def test_a_release_that_failed_may_be_tried_again_and_nothing_else(bench: Bench) -> None:
    """It may have happened all the same."""

    class Failing(FileSystem):
        def fsync(self, fd: int) -> None:
            if self.armed:
                raise OSError(5, f"Input/output error: {fd}")

        armed = False

    fs = Failing()
    lease = bench.lease(SOMEBODY, fs)
    _taken(lease)
    fs.armed = True
    with pytest.raises(OSError, match="Input/output"):
        lease.release()
    for call in (lease.check, lease.beat):
        with pytest.raises(Fenced):
            call()
    fs.armed = False
    lease.release()
    assert bench.on_disk().released
    assert _taken(lease).record.generation == 2


def test_a_container_that_starts_again_in_the_same_pod_takes_over_from_itself(bench: Bench) -> None:
    before = bench.lease(SOMEBODY)
    _taken(before)
    again = replace(SOMEBODY, pid_namespace="4:9", started_ticks=900)
    assert _taken(bench.lease(again)).reason is Reason.OURS
    with pytest.raises(Fenced):
        before.check()


def test_on_one_machine_a_dead_process_is_followed_at_once_and_a_living_one_is_not(bench: Bench) -> None:
    first, second = beside(SOMEBODY, 7), beside(SOMEBODY, 8)
    _taken(bench.lease(first))
    newcomer = bench.lease(second)
    _held(newcomer)
    bench.dead.add(first)
    assert _taken(newcomer).reason is Reason.GONE


def test_the_same_process_takes_over_from_itself(bench: Bench) -> None:
    _taken(bench.lease(beside(SOMEBODY, 7)))
    assert _taken(bench.lease(beside(SOMEBODY, 7))).reason is Reason.OURS


def test_a_dead_process_of_another_namespace_is_waited_for(bench: Bench, clock: SetClock) -> None:
    his = replace(SOMEBODY, pod_uid="")
    _taken(bench.lease(his))
    bench.dead.add(his)
    found, waited_s = _wait(bench.lease(ELSEWHERE), clock, 30)
    assert (found.reason, found.record.generation) == (Reason.STILL, 2)
    assert 15 <= waited_s <= 18


def test_one_that_beats_keeps_its_lease_and_one_that_stops_loses_it_and_learns_it(
    bench: Bench, clock: SetClock
) -> None:
    holder, newcomer = bench.lease(SOMEBODY), bench.lease(ELSEWHERE)
    _taken(holder)
    for _ in range(60):
        holder.beat()
        for _ in range(3):
            _held(newcomer)
            clock.passed_s += 4.9  # nearly three of its intervals in all
    _, waited_s = _wait(newcomer, clock, 30)
    assert waited_s <= 18
    for call in (holder.check, holder.beat, holder.release, holder.look):
        with pytest.raises(Fenced, match="process 7 on node-b") as caught:
            call()
    assert caught.value.exit_code == EXIT_PERSIST
    assert bench.on_disk().holder == ELSEWHERE
    newcomer.check()


@pytest.mark.parametrize("call", ["check", "beat", "release", "look"])
def test_whatever_a_fenced_one_does_first_tells_it(bench: Bench, call: str) -> None:
    before = bench.lease(SOMEBODY)
    _taken(before)
    _taken(bench.lease(SOMEBODY))
    was = (bench.top / "lease").read_bytes()
    for _ in range(2):
        with pytest.raises(Fenced):
            getattr(before, call)()
    assert (bench.top / "lease").read_bytes() == was


def test_an_idle_one_has_three_minutes(bench: Bench, clock: SetClock) -> None:
    holder = bench.lease(SOMEBODY)
    _taken(holder)
    holder.beat(IDLE_S)
    _, waited_s = _wait(bench.lease(ELSEWHERE), clock, 200)
    assert 180 <= waited_s <= 184


def test_a_persist_that_hung_for_everybody_fences_nobody(bench: Bench, clock: SetClock) -> None:
    """Between two looks of ours an hour went by in which the holder could not beat either."""
    holder, newcomer = bench.lease(SOMEBODY), bench.lease(ELSEWHERE)
    _taken(holder)
    _held(newcomer)
    clock.passed_s += 3600
    assert _held(newcomer).stood_still_s == 5.0
    holder.beat()
    assert _held(newcomer).stood_still_s == 0.0


class _Slow(FileSystem):
    """Every read takes 20 s, and what it says was true at their end."""

    def __init__(self, clock: SetClock) -> None:
        self._clock = clock

    def read(self, fd: int, count: int) -> bytes:
        self._clock.passed_s += 20
        return super().read(fd, count)


def test_the_time_that_a_look_takes_is_no_time_in_which_nothing_happened(bench: Bench, clock: SetClock) -> None:
    _taken(bench.lease(SOMEBODY))
    newcomer = bench.lease(ELSEWHERE, _Slow(clock))
    for _ in range(5):
        assert _held(newcomer).stood_still_s == 0.0


@pytest.mark.parametrize("damage", [b"", b"\0" * 1024, b'{"format": 1, "beat": 5'])
def test_a_damaged_lease_is_held_by_nobody_known_for_three_minutes(
    bench: Bench, clock: SetClock, damage: bytes
) -> None:
    (bench.top / "lease").write_bytes(damage)
    newcomer = bench.lease(SOMEBODY)
    held = _held(newcomer)
    assert held.by == Damaged()
    assert "nobody known" in str(held)
    _, waited_s = _wait(newcomer, clock, 200)
    assert 180 <= waited_s <= 184
    newcomer.check()


def test_a_damaged_lease_that_changes_is_somebodys(bench: Bench, clock: SetClock) -> None:
    newcomer = bench.lease(SOMEBODY)
    for number in range(200):
        (bench.top / "lease").write_bytes(b"?" * number)
        _held(newcomer)
        clock.passed_s += 2.0


def test_a_lease_of_a_later_version_is_left_alone(bench: Bench) -> None:
    (bench.top / "lease").write_bytes(b'{"format": 2}')
    with pytest.raises(PersistForeign):
        bench.lease(SOMEBODY).look()
    assert (bench.top / "lease").read_bytes() == b'{"format": 2}'


def test_a_later_version_that_took_over_fences(bench: Bench) -> None:
    lease = bench.lease(SOMEBODY)
    _taken(lease)
    (bench.top / "lease").write_bytes(b'{"format": 2}')
    with pytest.raises(Fenced, match="later version"):
        lease.check()


def test_a_lease_of_ours_that_is_missing_is_an_error_until_it_is_taken_again(bench: Bench) -> None:
    lease = bench.lease(SOMEBODY)
    _taken(lease)
    (bench.top / "lease").unlink()
    for call in (lease.check, lease.beat, lease.check):
        with pytest.raises(FileNotFoundError):
            call()
    assert _taken(lease).record.generation == 2


def test_a_lease_of_ours_that_is_missing_may_be_taken_by_another(bench: Bench) -> None:
    lease = bench.lease(SOMEBODY)
    _taken(lease)
    (bench.top / "lease").unlink()
    _taken(bench.lease(ELSEWHERE))
    with pytest.raises(Fenced):
        lease.check()


def test_one_whose_lease_is_missing_and_a_newcomer_do_not_both_get_it(bench: Bench) -> None:
    """They look at the same moment, and the one who had it knows of a later generation than the other."""
    newcomer = bench.lease(ELSEWHERE)

    class Between(FileSystem):
        armed = False

        def rename(self, source: bytes, target: bytes, *, source_at: int, target_at: int) -> None:
            if self.armed:
                _held(newcomer)
            super().rename(source, target, source_at=source_at, target_at=target_at)

    fs = Between()
    before = bench.lease(SOMEBODY, fs)
    for generation in (1, 2, 3):
        assert _taken(before).record.generation == generation
        (bench.top / "lease").unlink()
    fs.armed = True
    assert _taken(before).record.generation == 4
    assert isinstance(_held(newcomer).by, Record)


def test_a_lease_of_ours_that_is_damaged_is_neither_ours_nor_lost(bench: Bench, clock: SetClock) -> None:
    lease = bench.lease(SOMEBODY)
    _taken(lease)
    good = (bench.top / "lease").read_bytes()
    for damage in (b"", good[:500], b"?" * len(good)):
        (bench.top / "lease").write_bytes(damage)
        for call in (lease.check, lease.beat):
            with pytest.raises(OSError, match="cannot be read"):
                call()
        assert (bench.top / "lease").read_bytes() == damage
    (bench.top / "lease").write_bytes(good)
    lease.check()
    (bench.top / "lease").write_bytes(b"")
    found, _ = _wait(lease, clock, 200)
    assert found.record.generation == 2


def test_looking_again_changes_nothing(bench: Bench) -> None:
    lease = bench.lease(SOMEBODY)
    _taken(lease)
    was = (bench.top / "lease").read_bytes()
    assert _taken(lease).record.generation == 1
    assert (bench.top / "lease").read_bytes() == was


def test_who_never_got_it_has_nothing_to_check(bench: Bench) -> None:
    _taken(bench.lease(SOMEBODY))
    newcomer = bench.lease(ELSEWHERE)
    _held(newcomer)
    for call in (newcomer.check, newcomer.beat, newcomer.release):
        with pytest.raises(Fenced):
            call()
    _held(newcomer)


def test_a_beat_in_a_file_that_is_not_the_lease_any_more_changes_nothing(bench: Bench) -> None:
    """The holder is stopped between its look and its write, and the lease is taken over meanwhile."""

    class Stopped(FileSystem):
        def write(self, fd: int, data: bytes | memoryview) -> int:
            if self.armed:
                _taken(bench.lease(SOMEBODY))
            return super().write(fd, data)

        armed = False

    fs = Stopped()
    lease = bench.lease(SOMEBODY, fs)
    _taken(lease)
    fs.armed = True
    lease.beat(IDLE_S)
    assert (bench.on_disk().generation, bench.on_disk().beat, bench.on_disk().interval_s) == (2, 0, 5.0)
    with pytest.raises(Fenced):
        lease.check()


def test_of_two_who_see_an_old_listing_of_the_directory_one_gets_it(bench: Bench) -> None:
    """As an NFS client may show it: then the claim alone keeps them apart."""

    class Old(FileSystem):
        def names(self, fd: int) -> list[bytes]:
            return super().names(fd)[:0]

    class Late(Old):
        failed = False

        def rename(self, source: bytes, target: bytes, *, source_at: int, target_at: int) -> None:
            if not self.failed:
                self.failed = True
                raise OSError(5, "Input/output error")
            super().rename(source, target, source_at=source_at, target_at=target_at)

    class Overtaken(Old):
        def link(self, source: bytes, target: bytes, *, source_at: int, target_at: int) -> None:
            with pytest.raises(OSError, match="Input/output"):
                first.look()  # it has the claim, and goes on later
            super().link(source, target, source_at=source_at, target_at=target_at)

    first, newcomer = bench.lease(SOMEBODY, Late()), bench.lease(ELSEWHERE, Overtaken())
    _held(newcomer)
    _taken(first)
    _held(newcomer)


class _NoLinks(FileSystem):
    def link(self, source: bytes, target: bytes, *, source_at: int, target_at: int) -> None:
        raise PermissionError(1, f"Operation not permitted: {source!r} to {target!r} ({source_at}, {target_at})")


def test_a_file_system_without_hard_links_will_do(bench: Bench) -> None:
    first = bench.lease(SOMEBODY, _NoLinks())
    assert _taken(first).record.generation == 1
    first.release()
    assert _taken(bench.lease(ELSEWHERE, _NoLinks())).record.generation == 2
    assert bench.names() == ["lease"]


def test_the_claim_of_a_newcomer_who_died_is_followed(bench: Bench, clock: SetClock) -> None:
    """It is judged as a lease is: at once where its process is known to be gone, else after its time."""
    dead = beside(SOMEBODY, 9)
    (bench.top / "lease.claim-1").write_bytes(encode(Record(generation=1, token="0" * 16, holder=dead)))
    (bench.top / "lease.own-0000000000000000").touch()
    far, near = bench.lease(ELSEWHERE), bench.lease(beside(SOMEBODY, 8))
    _held(far)
    _held(near)
    bench.dead.add(dead)
    assert _taken(near).record.generation == 2
    near.release()
    assert bench.names() == ["lease"]
    (bench.top / "lease.claim-3").write_bytes(encode(Record(generation=3, token="1" * 16, holder=dead)))
    found, waited_s = _wait(far, clock, 30)
    assert found.record.generation == 4
    assert 15 <= waited_s <= 18
    assert bench.names() == ["lease"]


def test_a_claim_that_was_cut_short_is_followed_after_three_minutes(bench: Bench, clock: SetClock) -> None:
    (bench.top / "lease.claim-1").touch()
    found, waited_s = _wait(bench.lease(SOMEBODY), clock, 200)
    assert found.record.generation == 2
    assert waited_s >= 180


def test_a_claim_on_a_lease_whose_holder_came_back_is_used_when_he_is_gone(bench: Bench, clock: SetClock) -> None:
    holder = bench.lease(SOMEBODY)
    _taken(holder)

    class Revived(FileSystem):
        alive = True

        def names(self, fd: int) -> list[bytes]:
            if self.alive:
                holder.beat()
            return super().names(fd)

    fs = Revived()
    newcomer = bench.lease(ELSEWHERE, fs)
    for _ in range(9):
        _held(newcomer)
        clock.passed_s += 2.0
    holder.check()
    assert bench.names()[:2] == ["lease", "lease.claim-2"]
    holder.release()
    fs.alive = False
    assert _taken(newcomer).record.generation == 2
    assert bench.names() == ["lease"]


# What it costs.


class _Counting(FileSystem):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def open(self, name: bytes, flags: int, mode: int = 0o600, *, at: int | None = None) -> int:
        self.calls.append("open")
        return super().open(name, flags, mode, at=at)

    def read(self, fd: int, count: int) -> bytes:
        self.calls.append("read")
        return super().read(fd, count)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self.calls.append("write")
        return super().write(fd, data)

    def close(self, fd: int) -> None:
        self.calls.append("close")
        super().close(fd)

    def fsync(self, fd: int) -> None:
        self.calls.append("fsync")
        super().fsync(fd)


def test_a_check_is_three_calls_and_a_beat_is_four(bench: Bench) -> None:
    fs = _Counting()
    lease = bench.lease(SOMEBODY, fs)
    _taken(lease)
    fs.calls.clear()
    lease.check()
    assert fs.calls == ["open", "read", "close"]
    fs.calls.clear()
    lease.beat(IDLE_S)
    assert fs.calls == ["open", "read", "write", "close"]
    assert (bench.on_disk().beat, bench.on_disk().interval_s) == (1, IDLE_S)


def test_a_look_at_a_lease_that_is_held_opens_one_file(bench: Bench) -> None:
    _taken(bench.lease(SOMEBODY))
    fs = _Counting()
    _held(bench.lease(ELSEWHERE, fs))
    assert fs.calls.count("open") == 1
    assert "write" not in fs.calls


def test_every_descriptor_is_closed(bench: Bench) -> None:
    before = os.listdir("/proc/self/fd")
    lease = bench.lease(SOMEBODY)
    _taken(lease)
    lease.beat()
    _held(bench.lease(ELSEWHERE))
    lease.release()
    assert os.listdir("/proc/self/fd") == before
