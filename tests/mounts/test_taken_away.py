"""A Persist that is unmounted under a running sidecar: said at once, and never a backup into the wrong place."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from sidecar.server import ask
from tests.mounts.diary import Diary
from tests.mounts.places import BoundPlace
from tests.processes import tree, wait_until

_SAID_WITHIN_S = 15.0
_SAFE_WITHIN_S = 20.0


def _saved(place: BoundPlace) -> dict[str, str]:
    return {path.name: path.read_text() for path in place.mirror.glob("*.ipynb")}


def _below(place: BoundPlace) -> Path:
    """What is at the mount point while nothing is mounted there."""
    return place.seen(place.below)


def test_it_is_missing_nothing_is_written_in_its_place_and_once_back_all_is_safe(bound: BoundPlace) -> None:
    (bound.home / "first.ipynb").write_text("first")
    process = bound.start()
    with Diary(bound) as diary:
        diary.until_all_is_safe(10)
        bound.take_away()
        (bound.home / "second.ipynb").write_text("second")
        diary.until_persist_is("missing", _SAID_WITHIN_S)
        (bound.home / "third.ipynb").write_text("third")
        diary.until(lambda status: status["pending"]["files"] > 0, "what changes now waits", 10)
        assert tree(_below(bound)) == {}, "something was written below the mount"
        bound.come_back()
        diary.until_all_is_safe(_SAFE_WITHIN_S)
    assert _saved(bound) == {"first.ipynb": "first", "second.ipynb": "second", "third.ipynb": "third"}
    assert bound.end(process) == 0
    bound.take_away()
    assert tree(_below(bound)) == {}


def test_it_is_missing_though_nobody_changes_anything(bound: BoundPlace) -> None:
    process = bound.start()
    with Diary(bound) as diary:
        diary.until_all_is_safe(10)
        bound.take_away()
        diary.until_persist_is("missing", _SAID_WITHIN_S)
        bound.come_back()
        diary.until_all_is_safe(_SAFE_WITHIN_S)
    assert bound.end(process) == 0


def test_an_end_meanwhile_claims_nothing_and_writes_nothing_in_its_place(bound: BoundPlace) -> None:
    (bound.home / "work.ipynb").write_text("old")
    process = bound.start("--grace", "6")
    with Diary(bound) as diary:
        diary.until_all_is_safe(10)
    bound.take_away()
    (bound.home / "work.ipynb").write_text("new")
    started = time.monotonic()
    assert bound.end(process) in (4, 5)
    assert time.monotonic() - started < 6
    assert "NOT SAVED" in bound.log.read_text()
    assert tree(_below(bound)) == {}
    refused = bound.run("run")
    assert (refused.returncode, "not mounted" in refused.stderr) == (4, True)
    bound.come_back()
    process = bound.start()
    with Diary(bound) as diary:
        diary.until_all_is_safe(_SAFE_WITHIN_S)
    assert _saved(bound) == {"work.ipynb": "new"}
    assert bound.end(process) == 0


def _engine_of(supervisor: int) -> int:
    return int(Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()[0])


def test_a_start_that_waits_never_uses_what_lies_below_the_mount_point(bound: BoundPlace) -> None:
    (bound.home / "first.ipynb").write_text("first")
    assert bound.end(bound.start()) == 0
    bound.inside("mount", "-o", "remount,bind,ro", bound.persist_inside)
    process = bound.start(state="degraded")
    bound.take_away()
    (bound.home / "second.ipynb").write_text("second")
    with Diary(bound) as diary:
        diary.until_persist_is("missing", _SAID_WITHIN_S)
        wait_until(lambda: "is not there" in bound.log.read_text(), "it has tried to open it again", 20)
        assert tree(_below(bound)) == {}, "something was written below the mount"
        bound.come_back()
        diary.until_all_is_safe(_SAFE_WITHIN_S)
    assert _saved(bound) == {"first.ipynb": "first", "second.ipynb": "second"}
    assert bound.end(process) == 0


def test_an_engine_that_is_killed_while_it_is_missing_is_started_again_and_waits(bound: BoundPlace) -> None:
    (bound.home / "first.ipynb").write_text("first")
    process = bound.start()
    with Diary(bound) as diary:
        diary.until_all_is_safe(10)
        bound.take_away()
        diary.until_persist_is("missing", _SAID_WITHIN_S)
        os.kill(_engine_of(process.pid), signal.SIGKILL)
        diary.until(lambda status: status["state"] != "degraded", "it is started again", 10)
        diary.until_persist_is("missing", _SAID_WITHIN_S)
        bound.come_back()
        diary.until_all_is_safe(_SAFE_WITHIN_S)
    assert bound.end(process) == 0


def test_another_file_system_in_its_place_gets_everything_before_success_is_claimed(bound: BoundPlace) -> None:
    (bound.home / "first.ipynb").write_text("first")
    process = bound.start()
    assert bound.flush()["complete"]
    for _ in range(3):
        bound.inside("mount", "-t", "tmpfs", "none", bound.persist_inside)
        reply = ask(bound.socket, {"op": "flush"}, 20.0)
        saved = bound.seen(bound.persist_inside) / "Backup" / "default" / "first.ipynb"
        assert reply is None or not reply["complete"] or reply["unsaved"] or saved.exists(), "success, and not there"
        wait_until(saved.exists, "it is saved there too")
    wait_until(lambda: bound.status()["state"] == "watching", "it watches")
    assert bound.end(process) == 0


def _bind_somebody_elses(place: BoundPlace) -> Path:
    """At Persist is a mount of one that says it is another owner's; where the test sees that one."""
    theirs = place.store / "theirs"
    (theirs / ".jupyterhub-sidecar").mkdir(parents=True)
    (theirs / ".jupyterhub-sidecar" / "format.json").write_text(json.dumps({"format": 1, "owner": "grace"}))
    place.inside("mount", "--bind", place.store_inside / "theirs", place.persist_inside)
    return theirs


