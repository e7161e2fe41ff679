"""What a Persist that hangs leaves running when a sidecar is over: in nobody's way, and never above who comes next."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mounts.diary import Diary
from tests.mounts.fuse import ALL
from tests.mounts.places import FusePlace
from tests.processes import Place, wait_until


@contextmanager
def _another_pod(sick: FusePlace, top: Path) -> Iterator[Place]:
    """With a home and a mount of its own of the same directory, which does not hang."""
    top.mkdir()
    with Place(top) as other:
        sick.inside("mount", "--bind", sick.store_inside / "user", other.persist)
        other.persist_inside, other.persist = other.persist, sick.store / "user"
        other.prefix, other.require_mount = sick.prefix, True
        other.settings = {"SIDECAR_POD_UID": "pod-b"}
        yield other


def _engine_of(supervisor: int) -> int:
    return int(Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()[0])


def _ended_while_it_hung(sick: FusePlace, operations: list[str]) -> None:
    (sick.home / "a.txt").write_text("a")
    process = sick.start("--grace", "6")
    with Diary(sick) as diary:
        diary.until_all_is_safe(10)
        sick.sickness.hang(operations)
        (sick.home / "b.txt").write_text("b")
        diary.until(lambda status: status["pending"]["files"] > 0, "it is seen", 10)
    assert sick.end(process) in (4, 5)


def test_the_next_start_beside_it_is_degraded_and_works_once_persist_answers(sick: FusePlace) -> None:
    _ended_while_it_hung(sick, [*ALL])
    assert sick.processes(), "nothing is left that could be in the way"
    assert sick.run_json("status", "--json")["state"] == "stopped"
    process = sick.spawn(sick.command("run"))
    with Diary(sick) as diary:
        diary.until_persist_is("hung", 20)
        sick.sickness.well()
        diary.until_all_is_safe(30)
    assert (sick.mirror / "b.txt").read_text() == "b"
    assert sick.end(process) == 0


@pytest.mark.slow
def test_it_does_not_keep_the_lease_from_the_next_pod(sick: FusePlace, tmp_path: Path) -> None:
    sick.settings = {"SIDECAR_POD_UID": "pod-a"}
    _ended_while_it_hung(sick, ["fsync"])
    with _another_pod(sick, tmp_path / "b") as other:
        other.spawn(other.command("run"))
        wait_until(lambda: other.status()["state"] == "watching", "it has the lease", 60)
        sick.sickness.well()


@pytest.mark.slow
def test_what_wakes_up_in_the_middle_of_a_removal_takes_nothing_of_its_successor(
    sick: FusePlace, tmp_path: Path
) -> None:
    sick.settings = {"SIDECAR_POD_UID": "pod-a"}
    for number in range(8):
        (sick.home / f"kept{number}").write_text("kept")
    (sick.home / "x").write_text("old")
    process = sick.start()
    with Diary(sick) as diary:
        diary.until_all_is_safe(10)
        sick.sickness.hang(ALL)
        (sick.home / "x").unlink()
        diary.until(lambda status: status["persist"]["state"] == "hung", "it hangs", 20)
    with _another_pod(sick, tmp_path / "b") as other:
        successor = other.spawn(other.command("run"))
        wait_until(lambda: other.status()["state"] == "watching", "it has the lease", 100)
        (other.home / "x").write_text("of the successor")
        assert other.flush()["complete"]
        sick.sickness.well()
        wait_until(lambda: sick.status()["persist"]["state"] == "fenced", "it has learned it", 20)
        assert other.run("backup").returncode == 0
        assert (other.mirror / "x").read_text() == "of the successor"
        assert other.end(successor) == 0
    assert sick.end(process) == 4


def test_an_engine_that_was_killed_while_it_hung_is_left_behind_and_the_status_goes_on(sick: FusePlace) -> None:
    (sick.home / "a.txt").write_text("a")
    process = sick.start()
    with Diary(sick) as diary:
        diary.until_all_is_safe(10)
        sick.sickness.hang(ALL)
        (sick.home / "b.txt").write_text("b")
        diary.until_persist_is("hung", 20)
        os.kill(_engine_of(process.pid), signal.SIGKILL)
        diary.until(lambda status: status["state"] != "degraded", "there is no engine", 10)
        diary.until_persist_is("hung", 30)
        sick.sickness.well()
        diary.until_all_is_safe(40)
    assert (sick.mirror / "b.txt").read_text() == "b"
    assert sick.end(process) == 0
