"""A Persist that answers with errors for a while: the status names them, and afterwards all is safe by itself."""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence

import pytest

from tests.mounts.diary import Diary
from tests.mounts.fuse import ALL, WRITING
from tests.mounts.places import FusePlace

_SAID_WITHIN_S = 10.0
_SAFE_WITHIN_S = 15.0

TROUBLES = [
    pytest.param(errno.ESTALE, ALL, "stale", id="the server has forgotten everything"),
    pytest.param(errno.EROFS, WRITING, "read-only", id="the server lets nobody write"),
    pytest.param(errno.ENOSPC, ["fsync", "write"], "full", id="no space"),
    pytest.param(errno.ENOSPC, ["fsync"], "full", id="no space, told at fsync"),
    pytest.param(errno.EDQUOT, ["fsync"], "full", id="over the quota, told at fsync"),
]


def _change(place: FusePlace, text: str) -> dict[str, str]:
    wanted = {f"d{number % 3}/f{number}.py": text for number in range(30)}
    for name, content in wanted.items():
        (place.home / name).parent.mkdir(exist_ok=True)
        (place.home / name).write_text(content)
    return wanted


def _saved(place: FusePlace) -> dict[str, str]:
    found = place.mirror.glob("d*/*")
    return {str(path.relative_to(place.mirror)): path.read_text() for path in found}


@pytest.mark.parametrize(("error", "operations", "state"), TROUBLES)
def test_the_status_names_the_trouble_and_afterwards_everything_is_safe_by_itself(
    sick: FusePlace, error: int, operations: Sequence[str], state: str
) -> None:
    _change(sick, "old")
    process = sick.start()
    with Diary(sick) as diary:
        diary.until_all_is_safe(_SAFE_WITHIN_S)
        sick.sickness.fail(error, operations)
        wanted = _change(sick, "new")
        diary.until_persist_is(state, _SAID_WITHIN_S)
        assert sick.status()["pending"]["files"] > 0
        assert set(_saved(sick).values()) <= {"old", "new"}, "torn"
        sick.sickness.well()
        diary.until_all_is_safe(_SAFE_WITHIN_S)
    assert _saved(sick) == wanted
    assert sick.end(process) == 0


def test_an_input_output_error_at_fsync_is_trouble_of_persist_and_no_failed_file(sick: FusePlace) -> None:
    _change(sick, "old")
    process = sick.start()
    with Diary(sick) as diary:
        diary.until_all_is_safe(_SAFE_WITHIN_S)
        sick.sickness.fail(errno.EIO, ["fsync", "fsyncdir"])
        wanted = _change(sick, "new")
        diary.until(
            lambda status: status["state"] == "degraded" and status["persist"]["state"] != "ok",
            "degraded, because Persist is not well",
            _SAID_WITHIN_S,
        )
        sick.sickness.well()
        diary.until_all_is_safe(_SAFE_WITHIN_S)
    assert _saved(sick) == wanted
    assert sick.end(process) == 0


@pytest.mark.parametrize(("error", "operations", "state"), TROUBLES)
def test_an_end_meanwhile_comes_in_time_and_claims_nothing(
    sick: FusePlace, error: int, operations: Sequence[str], state: str
) -> None:
    _change(sick, "old")
    process = sick.start("--grace", "6")
    with Diary(sick) as diary:
        diary.until_all_is_safe(_SAFE_WITHIN_S)
        sick.sickness.fail(error, operations)
        _change(sick, "new")
        diary.until_persist_is(state, _SAID_WITHIN_S)
        started = time.monotonic()
        assert sick.end(process) in ((3,) if state == "full" else (3, 4, 5))
        assert time.monotonic() - started < 6
    assert "NOT SAVED" in sick.log.read_text()
    sick.sickness.well()
    process = sick.start()
    with Diary(sick) as diary:
        diary.until_all_is_safe(_SAFE_WITHIN_S)
    assert set(_saved(sick).values()) == {"new"}
    assert sick.end(process) == 0


def test_a_server_that_lets_nobody_change_owners_is_no_trouble(sick: FusePlace) -> None:
    sick.sickness.fail(errno.EPERM, ["chown"])
    wanted = _change(sick, "text")
    process = sick.start()
    assert sick.flush()["unsaved"] == 0
    assert _saved(sick) == wanted
    assert sick.status()["persist"]["state"] == "ok"
    assert sick.end(process) == 0
