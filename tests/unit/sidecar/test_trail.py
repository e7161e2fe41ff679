"""A walk is one step from one directory to the next, has few of them open, and watches what is to be saved."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.entry import ancestors
from sidecar.fsops import FileSystem, Tree
from sidecar.home.scan import Scanner
from sidecar.home.trail import Trail, walk_names
from sidecar.home.watch import Watch, What


class _Counting(FileSystem):
    def __init__(self) -> None:
        self.opened = 0

    def open(self, name: bytes, flags: int, mode: int = 0o600, *, at: int | None = None) -> int:
        self.opened += 1
        return super().open(name, flags, mode, at=at)


class _Deaf:
    """Hears nothing: only the watches count here."""

    def changed(self, path: bytes, what: What) -> None:
        pass

    def moved(self, old: bytes, new: bytes) -> None:
        pass

    def overflowed(self) -> None:
        pass


@pytest.fixture
def fs() -> _Counting:
    return _Counting()


@pytest.fixture
def home(tmp_path: Path, fs: _Counting) -> Iterator[Tree]:
    with Tree.at(fs, str(tmp_path)) as tree:
        yield tree


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _same(fd: int, path: Path) -> bool:
    return os.fstat(fd).st_ino == path.stat().st_ino


def test_each_directory_is_one_step_away_and_only_the_way_to_it_is_open(
    tmp_path: Path, fs: _Counting, home: Tree
) -> None:
    walked = [b""]
    for top in (b"a", b"b"):
        walked += [top, *(top + b"/%d" % number for number in range(9)), top + b"/8/deep", top + b"/8/deep/deeper"]
    for path in walked:
        (tmp_path / os.fsdecode(path)).mkdir(exist_ok=True)
    before, fs.opened = _descriptors(), 0
    trail = Trail(home)
    for path in walked:
        assert _same(trail.step(path), tmp_path / os.fsdecode(path))
        assert _descriptors() - before == (len(ancestors(path)) + 1 if path else 0)
    assert fs.opened == len(walked) - 1
    trail.end()
    assert _descriptors() == before


def test_however_deep_it_leads_few_are_open(tmp_path: Path, home: Tree) -> None:
    path, deep = b"", tmp_path
    trail, before = Trail(home), _descriptors()
    for number in range(200):
        path, deep = path + b"/%d" % number if path else b"0", deep / str(number)
        deep.mkdir()
        assert _same(trail.step(path), deep)
        assert _descriptors() - before <= 80
    trail.end()
    assert _descriptors() == before


def test_what_somebody_else_closed_on_the_way_is_opened_again(tmp_path: Path, home: Tree) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    before, trail = _descriptors(), Trail(home)
    trail.step(b"a")
    trail.step(b"a/b")
    home.forget()
    assert _same(trail.step(b"a/b/c"), tmp_path / "a/b/c")
    trail.end()
    assert _descriptors() == before


def test_what_is_to_be_saved_is_watched_and_its_files_are_counted(tmp_path: Path, fs: _Counting, home: Tree) -> None:
    for directory in ("work/data", "work/empty", "cache/inside", ".cache/inside", "Persist/inside"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "cache/CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
    for name in ("one", "work/data/two", "work/data/three", "work/data/x.pyc", ".cache/four"):
        (tmp_path / name).touch()
    (tmp_path / "work/link").symlink_to("data")
    watch, trail = Watch(_Deaf()), Trail(home)
    try:
        files = walk_names(Scanner(fs, home, frozenset({b"Persist"}), 1 << 30), trail, watch)
        assert files == {b"": 1, b"work": 1, b"work/data": 2}
        watched = {b"", b"work", b"work/data", b"work/empty"}
        assert watch.watches == len(watched)
        assert all(map(watch.is_on, watched))
    finally:
        watch.close()
