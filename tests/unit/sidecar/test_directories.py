"""However many directories are worked on, only so many are open at once, and each is what its path says."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.backup.directories import Directories, most_open
from sidecar.entry import parent
from sidecar.fsops import FileSystem, Tree


@pytest.fixture
def few() -> Iterator[int]:
    """A process that may have few descriptors; how many directories that allows."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    yield most_open()
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_the_more_descriptors_the_more_directories_within_bounds(few: int) -> None:
    assert few == 64
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    assert most_open() == 16
    if hard > 65_536:
        resource.setrlimit(resource.RLIMIT_NOFILE, (65_536, hard))
        assert most_open() == 4096


def test_all_of_a_part_can_be_open_at_once_and_no_more_than_the_bound(tmp_path: Path, few: int) -> None:
    paths = [b"d%d/f%d" % (number, count) for number in range(100) for count in range(3)]
    for path in paths:
        for tree in ("mirror", "versions"):
            (tmp_path / tree / os.fsdecode(parent(path))).mkdir(parents=True, exist_ok=True)
    before = _descriptors()
    with Directories.at(FileSystem(), str(tmp_path)) as root:
        seen = []
        for part in root.parts(paths, parent):
            opened = [(tree + parent(path), root) for path in part for tree in (b"mirror/", b"versions/")]
            descriptors = {where: tree.directory(where) for where, tree in opened}
            for where, fd in descriptors.items():
                assert os.fstat(fd).st_ino == (tmp_path / os.fsdecode(where)).stat().st_ino
            assert _descriptors() - before <= few
            seen += part
        assert seen == paths
    assert _descriptors() == before


def test_what_fits_stays_open_from_one_time_to_the_next(tmp_path: Path, few: int) -> None:
    paths = [b"d%d/f" % number for number in range(few // 4)]
    for path in paths:
        (tmp_path / os.fsdecode(parent(path))).mkdir()
    with Directories.at(FileSystem(), str(tmp_path)) as root:
        first = [[root.directory(parent(path)) for path in part] for part in root.parts(paths, parent)]
        again = [[root.directory(parent(path)) for path in part] for part in root.parts(paths, parent)]
        assert len(first) == 1
        assert again == first


class _Listening(FileSystem):
    """Keeps the names that were opened."""

    def __init__(self) -> None:
        self.opened: list[bytes] = []

    def open(self, name: bytes, flags: int, mode: int = 0o600, *, at: int | None = None) -> int:
        self.opened.append(name)
        return super().open(name, flags, mode, at=at)


def test_directories_side_by_side_cost_what_is_above_them_once(tmp_path: Path) -> None:
    names = [b"d%d" % number for number in range(50)]
    for name in names:
        (tmp_path / "a/b" / os.fsdecode(name)).mkdir(parents=True)
    fs = _Listening()
    with Tree.at(fs, str(tmp_path)) as tree:
        fs.opened.clear()
        for name in names:
            tree.directory(b"a/b/" + name)
        tree.directory(b"a")
        assert fs.opened == [b"a", b"b", *names]


def test_however_deep_a_directory_lies_few_are_open_for_it(tmp_path: Path) -> None:
    deep = b"/".join([b"d"] * 100)
    (tmp_path / os.fsdecode(deep)).mkdir(parents=True)
    before = _descriptors()
    with Tree.at(FileSystem(), str(tmp_path)) as tree:
        assert os.fstat(tree.directory(deep)).st_ino == (tmp_path / os.fsdecode(deep)).stat().st_ino
        assert _descriptors() - before <= 10
        tree.forget(deep)
        assert _descriptors() - before == 1
    assert _descriptors() == before


def test_once_forgotten_a_directory_is_looked_for_where_its_path_leads_now(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    with Tree.at(FileSystem(), str(tmp_path)) as tree:
        tree.directory(b"a/b")
        tree.forget(b"a/b")
        (tmp_path / "a").rename(tmp_path / "moved")
        (tmp_path / "a/b").mkdir(parents=True)
        assert os.fstat(tree.directory(b"a/b")).st_ino == (tmp_path / "a/b").stat().st_ino
