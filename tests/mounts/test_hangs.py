"""A Persist that does not answer: the status does, the end comes in time, and when it answers again nothing is lost."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.mounts.diary import Diary
from tests.mounts.fuse import ALL
from tests.mounts.places import FusePlace
from tests.processes import wait_until

_ANSWERED_WITHIN_S = 2.0
_SAID_WITHIN_S = 15.0
_SAFE_WITHIN_S = 10.0
_GRACE_S = 6.0

HANGS = [
    pytest.param(ALL, id="whatever is asked"),
    pytest.param(["fsync"], id="fsync only"),
    pytest.param(["write"], id="write only", marks=pytest.mark.slow),
    pytest.param(["rename"], id="rename only", marks=pytest.mark.slow),
]


def _ask_until_hung(place: FusePlace) -> None:
    """Every answer of ``sidecar status`` came in time, and one of them named the trouble in time."""
    give_up_at = time.monotonic() + _SAID_WITHIN_S
    while True:
        asked = time.monotonic()
        status = place.run_json("status", "--json")
        assert time.monotonic() - asked < _ANSWERED_WITHIN_S
        if (status["state"], status["persist"]["state"]) == ("degraded", "hung"):
            return
        assert asked < give_up_at, f"not hung within {_SAID_WITHIN_S} s: {json.dumps(status)}"


def _work(place: FusePlace, text: str) -> dict[str, str]:
    wanted = {f"notebook{number}.ipynb": text for number in range(20)}
    for name, content in wanted.items():
        (place.home / name).write_text(content)
    return wanted


def _saved(place: FusePlace) -> dict[str, str]:
    return {path.name: path.read_text() for path in place.mirror.glob("*.ipynb")}


def _hung(place: FusePlace, diary: Diary, operations: Sequence[str]) -> None:
    diary.until_all_is_safe(20)
    place.sickness.hang(operations)
    _work(place, "new")


@pytest.mark.parametrize("operations", HANGS)
def test_the_status_answers_all_the_time_says_hung_and_everything_is_safe_once_it_is_over(
    sick: FusePlace, operations: Sequence[str]
) -> None:
    _work(sick, "old")
    process = sick.start()
    with Diary(sick) as diary:
        _hung(sick, diary, operations)
        _ask_until_hung(sick)
        (sick.home / "meanwhile.ipynb").write_text("meanwhile")
        diary.until(lambda status: status["pending"]["files"] >= 20, "what waits is pending", 5)
        assert set(_saved(sick).values()) <= {"old", "new"}, "torn"
        sick.sickness.well()
        diary.until_all_is_safe(_SAFE_WITHIN_S)
    assert _saved(sick) == {**_work(sick, "new"), "meanwhile.ipynb": "meanwhile"}
    assert sick.end(process) == 0


@pytest.mark.parametrize("operations", HANGS)
@pytest.mark.parametrize("after", ["at once", pytest.param("when it is known", marks=pytest.mark.slow)])
def test_the_end_comes_in_time_and_what_was_not_saved_is_listed_once_persist_is_back(
    sick: FusePlace, operations: Sequence[str], after: str
) -> None:
    _work(sick, "old")
    process = sick.start("--grace", str(_GRACE_S))
    with Diary(sick) as diary:
        _hung(sick, diary, operations)
        if after == "at once":
            diary.until(lambda status: status["pending"]["files"] > 0, "the changes are seen", 5)
        else:
            diary.until_persist_is("hung", _SAID_WITHIN_S)
        started = time.monotonic()
        process.terminate()
        code = process.wait(_GRACE_S)
        diary.note(f"ended with {code} after {time.monotonic() - started:.2f} s")
    assert code in (4, 5)
    assert "NOT SAVED" in sick.log.read_text()
    sick.sickness.well()
    left_behind = sick.persist / ".jupyterhub-sidecar" / "default" / "left-behind.json"
    wait_until(left_behind.exists, "what was left behind is listed", 10)
    wait_until(lambda: not sick.processes(), "nothing of it runs any more", 10)
    listed = {item["path"] for item in json.loads(left_behind.read_text())["files"]}
    assert listed >= {name for name, text in _saved(sick).items() if text == "old"}
    process = sick.start()
    with Diary(sick) as diary:
        diary.until_all_is_safe(_SAFE_WITHIN_S)
    assert set(_saved(sick).values()) == {"new"}
    assert sick.end(process) == 0


def test_a_start_on_a_persist_that_hangs_is_degraded_and_works_once_it_answers(sick: FusePlace) -> None:
    wanted = _work(sick, "first")
    sick.sickness.hang(ALL)
    process = sick.spawn(sick.command("run"))
    with Diary(sick) as diary:
        _ask_until_hung(sick)
        assert process.poll() is None
        sick.sickness.well()
        diary.until_all_is_safe(_SAFE_WITHIN_S)
        assert _saved(sick) == wanted
        (sick.home / "later.ipynb").write_text("later")
        wait_until((sick.mirror / "later.ipynb").exists, "it works as ever", 5)
    assert sick.end(process) == 0


def test_a_start_on_a_persist_that_hangs_brings_the_work_back_once_it_answers(sick: FusePlace) -> None:
    wanted = _work(sick, "saved")
    assert sick.end(sick.start()) == 0
    sick.new_home()
    sick.sickness.hang(ALL)
    process = sick.spawn(sick.command("run"))
    with Diary(sick) as diary:
        _ask_until_hung(sick)
        (sick.home / "notebook0.ipynb").write_text("begun meanwhile")
        sick.sickness.well()
        diary.until_all_is_safe(_SAFE_WITHIN_S)
    assert {path.name: path.read_text() for path in sick.home.glob("*.ipynb")} == {
        **wanted,
        "notebook0.ipynb": "begun meanwhile",
    }
    assert sick.end(process) == 0


def test_an_end_before_persist_ever_answered_comes_in_time(sick: FusePlace) -> None:
    _work(sick, "never saved")
    sick.sickness.hang(ALL)
    process = sick.spawn(sick.command("run", "--grace", str(_GRACE_S)))
    wait_until(lambda: sick.status()["state"] != "stopped", "it has started")
    process.terminate()
    assert process.wait(_GRACE_S) in (4, 5)
    sick.sickness.well()
    wait_until(lambda: not sick.processes(), "nothing of it runs any more", 10)


def test_a_second_sigterm_while_it_hangs_ends_it_at_once(sick: FusePlace) -> None:
    _work(sick, "old")
    process = sick.start("--grace", "60")
    with Diary(sick) as diary:
        _hung(sick, diary, ALL)
        diary.until_persist_is("hung", _SAID_WITHIN_S)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):  # it may know that waiting helps nobody
        process.wait(0.5)
    process.terminate()
    assert process.wait(3) in (4, 5)


def test_a_share_that_hangs_is_said_and_costs_nobody_anything(sick: FusePlace, tmp_path: Path) -> None:
    persist = tmp_path / "other persist"
    persist.mkdir()
    sick.inside("mount", "-t", "tmpfs", "none", persist)
    # What is sick here is not Persist, but a share.
    share, sick.persist_inside = sick.persist_inside, persist
    sick.settings = {"SIDECAR_SHARED": f"{share.name}=rw", "SIDECAR_SHARED_ROOT": str(share.parent)}
    sick.sickness.hang(ALL)
    process = sick.start()
    wait_until(lambda: [each["state"] for each in sick.status()["shared"]] == ["hung"], "the share hangs", 10)
    (sick.home / "work.ipynb").write_text("saved all the same")
    reply = sick.flush()
    assert (reply["unsaved"], reply["persist"]) == (0, "ok")
    sick.sickness.well()
    wait_until(lambda: [each["state"] for each in sick.status()["shared"]] == ["ok"], "it answers after all", 10)
    assert sick.end(process) == 0
