"""Persist takes some things and not others: the rest goes on, and what did not fit is tried again to the very end."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.config import Settings
from sidecar.engine import Engine
from sidecar.errors import EXIT_SAFE, EXIT_UNSAVED
from sidecar.fsops import FileSystem
from tests.faults.faulty import SwiftClock


class _NoRoomFor(FileSystem):
    """Has no room for directories, and for names in directories, that ``refused`` mentions."""

    def __init__(self) -> None:
        self.refused: set[bytes] = set()

    def _check(self, name: bytes) -> None:
        if name in self.refused:
            raise OSError(errno.ENOSPC, "No space left on device")

    def mkdir(self, name: bytes, mode: int, *, at: int) -> None:
        self._check(name)
        super().mkdir(name, mode, at=at)

    def rename(self, source: bytes, target: bytes, *, source_at: int, target_at: int) -> None:
        self._check(target)
        super().rename(source, target, source_at=source_at, target_at=target_at)


@pytest.fixture
def fs() -> _NoRoomFor:
    return _NoRoomFor()


@pytest.fixture
def clock() -> SwiftClock:
    return SwiftClock()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return tmp_path / "persist" / "Backup" / "default"


@pytest.fixture
def engine(tmp_path: Path, home: Path, fs: _NoRoomFor, clock: SwiftClock) -> Iterator[Engine]:
    (tmp_path / "persist").mkdir()
    settings = Settings(home=str(home), persist=str(tmp_path / "persist"), require_mount=False)
    engine = Engine(fs, clock, settings, wake=lambda: None)
    yield engine
    engine.close()


@pytest.mark.parametrize("refused", ["new-directory", "replaced.txt"])
def test_what_does_not_fit_costs_nobody_else_anything(
    engine: Engine, fs: _NoRoomFor, home: Path, mirror: Path, refused: str
) -> None:
    (home / "replaced.txt").write_text("old")
    engine.flush(catch_up_s=0, out_of_time=lambda: False)
    (home / "replaced.txt").write_text("longer than before")
    for directory in ("new-directory", "another"):
        (home / directory).mkdir()
        (home / directory / "file.txt").write_text("file")
    for number in range(60):
        (home / f"f{number}").write_text("x")
    fs.refused = {refused.encode()}
    engine.flush(catch_up_s=0, out_of_time=lambda: False)
    assert {path.partition(b"/")[0] for path in engine.unsaved()} == {refused.encode()}
    assert engine.close_books(late=False) == EXIT_UNSAVED
    assert sum(1 for path in mirror.glob("f*")) == 60
    assert (mirror / "another" / "file.txt").read_text() == "file"
    assert (mirror / "replaced.txt").read_text() == ("old" if refused == "replaced.txt" else "longer than before")
    staging = mirror.parent.parent / ".jupyterhub-sidecar" / "default" / "staging"
    assert list(staging.iterdir()) == [], "what did not fit takes up room all the same"


def test_what_did_not_fit_before_is_tried_once_more_at_the_end(
    engine: Engine, fs: _NoRoomFor, clock: SwiftClock, home: Path, mirror: Path
) -> None:
    fs.refused = {b"work.txt"}
    (home / "work.txt").write_text("work")
    engine.flush(catch_up_s=0, out_of_time=lambda: False)
    engine.turn()
    assert not (mirror / "work.txt").exists()
    fs.refused = set()
    assert engine.drain(lambda: clock.monotonic() > 100) == EXIT_SAFE
    assert (mirror / "work.txt").read_text() == "work"
