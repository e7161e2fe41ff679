"""Single moments that a random kill meets once in a thousand times."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from sidecar.archive import Archive
from sidecar.config import Settings
from sidecar.engine import Engine
from sidecar.fsops import FileSystem
from tests.faults.faulty import Killed, SwiftClock


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    for name in ("home", "persist"):
        (tmp_path / name).mkdir()
    return Settings(home=str(tmp_path / "home"), persist=str(tmp_path / "persist"), require_mount=False)


def _save(settings: Settings, fs: FileSystem) -> None:
    engine = Engine(fs, SwiftClock(), settings, wake=lambda: None)
    try:
        engine.flush(catch_up_s=0, out_of_time=lambda: False)
    finally:
        engine.close()


def _new_home(settings: Settings, tmp_path: Path) -> Path:
    os.rename(settings.home, tmp_path / "lost")
    os.mkdir(settings.home)
    return Path(settings.home)


class _NoNames(FileSystem):
    """The home's directory is gone in the moment a file gets its name there."""

    def link_unnamed(self, fd: int, name: bytes, *, at: int) -> None:  # noqa: ARG002  the call's signature
        raise FileNotFoundError(2, "No such file or directory")


def test_a_name_that_the_home_cannot_give_takes_nothing_out_of_the_mirror(settings: Settings, tmp_path: Path) -> None:
    Path(settings.home, "work.txt").write_text("work")
    _save(settings, FileSystem())
    _new_home(settings, tmp_path)
    engine = Engine(_NoNames(), SwiftClock(), settings, wake=lambda: None)
    engine.recover(lambda: False, lambda _done, _total: None)
    assert list(engine.recovery.failed) == [b"work.txt"]
    engine.close()
    assert Path(settings.persist, "Backup", "default", "work.txt").read_text() == "work"


class _QuickUser(FileSystem):
    """Somebody writes to a file in the moment it is back."""

    def link_unnamed(self, fd: int, name: bytes, *, at: int) -> None:
        super().link_unnamed(fd, name, at=at)
        Path(f"/proc/self/fd/{at}", os.fsdecode(name)).write_text("the user was quicker")


def test_a_change_in_the_moment_a_file_comes_back_is_saved(settings: Settings, tmp_path: Path) -> None:
    Path(settings.home, "work.txt").write_text("work")
    _save(settings, FileSystem())
    home = _new_home(settings, tmp_path)
    engine = Engine(_QuickUser(), SwiftClock(), settings, wake=lambda: None)
    engine.recover(lambda: False, lambda _done, _total: None)
    engine.flush(catch_up_s=0, out_of_time=lambda: False)
    engine.close()
    assert (home / "work.txt").read_text() == "the user was quicker"
    assert Path(settings.persist, "Backup", "default", "work.txt").read_text() == "the user was quicker"


class _KilledBeforeTheJournal(FileSystem):
    """Dies when the new content stands in the mirror and the journal does not know it yet."""

    placed = False

    def rename(self, source: bytes, target: bytes, *, source_at: int, target_at: int) -> None:
        super().rename(source, target, source_at=source_at, target_at=target_at)
        self.placed = True

    def truncate(self, fd: int, size: int) -> None:
        if self.placed:
            raise Killed
        super().truncate(fd, size)


def test_after_a_kill_before_the_journal_no_time_shows_a_content_from_later(settings: Settings) -> None:
    path = Path(settings.home, "work.txt")
    contents = []
    for number, fs in enumerate([FileSystem(), _KilledBeforeTheJournal(), FileSystem()]):
        path.write_text(f"content {number}")
        contents.append((path.stat().st_ctime_ns, path.read_bytes()))
        with pytest.raises(Killed) if number == 1 else nullcontext():
            _save(settings, fs)
    archive = Archive(FileSystem(), SwiftClock(), settings)
    for since_ns, content in contents:
        (wanted,) = archive.wanted(b"work.txt", since_ns + 1000)  # stored times are rounded to the microsecond
        assert Path(settings.persist, os.fsdecode(wanted.directory), os.fsdecode(wanted.name)).read_bytes() == content
    archive.close()


def test_a_directory_that_comes_back_after_half_a_removal_is_in_the_mirror(settings: Settings) -> None:
    class FailsOnce(FileSystem):
        armed = False

        def rmdir(self, name: bytes, *, at: int) -> None:
            super().rmdir(name, at=at)
            self.armed = True

        def fsync(self, fd: int) -> None:  # noqa: ARG002  the call's signature
            if self.armed:
                self.armed = False
                raise OSError(5, "Input/output error")

    directory = Path(settings.home, "empty")
    directory.mkdir()
    clock = SwiftClock()
    engine = Engine(FailsOnce(), clock, settings, wake=lambda: None)
    engine.flush(catch_up_s=0, out_of_time=lambda: False)
    directory.rmdir()
    engine.finder.scan()
    clock.sleep(10)
    engine.turn()
    assert engine.trouble
    directory.mkdir()
    clock.sleep(100)
    engine.flush(catch_up_s=0, out_of_time=lambda: False)
    engine.close()
    assert Path(settings.persist, "Backup", "default", "empty").is_dir()
