"""What is gone leaves the backup, a mass of it only when somebody says so; and what was moved is not gone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sidecar.backup.store import Store
from sidecar.saving.removal import Removal
from tests.unit.sidecar.stores import SetClock, opened_store, save


@dataclass
class _Home:
    """A home of which only the names are known, and its backup."""

    clock: SetClock
    store: Store
    names: set[bytes] = field(default_factory=set)
    looks: int = 0
    inode: int = 1

    def __post_init__(self) -> None:
        self.removal = Removal(self.clock, self.store, is_gone=self._is_gone, on_removed=lambda _path, _was: None)

    def _is_gone(self, path: bytes) -> bool:
        self.looks += 1
        return path not in self.names

    def make(self, *paths: bytes, inode: int | None = None) -> None:
        """New files, which are saved; the first one with ``inode``."""
        self.names.update(paths)
        first = self.inode if inode is None else inode
        save(self.store, {path: b"content of " + path for path in paths}, self.clock, first)
        self.inode += len(paths)

    def delete(self, *paths: bytes) -> None:
        self.names.difference_update(paths)
        self.remove(*paths)

    def remove(self, *paths: bytes) -> None:
        """A step of the saver, in which ``paths`` are said to be gone."""
        self.removal.remove(dict.fromkeys(paths))

    def in_backup(self, *paths: bytes) -> bool:
        return all(self.store.index.get(path) is not None for path in paths)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[_Home]:
    clock = SetClock()
    with opened_store(tmp_path / "persist", clock) as store:
        yield _Home(clock, store)


_FILES = [b"f%d" % number for number in range(20)]


def test_a_mass_stays_until_it_is_accepted(home: _Home) -> None:
    home.make(*_FILES)
    home.remove()
    home.delete(*_FILES[:11])
    assert home.removal.braked == set(_FILES[:11])
    assert home.in_backup(*_FILES)
    home.clock.passed_s += 1000
    home.remove()
    assert home.in_backup(*_FILES), "time is no consent"
    home.removal.accept()
    assert home.removal.braked == set()
    assert not any(home.in_backup(path) for path in _FILES[:11])


def test_what_was_made_since_does_not_make_a_mass_smaller(home: _Home) -> None:
    home.make(*_FILES)
    home.remove()
    home.make(*(path + b".locked" for path in _FILES))
    home.delete(*_FILES)
    assert home.removal.braked == set(_FILES)
    home.make(*(b"more%d" % number for number in range(100)))
    home.clock.passed_s += 1000
    home.remove()
    assert home.in_backup(*_FILES)


def test_files_that_got_the_inodes_of_deleted_ones_do_not_hide_that_those_are_deleted(home: _Home) -> None:
    home.make(*_FILES)
    home.remove()
    home.clock.passed_s += 1
    for inode, path in enumerate(_FILES, 1):
        home.make(path + b".locked", inode=inode)
    home.delete(*_FILES)
    assert home.removal.braked == set(_FILES)


def test_files_under_another_name_are_no_deletions(home: _Home) -> None:
    home.make(*_FILES)
    home.remove()
    entries = {path: home.store.index.get(path) for path in _FILES}
    home.names = {b"moved/" + path for path in _FILES}
    home.store.record((b"moved/" + path, entry) for path, entry in entries.items() if entry is not None)
    home.remove(*_FILES)
    assert home.removal.braked == set()
    assert not any(home.in_backup(path) for path in _FILES)


def test_under_the_brake_another_change_costs_no_look_at_all_that_is_braked(home: _Home) -> None:
    home.make(*_FILES)
    home.remove()
    home.delete(*_FILES)
    home.looks = 0
    for number in range(50):
        home.make(b"work%d" % number)
        home.remove()
    assert home.looks == 0
    home.clock.passed_s += 11
    home.remove()
    assert home.looks == len(_FILES)


def test_what_is_deleted_under_the_brake_waits_too(home: _Home) -> None:
    home.make(*_FILES)
    home.remove()
    home.delete(*_FILES[:11])
    home.delete(_FILES[12])
    assert home.removal.braked == {*_FILES[:11], _FILES[12]}
    assert home.in_backup(_FILES[12])


def test_what_comes_back_releases_the_brake_at_once(home: _Home) -> None:
    home.make(*_FILES)
    home.remove()
    home.delete(*_FILES)
    home.make(*_FILES[:10])
    home.remove()
    assert home.removal.braked == set()
    assert home.in_backup(*_FILES[:10])
    assert not any(home.in_backup(path) for path in _FILES[10:])


def test_a_file_made_and_deleted_over_and_over_pulls_no_brake(home: _Home) -> None:
    home.make(*_FILES[:10])
    home.remove()
    for _ in range(30):
        home.make(b"temporary")
        home.remove()
        home.delete(b"temporary")
        assert home.removal.braked == set()
        home.clock.passed_s += 1
