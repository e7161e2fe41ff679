"""A Persist that becomes read-only while a sidecar runs, as an ext4 does at its first error."""

from __future__ import annotations

import time

from tests.mounts.diary import Diary
from tests.mounts.places import BoundPlace, BreakingPlace
from tests.processes import wait_until


def test_a_file_system_that_broke_is_said_and_the_end_is_in_time_and_no_success(breaking: BreakingPlace) -> None:
    (breaking.home / "work.ipynb").write_text("old")
    process = breaking.start("--grace", "6")
    with Diary(breaking) as diary:
        diary.until_all_is_safe(10)
        breaking.break_it()
        (breaking.home / "work.ipynb").write_text("new")
        diary.until_persist_is("read-only", 10)
        started = time.monotonic()
        assert breaking.end(process) in (3, 4, 5)
        assert time.monotonic() - started < 6
    assert "NOT SAVED" in breaking.log.read_text()
    assert (breaking.mirror / "work.ipynb").read_text() == "old"

    process = breaking.start(state="degraded")
    with Diary(breaking) as diary:
        diary.until_persist_is("read-only", 10)
    assert breaking.end(process) == 4
    breaking.repair()
    process = breaking.start()
    with Diary(breaking) as diary:
        diary.until_all_is_safe(10)
    assert (breaking.mirror / "work.ipynb").read_text() == "new"
    assert breaking.end(process) == 0


def test_what_the_user_did_while_nothing_could_be_written_is_what_counts(bound: BoundPlace) -> None:
    for name in ("kept", "deleted", "edited", "moved"):
        (bound.home / name).write_text(name)
    (bound.home / "directory").mkdir()
    (bound.home / "directory" / "x").write_text("x")
    (bound.home / "link").symlink_to("kept")
    process = bound.start()
    assert bound.flush()["complete"]
    assert bound.end(process) == 0
    bound.new_home()
    bound.inside("mount", "-o", "remount,bind,ro", bound.persist_inside)
    process = bound.start(state="degraded")
    wait_until(lambda: (bound.home / "link").is_symlink() and (bound.home / "directory" / "x").exists(), "all is back")
    wait_until(lambda: bound.status()["pending"]["files"] >= 5, "what nobody knows to be safe is pending")
    (bound.home / "deleted").unlink()
    (bound.home / "edited").write_text("edited anew")
    (bound.home / "moved").rename(bound.home / "moved here")
    (bound.home / "link").unlink()
    (bound.home / "directory" / "x").unlink()
    (bound.home / "directory").rmdir()
    (bound.home / "directory").write_text("now a file")
    bound.inside("mount", "-o", "remount,bind,rw", bound.persist_inside)
    with Diary(bound) as diary:
        diary.until_all_is_safe(40)
    assert bound.end(process) == 0
    expected = {"kept": "kept", "edited": "edited anew", "moved here": "moved", "directory": "now a file"}
    for top in (bound.home, bound.mirror):
        assert {path.name: path.read_text() for path in top.iterdir() if path.name != "Save"} == expected
