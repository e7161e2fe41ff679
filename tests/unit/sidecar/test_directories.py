"""However many directories are worked on, only so many are open at once, and each is what its path says."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.backup.directories import Directories, most_open
from sidecar.entry import parent
from sidecar.fsops import FileSystem


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
    assert few == 32
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
