"""A Persist that is far away: 1.5 ms for every operation."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.mounts.diary import Diary
from tests.mounts.places import FusePlace
from tests.processes import wait_until

_LATENCY_S = 0.0015
_FILES = 10_000
_SAVED_WITHIN_S = 8.0


def _write_all(place: FusePlace, text: str) -> None:
    for number in range(_FILES):
        path = place.home / f"project{number % 100}" / f"module{number}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{text} {number}\n" * 20)


def _saved(place: FusePlace, text: str) -> int:
    found = place.mirror.glob("project*/module*.py")
    return sum(path.read_text() == f"{text} {path.stem[6:]}\n" * 20 for path in found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["new", "changed"])
def test_ten_thousand_dirty_files_are_safe_soon(
    sick: FusePlace, kind: str, record_property: Callable[[str, object], None]
) -> None:
    sick.settings = {"SIDECAR_QUIET": "300", "SIDECAR_MAX_DELAY": "600"}  # all of them wait until they are asked for
    if kind == "changed":
        _write_all(sick, "old")
    process = sick.start()
    assert sick.flush()["unsaved"] == 0
    with Diary(sick) as diary:
        sick.sickness.slow(_LATENCY_S)
        _write_all(sick, "new")
        started = time.monotonic()
        assert sick.flush()["unsaved"] == 0
        took_s = time.monotonic() - started
        diary.note(f"{_FILES} {kind} files safe after {took_s:.2f} s")
        record_property(f"{kind}_s", round(took_s, 2))
    sick.sickness.well()
    assert _saved(sick, "new") == _FILES
    assert sick.end(process) == 0
    assert took_s < _SAVED_WITHIN_S


def test_a_changed_file_is_safe_within_three_seconds_and_the_status_says_ok_or_slow(sick: FusePlace) -> None:
    (sick.home / "work.ipynb").write_text("old")
    sick.sickness.slow(_LATENCY_S)
    process = sick.start()
    with Diary(sick) as diary:
        diary.until(lambda status: status["pending"]["files"] == 0, "everything is safe", 10)
        (sick.home / "work.ipynb").write_text("new")
        saved = sick.mirror / "work.ipynb"
        wait_until(lambda: saved.exists() and saved.read_text() == "new", "the change is safe", 3)
        assert sick.status()["persist"]["state"] in ("ok", "slow")
    assert sick.end(process) == 0
