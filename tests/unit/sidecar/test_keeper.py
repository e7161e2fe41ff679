"""Earlier contents stay under the retention rule, however they became earlier ones, and make room where it lacks."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sidecar.backup.retention import LADDER, expired
from sidecar.backup.store import Store
from sidecar.backup.versions import parse_name
from sidecar.fsops import DestinationError, FileSystem
from tests.unit.sidecar.stores import STATE, SetClock, opened_store, save

_MINUTE_S = 60


def _versions(persist: Path, path: str) -> list[str]:
    """The contents of the versions of ``path``, the oldest first."""
    return [each.read_text() for each in sorted((persist / STATE / "versions" / path).iterdir())]


def _check_rule(persist: Path, path: str, clock: SetClock, *, slack: int) -> None:
    """No more than ``slack`` of the versions of ``path`` are such as the rule lets go."""
    names = [os.fsencode(each) for each in os.listdir(persist / STATE / "versions" / path)]
    spans = [span for name in names if (span := parse_name(name)) is not None]
    assert len(expired(spans, clock.now_ns(), LADDER)) <= slack


def _live(store: Store, clock: SetClock, rounds: int, *, deleting: bool, first: int = 0) -> None:
    """The file is saved again and again, half a minute apart."""
    for number in range(first, first + rounds):
        clock.passed_s += _MINUTE_S / 2
        save(store, {b"d/file": b"%d" % number, b"else": b"%d" % number}, clock)
        if deleting:
            store.remove([b"d/file"])
            store.place.end_batch()


@pytest.mark.parametrize("deleting", [False, True], ids=["replaced", "deleted"])
def test_the_versions_of_a_file_are_thinned_while_it_changes(tmp_path: Path, deleting: bool) -> None:
    clock = SetClock()
    with opened_store(tmp_path, clock) as store:
        _live(store, clock, 200, deleting=deleting)
        kept = _versions(tmp_path, "d/file")
        _check_rule(tmp_path, "d/file", clock, slack=16)
    assert len(kept) < 120
    assert kept[-1] == ("199" if deleting else "198"), "the newest stays"


@pytest.mark.parametrize("deleting", [False, True], ids=["replaced", "deleted"])
def test_sessions_in_which_a_file_changes_only_once_are_no_way_around_the_rule(tmp_path: Path, deleting: bool) -> None:
    clock = SetClock()
    for session in range(60):
        with opened_store(tmp_path, clock) as store:
            _live(store, clock, 1, deleting=deleting, first=session)
    _check_rule(tmp_path, "d/file", clock, slack=1)
    assert len(_versions(tmp_path, "d/file")) < 50


@pytest.mark.parametrize(("days", "stays"), [(1, False), (2, True)])
def test_versions_older_than_the_setting_says_go_when_the_file_changes_again(
    tmp_path: Path, days: int, stays: bool
) -> None:
    clock = SetClock()
    with opened_store(tmp_path, clock, retention_days=days) as store:
        _live(store, clock, 33, deleting=False)
        clock.passed_s += 25 * 60 * _MINUTE_S
        _live(store, clock, 33, deleting=False, first=33)
    assert bool({str(number) for number in range(32)} & set(_versions(tmp_path, "d/file"))) is stays


class _Small(FileSystem):
    """Takes no more names among the versions of one path than ``room``."""

    def __init__(self) -> None:
        self.room = 1000

    def _check(self, target_at: int) -> None:
        where = os.readlink(f"/proc/self/fd/{target_at}")
        if where.endswith("/versions/d/file") and len(os.listdir(target_at)) >= self.room:
            raise OSError(errno.ENOSPC, "No space left on device")

    def link(self, source: bytes, target: bytes, *, source_at: int, target_at: int) -> None:
        self._check(target_at)
        super().link(source, target, source_at=source_at, target_at=target_at)

    def rename(self, source: bytes, target: bytes, *, source_at: int, target_at: int) -> None:
        self._check(target_at)
        super().rename(source, target, source_at=source_at, target_at=target_at)


@pytest.mark.parametrize("deleting", [False, True], ids=["replaced", "deleted"])
def test_on_a_full_persist_the_versions_of_one_minute_make_room_for_a_new_one(tmp_path: Path, deleting: bool) -> None:
    fs, clock = _Small(), SetClock()
    with opened_store(tmp_path, clock, fs) as store:
        for number in range(10):
            clock.passed_s += 1
            save(store, {b"d/file": b"%d" % number}, clock)
        assert len(_versions(tmp_path, "d/file")) == 9
        fs.room = 9
        clock.passed_s += 1
        if deleting:
            store.remove([b"d/file"])
        else:
            save(store, {b"d/file": b"last"}, clock)
    assert _versions(tmp_path, "d/file") == ["7", "8", "9"], "the newest, the one before it, and the new one"


def test_where_the_newest_version_takes_the_last_room_it_stays_and_nothing_is_replaced(tmp_path: Path) -> None:
    fs, clock = _Small(), SetClock()
    with opened_store(tmp_path, clock, fs) as store:
        save(store, {b"d/file": b"one"}, clock)
        save(store, {b"d/file": b"two"}, clock)
        fs.room = 1
        with pytest.raises(DestinationError, match="No space"):
            save(store, {b"d/file": b"three"}, clock)
        assert _versions(tmp_path, "d/file") == ["one"]
        assert (tmp_path / "Backup/default/d/file").read_text() == "two"
