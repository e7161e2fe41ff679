"""The home goes on while something is being staged: what arrives late never stands where something newer is."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecar.engine import Engine
from sidecar.errors import EXIT_DEADLINE, EXIT_SAFE
from sidecar.fsops import FileSystem
from sidecar.saving.jobs import APART_BYTES
from tests.engines import differences, turn_until, watching_engine

DIRECTORIES, FILES = 6, 3000
STAGED = 200
"""So many files of the batch are staged already when the home goes on."""


def _fill(home: Path) -> None:
    for number in range(DIRECTORIES):
        (home / f"D{number}").mkdir()
    for number in range(FILES):
        (home / f"D{number % DIRECTORIES}" / f"f{number}").write_text(f"old {number}")


def _some(home: Path) -> list[Path]:
    return sorted(home.glob("D*/f*"))[::20]


def _rewrite(home: Path) -> None:
    for path in _some(home):
        path.write_text(f"new {path.name}")


def _delete(home: Path) -> None:
    for path in _some(home):
        path.unlink()


def _become_directories(home: Path) -> None:
    for path in _some(home):
        path.unlink()
        path.mkdir()
        (path / "inner").write_text(path.name)


def _become_files(home: Path) -> None:
    for path in home.glob("D*"):
        shutil.rmtree(path)
        path.write_text("a file now")


def _rename(home: Path) -> None:
    for path in home.glob("D*"):
        path.rename(home / path.name.replace("D", "E"))


def _check_out(home: Path) -> None:
    for path in home.glob("D*"):
        moved = path.rename(home / path.name.replace("D", "E"))
        path.mkdir()
        for file in list(moved.iterdir())[::10]:
            (path / file.name).write_text(f"of another branch: {file.name}")


CHANGES: list[Callable[[Path], None]] = [
    _rewrite,
    _delete,
    _become_directories,
    _become_files,
    _rename,
    _check_out,
]


@contextmanager
def _stopped_porter(engine: Engine) -> Iterator[None]:
    """In the middle of a batch, and for as long as this lasts, the second process does nothing."""
    turn_until(engine, lambda: len(engine.saver.porter), "a batch is under way")
    staging_fd = engine.store.place.staging_fd
    while len(os.listdir(staging_fd)) < STAGED:
        assert not engine.saver.porter.has_arrived
    pid = engine.saver.porter.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    assert not engine.saver.porter.has_arrived, "it was over before it could be stopped"
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _turn_for(engine: Engine, seconds: float) -> None:
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        engine.turn()
        time.sleep(0.01)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one processor there is no second process")
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
def test_a_batch_that_arrives_late_never_replaces_what_is_newer(tmp_path: Path, change: Callable[[Path], None]) -> None:
    with watching_engine(tmp_path, fill=_fill) as (engine, home, mirror):
        with _stopped_porter(engine):
            change(home)
            _turn_for(engine, 1.0)
        turn_until(engine, lambda: engine.status("watching").pending_files == 0, "all is safe")
        assert differences(home, mirror) == {}
        assert engine.drain(lambda: False) == EXIT_SAFE
        assert differences(home, mirror) == {}


class _SlowToHarden(FileSystem):
    """A Persist on which the sync of a large file takes its time."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def fsync(self, fd: int) -> None:
        if self.fstat(fd).st_size > APART_BYTES:
            self.begun.set()
            assert self.go_on.wait(20)
        super().fsync(fd)


def _shrink(large: Path) -> None:
    large.with_name("other").write_text("small")
    large.with_name("other").replace(large)


def _truncate(large: Path) -> None:
    large.write_text("small")


def _become_directory(large: Path) -> None:
    large.unlink()
    large.mkdir()
    (large / "inner").write_text("inner")


def _move_with_directory(large: Path) -> None:
    large.parent.rename(large.parent.with_name("moved"))
    large.parent.mkdir()
    large.write_text("small")


@pytest.mark.parametrize(
    "change",
    [_shrink, _truncate, _become_directory, _move_with_directory, Path.unlink],
    ids=lambda change: change.__name__.strip("_"),
)
def test_a_large_file_that_lands_late_never_replaces_what_is_newer(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    fs = _SlowToHarden()
    with watching_engine(tmp_path, fs) as (engine, home, mirror):
        large = home / "work" / "large.h5"
        large.parent.mkdir()
        large.write_bytes(bytes(APART_BYTES + 1))
        turn_until(engine, fs.begun.is_set, "it is being made durable")
        change(large)
        _turn_for(engine, 1.0)
        fs.go_on.set()
        turn_until(engine, lambda: engine.status("watching").pending_files == 0, "all is safe")
        assert differences(home, mirror) == {}
        assert engine.drain(lambda: False) == EXIT_SAFE
        assert differences(home, mirror) == {}


class _FullOnce(FileSystem):
    """One sync meets a full Persist; ``is_over`` from then on."""

    def __init__(self) -> None:
        self.is_armed = self.is_over = False

    def sync_file_system(self, fd: int) -> None:
        if self.is_armed:
            self.is_armed, self.is_over = False, True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().sync_file_system(fd)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one processor there is no second process")
def test_a_batch_that_is_cut_short_is_owed_still(tmp_path: Path) -> None:
    def fill(home: Path) -> None:
        for number in range(600):
            (home / f"f{number}.bin").write_bytes(bytes(100_000))

    fs = _FullOnce()
    with watching_engine(tmp_path, fs, fill) as (engine, _, mirror):
        turn_until(engine, lambda: len(engine.saver.porter), "a batch is under way")
        fs.is_armed = True
        assert engine.drain(lambda: fs.is_over) == EXIT_DEADLINE
        saved = sum(len(files) for _, _, files in os.walk(mirror))
        assert len(engine.unsaved()) == 600 - saved > 0


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one processor there is no second process")
def test_a_staging_directory_that_is_taken_away_costs_time_and_nothing_else(tmp_path: Path) -> None:
    with watching_engine(tmp_path, fill=_fill) as (engine, home, mirror):
        turn_until(engine, lambda: len(engine.saver.porter), "a batch is under way")
        (tmp_path / "persist" / ".jupyterhub-sidecar").rename(tmp_path / "away")
        assert engine.drain(lambda: False) == EXIT_SAFE
        assert differences(home, mirror) == {}


def test_rules_that_the_user_takes_back_at_the_last_moment_count(tmp_path: Path) -> None:
    def fill(home: Path) -> None:
        (home / ".persistignore").write_text("left/\n")
        (home / "left").mkdir()
        (home / "left" / "out.txt").write_text("left out")

    with watching_engine(tmp_path, fill=fill) as (engine, home, mirror):
        turn_until(engine, lambda: engine.status("watching").pending_files == 0, "all is safe")
        assert not (mirror / "left").exists()
        (home / ".persistignore").unlink()
        assert engine.drain(lambda: False) == EXIT_SAFE
        assert differences(home, mirror) == {}


def test_rules_that_the_user_takes_back_before_a_notice_count(tmp_path: Path) -> None:
    with watching_engine(tmp_path) as (engine, home, mirror):
        (home / ".persistignore").write_text("left/\n")
        (home / "left").mkdir()
        (home / "left" / "out.txt").write_text("left out")
        turn_until(engine, lambda: engine.status("watching").pending_files == 0, "all is safe")
        (home / ".persistignore").unlink()
        engine.finder.catch_up(1.0)
        engine.flush_now(lambda: False)
        assert engine.status("watching").pending_files > 0, "nobody has looked yet at what is not left out any more"
        turn_until(engine, lambda: engine.status("watching").pending_files == 0, "all is safe")
        assert differences(home, mirror) == {}
