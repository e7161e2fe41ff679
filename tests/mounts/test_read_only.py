"""A Persist that becomes read-only while a sidecar runs, as an ext4 does at its first error."""

from __future__ import annotations

import time

from tests.mounts.diary import Diary
from tests.mounts.places import BreakingPlace


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
