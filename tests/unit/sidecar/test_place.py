"""What stands on Persist where ours is to be never keeps a sidecar from starting, and is never destroyed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.backup import journal, left_behind, moves
from sidecar.fsops import FileSystem
from tests.unit.sidecar.stores import STATE, SetClock, opened_store, save


def _link(path: Path) -> None:
    (path.parent / "elsewhere").write_bytes(b"of somebody else")
    path.symlink_to("elsewhere")


def _directory(path: Path) -> None:
    (path / "inner").mkdir(parents=True)


def _begin(persist: Path) -> None:
    with opened_store(persist, SetClock()) as store:
        save(store, {b"d/file": b"content"}, SetClock())


@pytest.mark.parametrize("plant", [_link, _directory, os.mkfifo], ids=["a link", "a directory", "a FIFO"])
@pytest.mark.parametrize("suffix", [b"", b".new"], ids=["itself", "the one that is written"])
@pytest.mark.parametrize("name", [journal.NAME, moves.NAME, left_behind.NAME], ids=os.fsdecode)
def test_what_stands_where_one_of_our_files_is_to_be_is_moved_aside(
    tmp_path: Path, name: bytes, suffix: bytes, plant: Callable[[Path], None]
) -> None:
    _begin(tmp_path)
    place = tmp_path / STATE / os.fsdecode(name + suffix)
    place.unlink(missing_ok=True)
    plant(place)
    was = place.lstat().st_ino
    with opened_store(tmp_path, SetClock()) as store:
        assert store.index.get(b"d/file") is not None
        save(store, {b"d/other": b"more"}, SetClock())
        left_behind.write(FileSystem(), store.place.state_fd, {"files": []})
    assert [each.lstat().st_ino for each in (tmp_path / STATE / "aside").iterdir()] == [was]
    with opened_store(tmp_path, SetClock()) as store:
        assert store.index.get(b"d/other") is not None
    elsewhere = tmp_path / STATE / "elsewhere"
    assert not elsewhere.exists() or elsewhere.read_bytes() == b"of somebody else"


def test_a_directory_among_what_is_staged_is_moved_aside_and_the_rest_is_swept(tmp_path: Path) -> None:
    _begin(tmp_path)
    staging = tmp_path / STATE / "staging"
    for number in range(5):
        (staging / f"1{number}").touch()
        (staging / f"2{number}" / "inner").mkdir(parents=True)
    _begin(tmp_path)
    assert list(staging.iterdir()) == []
    assert len(list((tmp_path / STATE / "aside").glob("*/inner"))) == 5


class _Stubborn(FileSystem):
    """Has a file that nobody can remove, as one with the immutable flag."""

    def unlink(self, name: bytes, *, at: int) -> None:
        if name == b"stays":
            raise PermissionError(1, "Operation not permitted")
        super().unlink(name, at=at)

    def rename(self, source: bytes, target: bytes, *, source_at: int, target_at: int) -> None:
        if source == b"stays":
            raise PermissionError(1, "Operation not permitted")
        super().rename(source, target, source_at=source_at, target_at=target_at)


def test_one_name_that_cannot_be_swept_keeps_neither_the_others_nor_us(tmp_path: Path) -> None:
    _begin(tmp_path)
    staging = tmp_path / STATE / "staging"
    for name in ("before", "stays", "zz after"):
        (staging / name).touch()
    with opened_store(tmp_path, SetClock(), _Stubborn()) as store:
        assert store.index.get(b"d/file") is not None
    assert [each.name for each in staging.iterdir()] == ["stays"]
