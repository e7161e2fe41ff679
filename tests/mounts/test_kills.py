"""SIGKILL for any process of a sidecar, at any moment, on a Persist that is slow, full or hangs."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.mounts.diary import Diary
from tests.mounts.fuse import ALL
from tests.mounts.places import FusePlace
from tests.processes import wait_until

_FILES = 1200
_LINES = 300
_GONE_WITHIN_S = 10.0

SICKNESSES: dict[str, Callable[[FusePlace], None]] = {
    "well": lambda place: place.sickness.well(),
    "slow": lambda place: place.sickness.slow(0.0005),
    "full": lambda place: place.sickness.fail(errno.ENOSPC, ["write"]),
    "stale": lambda place: place.sickness.fail(errno.ESTALE, ALL),
    "hangs": lambda place: place.sickness.hang(ALL),
    "hangs at fsync": lambda place: place.sickness.hang(["fsync"]),
}


def _content(generation: int) -> bytes:
    return b"%06d\n" % generation * _LINES


def _change(place: FusePlace, generation: int, count: int) -> None:
    """``count`` files have their next content, each whole from one moment to the next."""
    for number in range(count):
        path = place.home / f"d{number % 7}" / f"f{number}.py"
        path.parent.mkdir(exist_ok=True)
        fresh = path.with_name(f".fresh-{path.name}")
        fresh.write_bytes(_content(generation))
        fresh.replace(path)


def _check_nothing_is_torn(place: FusePlace, newest: int) -> None:
    for path in place.mirror.glob("d*/f*.py"):
        found = path.read_bytes()
        assert found == _content(int(found[:6])), f"{path.name} is torn"
        assert 0 < int(found[:6]) <= newest


def _kill_one(place: FusePlace, rng: random.Random) -> None:
    victims = sorted(place.processes())
    if victims:
        with suppress(ProcessLookupError):  # it ended by itself
            os.kill(rng.choice(victims), signal.SIGKILL)


def _alive(place: FusePlace, process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """The sidecar that runs now: a new one where the process that was started has ended, and then alone."""
    try:
        process.wait(1.0)
    except subprocess.TimeoutExpired:
        return process
    assert process.returncode != 0, "it claims success"
    wait_until(lambda: not place.processes(), "no orphan of it runs", _GONE_WITHIN_S)
    return place.spawn(place.command("run"))


@pytest.mark.parametrize(
    ("sickness", "rounds"),
    [("slow", 4), ("hangs", 4), *(pytest.param(name, 40, marks=pytest.mark.slow) for name in SICKNESSES)],
)
def test_nothing_is_torn_no_orphan_is_left_and_in_the_end_everything_is_safe(
    sick: FusePlace, sickness: str, rounds: int
) -> None:
    rng = random.Random(f"{sickness} {rounds}")
    process = sick.spawn(sick.command("run"))
    for generation in range(1, rounds + 1):
        wait_until(lambda: sick.status()["state"] in ("watching", "degraded"), "it works", 20)
        SICKNESSES[sickness](sick)
        # Sometimes so many that a second process helps.
        _change(sick, generation, rng.choice([20, _FILES]))
        time.sleep(rng.uniform(0, 1.0))  # another moment each time
        _kill_one(sick, rng)
        _check_nothing_is_torn(sick, generation)
        sick.sickness.well()
        process = _alive(sick, process)
    _change(sick, rounds + 1, _FILES)
    with Diary(sick) as diary:
        diary.until_all_is_safe(60)
    assert sick.end(process) == 0
    assert {path.read_bytes() for path in sick.mirror.glob("d*/f*.py")} == {_content(rounds + 1)}
    wait_until(lambda: not sick.processes(), "nothing of it runs any more", _GONE_WITHIN_S)
