"""A Persist that fills: what fits is saved, the old version of what does not stays, and room is all it takes."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable

import pytest

from tests.mounts.diary import Diary
from tests.mounts.places import FusePlace, MountedPlace, QuotaPlace
from tests.processes import wait_until

_MIB = 1 << 20
_OLD = b"old" * 1000
_SAID_WITHIN_S = 10.0
_SAFE_WITHIN_S = 20.0


def _in_a_budget(place: FusePlace) -> Callable[[int], None]:
    return place.sickness.fill


def _in_a_quota(place: QuotaPlace) -> Callable[[int], None]:
    return place.allow


@pytest.fixture(params=["sick", "quota"])
def narrow(request: pytest.FixtureRequest) -> tuple[MountedPlace, Callable[[int], None]]:
    """A place, and what gives its Persist so many bytes."""
    place = request.getfixturevalue(request.param)
    return place, _in_a_quota(place) if isinstance(place, QuotaPlace) else _in_a_budget(place)


def _fill(place: MountedPlace, allow: Callable[[int], None], diary: Diary) -> None:
    """A file that was saved has become too large for Persist, beside notebooks that are not."""
    diary.until_all_is_safe(_SAFE_WITHIN_S)
    allow(12 * _MIB)
    (place.home / "large.bin").write_bytes(os.urandom(16 * _MIB))
    diary.until_persist_is("full", _SAID_WITHIN_S)
    (place.home / "work").mkdir()
    for number in range(20):
        (place.home / "work" / f"{number}.ipynb").write_text("{}" * 500)


def _notebooks(place: MountedPlace) -> list[str]:
    return [path.read_text() for path in (place.mirror / "work").glob("*.ipynb")]


def test_what_fits_goes_on_the_old_version_stays_and_room_makes_everything_safe(
    narrow: tuple[MountedPlace, Callable[[int], None]],
) -> None:
    place, allow = narrow
    (place.home / "large.bin").write_bytes(_OLD)
    process = place.start()
    with Diary(place) as diary:
        _fill(place, allow, diary)
        wait_until(lambda: _notebooks(place) == ["{}" * 500] * 20, "what is small and important is safe", 10)
        diary.until(lambda status: [each["path"] for each in status["failed"]] == ["large.bin"], "the file is named", 5)
        diary.until_persist_is("full", 5)
        assert (place.mirror / "large.bin").read_bytes() == _OLD
        allow(100 * _MIB)
        diary.until_all_is_safe(_SAFE_WITHIN_S)
    assert (place.mirror / "large.bin").read_bytes() == (place.home / "large.bin").read_bytes()
    assert place.end(process) == 0


def test_the_end_on_a_full_persist_is_3_soon_and_the_next_start_saves_the_rest(
    narrow: tuple[MountedPlace, Callable[[int], None]],
) -> None:
    place, allow = narrow
    (place.home / "large.bin").write_bytes(_OLD)
    process = place.start("--grace", "20")
    with Diary(place) as diary:
        _fill(place, allow, diary)
    started = time.monotonic()
    assert place.end(process) == 3
    assert time.monotonic() - started < 10, "a full Persist is no reason to use up the grace"
    assert _notebooks(place) == ["{}" * 500] * 20
    assert (place.mirror / "large.bin").read_bytes() == _OLD
    assert "NOT SAVED: 1 files: large.bin" in place.log.read_text()
    process = place.start()
    assert [file["path"] for file in place.status()["left_behind"]["files"]] == ["large.bin"]
    allow(100 * _MIB)
    with Diary(place) as diary:
        diary.until_all_is_safe(_SAFE_WITHIN_S)
    assert place.end(process) == 0


def test_a_quota_told_only_at_fsync_costs_no_version_that_was_safe(sick: FusePlace) -> None:
    names = [f"{number}.ipynb" for number in range(50)]
    for name in names:
        (sick.home / name).write_text("old")
    process = sick.start()
    with Diary(sick) as diary:
        diary.until_all_is_safe(_SAFE_WITHIN_S)
        sick.sickness.fail(errno.EDQUOT, ["fsync"])
        for name in names:
            (sick.home / name).write_text("new")
        diary.until_persist_is("full", _SAID_WITHIN_S)
        assert {(sick.mirror / name).read_text() for name in names} == {"old"}
        assert sick.end(process) == 3
    assert {(sick.mirror / name).read_text() for name in names} == {"old"}
