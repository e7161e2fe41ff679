"""When a lease may be taken, for every lease there can be; and that its text is read as it was written."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.backup.holder import Holder
from sidecar.backup.lease_record import (
    HEAD_BYTES,
    IDLE_S,
    RECORD_BYTES,
    WORKING_S,
    Damaged,
    Reason,
    Record,
    decode,
    encode,
    head,
    may_take,
    tail,
)
from sidecar.backup.rhythm import Rhythm
from sidecar.errors import PersistForeign
from tests.unit.sidecar.leases import ELSEWHERE, SOMEBODY

_few = st.sampled_from(["", "a", "b"])
_holders = st.builds(
    Holder,
    pod_uid=_few,
    boot_id=_few,
    pid_namespace=_few,
    pid=st.integers(1, 2),
    started_ticks=st.integers(0, 1),
    host=st.just("node"),
)
_records = st.builds(
    Record,
    generation=st.integers(1, 3),
    token=st.just("0123456789abcdef"),
    holder=_holders,
    beat=st.integers(0, 2**60),
    interval_s=st.sampled_from([1.0, WORKING_S, IDLE_S]),
    released=st.booleans(),
)
_still = st.floats(0, 400) | st.sampled_from([15.0, 180.0])


@given(_records, _holders, _still, st.booleans())
def test_a_lease_is_taken_from_ourselves_from_one_who_ended_and_from_one_who_stands_still(
    lease: Record, ours: Holder, still_s: float, is_gone: bool
) -> None:
    his = lease.holder
    one_namespace = "" not in (his.boot_id, his.pid_namespace) and (his.boot_id, his.pid_namespace) == (
        ours.boot_id,
        ours.pid_namespace,
    )
    same_process = one_namespace and (his.pid, his.started_ticks) == (ours.pid, ours.started_ticks)
    expected = (
        lease.released
        or (his.pod_uid != "" and his.pod_uid == ours.pod_uid)
        or same_process
        or (one_namespace and is_gone)
        or still_s >= 3 * lease.interval_s
    )
    assert (may_take(lease, ours, still_s, process_is_gone=is_gone) is not None) == expected


@given(_holders, _still, st.booleans())
def test_what_cannot_be_read_is_taken_after_three_minutes_and_what_is_not_there_at_once(
    ours: Holder, still_s: float, is_gone: bool
) -> None:
    assert (may_take(Damaged(), ours, still_s, process_is_gone=is_gone) is not None) == (still_s >= 180)
    assert may_take(None, ours, still_s, process_is_gone=is_gone) is Reason.FREE


@pytest.mark.parametrize("other", [{"boot_id": "x"}, {"pid_namespace": "4:2"}, {"boot_id": ""}, {"pid_namespace": ""}])
def test_the_same_pid_of_another_namespace_proves_nothing(other: dict[str, str]) -> None:
    """That no process here has his pid says nothing, and that one has it does not make it us."""
    his = replace(SOMEBODY, pod_uid="", **other)  # type: ignore[arg-type]  # texts only
    ours = replace(his, boot_id=SOMEBODY.boot_id, pid_namespace=SOMEBODY.pid_namespace)
    lease = Record(generation=1, token="0" * 16, holder=his)
    for is_gone in (False, True):
        assert may_take(lease, ours, 14.9, process_is_gone=is_gone) is None


@given(
    st.builds(
        Record,
        generation=st.integers(1, 2**63),
        token=st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
        holder=st.builds(
            Holder,
            pod_uid=st.text("abc.-9", max_size=64),
            boot_id=st.just("a8d7bf4f-1b26-4a1f-8d2b-000000000000"),
            pid_namespace=st.just(f"{2**32}:{2**32}"),
            pid=st.integers(1, 2**22),
            started_ticks=st.integers(0, 2**64),
            host=st.text(st.characters(codec=None), max_size=64),
        ),
        beat=st.integers(0, 10**20 - 1),
        interval_s=st.sampled_from([1.0, 2.5, WORKING_S, IDLE_S, 600.0]),
        released=st.booleans(),
    )
)
def test_a_record_is_read_as_it_was_written_and_has_always_the_same_size(record: Record) -> None:
    data = encode(record)
    assert decode(data) == record
    assert len(data) == RECORD_BYTES
    assert data[HEAD_BYTES:] == tail(record)
    assert len(head(record.beat, record.interval_s, released=record.released)) == HEAD_BYTES


def test_an_endless_host_name_is_cut() -> None:
    record = Record(generation=1, token="0" * 16, holder=replace(SOMEBODY, host="\udcff" * 300))
    assert len(encode(record)) == RECORD_BYTES
    assert not isinstance(decode(encode(record)), Damaged)


_GOOD = json.loads(encode(Record(generation=1, token="0" * 16, holder=SOMEBODY)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"token": "../../../etc/abc"},
        {"token": 5},
        {"generation": 0},
        {"generation": "1"},
        {"pid": 0},
        {"pid": -1},
        {"pid": True},
        {"interval_s": 0},
        {"interval_s": float("nan")},
        {"interval_s": float("inf")},
        {"interval_s": 1e9},
        {"interval_s": None},
        {"host": None},
        {"format": "1"},
    ],
)
def test_a_lease_that_we_would_not_write_is_damaged(wrong: dict[str, object]) -> None:
    assert isinstance(decode(json.dumps(_GOOD).encode().ljust(RECORD_BYTES)), Record)
    assert decode(json.dumps({**_GOOD, **wrong}).encode().ljust(RECORD_BYTES)) == Damaged()


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[]", b"{}", b"null", b"[" * 4000, b'{"format": 1'])
def test_what_is_no_record_is_damaged(data: bytes) -> None:
    assert decode(data) == Damaged()


def test_a_truncated_record_is_damaged() -> None:
    data = encode(Record(generation=1, token="0" * 16, holder=SOMEBODY))
    assert all(decode(data[:size]) == Damaged() for size in range(len(data)))


def test_a_later_format_is_not_ours_to_judge() -> None:
    with pytest.raises(PersistForeign, match="later version"):
        decode(b'{"format": 2, "holder": {}}')


@given(st.integers(0, 10**20 - 2), st.booleans(), st.integers(0, HEAD_BYTES))
def test_a_beat_that_is_half_written_is_still_a_lease_of_the_same_holder(beat: int, idle: bool, written: int) -> None:
    record = Record(generation=3, token="0" * 16, holder=ELSEWHERE)
    old, new = (WORKING_S, IDLE_S) if idle else (IDLE_S, WORKING_S)
    torn = head(beat + 1, new, released=False)[:written] + head(beat, old, released=False)[written:]
    found = decode(torn + tail(record))
    assert isinstance(found, Record)
    assert (found.generation, found.token, found.holder, found.released) == (3, "0" * 16, ELSEWHERE, False)


# The rhythm of the beats.


def _beats(work: list[tuple[float, float]], until_s: float) -> list[tuple[float, float]]:
    """When a holder beats, and what each beat states, who has work in the spans ``work``."""
    rhythm, now_s, found = Rhythm(0.0), 0.0, [(0.0, WORKING_S)]
    while now_s < until_s:
        since = next((start for start, end in work if start <= now_s < end), None)
        if rhythm.due_s(since) <= now_s:
            found.append((now_s, rhythm.interval_s(since)))
            rhythm.beaten(now_s, rhythm.interval_s(since))
        now_s += 0.5
    return found


def test_an_idle_sidecar_beats_once_a_minute() -> None:
    assert _beats([], 600) == [(0, 5), (5, 60), *((5 + 60 * minute, 60) for minute in range(1, 10))]


def test_one_that_works_beats_every_five_seconds() -> None:
    assert _beats([(0, 60)], 60) == [(5 * number, 5) for number in range(12)]


def test_a_short_burst_costs_no_beat() -> None:
    assert _beats([(20, 23), (40, 44)], 66) == [(0, 5), (5, 60), (65, 60)]


def test_long_work_is_stated_and_the_longer_interval_is_stated_before_it_is_used() -> None:
    assert _beats([(20, 33)], 100) == [(0, 5), (5, 60), (25, 5), (30, 5), (35, 60), (95, 60)]


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), max_size=8))
def test_the_next_beat_is_never_later_than_the_last_one_stated(bursts: list[tuple[int, int]]) -> None:
    found = _beats([(start, start + length) for start, length in bursts], 400)
    assert all(later - at <= stated for (at, stated), (later, _) in itertools.pairwise(found))