def test_somebody_elses_persist_in_its_place_is_foreign_until_ours_is_back(bound: BoundPlace) -> None:
    bound.settings["SIDECAR_OWNER"] = "ada"
    (bound.home / "first.ipynb").write_text("first")
    process = bound.start()
    with Diary(bound) as diary:
        diary.until_all_is_safe(10)
        theirs = _bind_somebody_elses(bound)
        before = tree(theirs)
        (bound.home / "second.ipynb").write_text("second")
        diary.until_persist_is("foreign", _SAID_WITHIN_S)
        diary.until(lambda status: status["pending"]["files"] > 0, "what changes now waits", 10)
        assert tree(theirs) == before
        bound.take_away()
        diary.until_all_is_safe(_SAFE_WITHIN_S)
    assert _saved(bound) == {"first.ipynb": "first", "second.ipynb": "second"}
    assert bound.end(process) == 0


def test_an_end_while_it_is_somebody_elses_is_persist_not_usable(bound: BoundPlace) -> None:
    bound.settings["SIDECAR_OWNER"] = "ada"
    process = bound.start()
    with Diary(bound) as diary:
        diary.until_all_is_safe(10)
        theirs = _bind_somebody_elses(bound)
        before = tree(theirs)
        diary.until_persist_is("foreign", _SAID_WITHIN_S)
    assert bound.end(process) == 4
    assert tree(theirs) == before


_GONE_BETWEEN_TWO_LOOKS = """
import subprocess, sys
from pathlib import Path
from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.engine import Engine
from sidecar.fsops import FileSystem

home, persist = sys.argv[1:]
clock = Clock()
engine = Engine(FileSystem(), clock, Settings(home=home, persist=persist), wake=lambda: None)
engine.flush(catch_up_s=0, out_of_time=lambda: False)
subprocess.run(["umount", "--lazy", persist], check=True)
Path(home, "second.ipynb").write_text("second")
until_s = clock.monotonic() + 1
engine.flush(catch_up_s=0, out_of_time=lambda: clock.monotonic() > until_s)
print(engine.trouble.state, engine.close_books(late=False))
engine.close()
"""


def test_it_is_missing_though_nobody_has_said_so_when_it_is_looked_at(bound: BoundPlace) -> None:
    """The moment between the unmounting and the watchman's word for it."""
    (bound.home / "first.ipynb").write_text("first")
    said = bound.inside(sys.executable, "-c", _GONE_BETWEEN_TWO_LOOKS, bound.home, bound.persist_inside)
    assert said == "missing 4"
    assert tree(_below(bound)) == {}
