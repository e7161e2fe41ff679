"""A Persist that is full, or takes nothing more: named files, exit code 3, the earlier version kept, and recovery."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Place, wait_until


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Place]:
    """A place whose Persist is a mount of 4 MiB."""
    with Place(tmp_path) as place:
        place.mount_persist("tmpfs -o size=4m")
        yield place


def test_what_does_not_fit_is_named_and_the_earlier_version_stays(small: Place) -> None:
    (small.home / "big.bin").write_bytes(b"old" * 100)
    (small.home / "notes.ipynb").write_text("{}")
    process = small.start()
    assert small.flush()["unsaved"] == 0
    (small.home / "big.bin").write_bytes(os.urandom(8 << 20))
    (small.home / "notes.ipynb").write_text('{"cells": []}')
    assert small.flush()["unsaved"] == 1
    status = small.status()
    assert status["persist"]["state"] == "full"
    assert [item["path"] for item in status["failed"]] == ["big.bin"]
    mirror = small.mirror
    assert (mirror / "big.bin").read_bytes() == b"old" * 100
    assert (mirror / "notes.ipynb").read_text() == '{"cells": []}', "a small file still fits"
    started = time.monotonic()
    assert small.end(process) == 3
    assert time.monotonic() - started < 5, "a full Persist is no reason to use up the grace"
    assert (mirror / "big.bin").read_bytes() == b"old" * 100

    process = small.start()
    assert [file["path"] for file in small.status()["left_behind"]["files"]] == ["big.bin"]
    (small.home / "big.bin").write_bytes(b"smaller")
    wait_until(lambda: (mirror / "big.bin").read_bytes() == b"smaller", "it fits again")
    assert small.end(process) == 0


def test_a_persist_without_a_free_byte_recovers_by_itself(small: Place) -> None:
    for number in range(20):
        (small.home / f"f{number}.txt").write_text("old")
    process = small.start()
    assert small.flush()["unsaved"] == 0
    filler = small.persist / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    for number in range(20):
        (small.home / f"f{number}.txt").write_text("new" * 2000)
    (small.home / "fresh" / "deep").mkdir(parents=True)
    (small.home / "fresh" / "deep" / "file.txt").write_text("x" * 5000)
    (small.home / "f19.txt").unlink()
    wait_until(lambda: small.status()["persist"]["state"] == "full", "it says that it is full")
    for number in range(19):
        assert (small.mirror / f"f{number}.txt").read_text() in ("old", "new" * 2000)
    assert not list((small.persist / ".jupyterhub-sidecar" / "default" / "staging").iterdir())
    filler.unlink()
    wait_until(
        lambda: all((small.mirror / f"f{n}.txt").read_text() == "new" * 2000 for n in range(19)),
        "everything is saved once there is room",
    )
    wait_until(lambda: (small.mirror / "fresh" / "deep" / "file.txt").is_file(), "new directories too")
    wait_until(lambda: not (small.mirror / "f19.txt").exists(), "and the deletion")
    wait_until(lambda: small.status()["persist"]["state"] == "ok", "it says that all is well")
    assert small.end(process) == 0


def test_the_end_on_a_persist_without_a_free_byte_is_quick_and_honest(small: Place) -> None:
    for number in range(20):
        (small.home / f"f{number}.txt").write_text("old")
    process = small.start()
    assert small.flush()["unsaved"] == 0
    with (small.persist / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    for number in range(10):
        (small.home / f"f{number}.txt").write_text("new" * 2000)
    (small.home / "f19.txt").unlink()
    (small.home / "fresh").mkdir()
    started = time.monotonic()
    assert small.end(process) == 3
    assert time.monotonic() - started < 8
    assert "NOT SAVED" in small.log.read_text()
    left = json.loads((small.persist / ".jupyterhub-sidecar" / "default" / "left-behind.json").read_text())
    assert {f"f{number}.txt" for number in range(10)} <= {item["path"] for item in left["files"]}
    for number in range(10):
        assert (small.mirror / f"f{number}.txt").read_text() in ("old", "new" * 2000)


def test_on_a_read_only_persist_it_starts_degraded_brings_the_work_back_and_saves_when_it_can(small: Place) -> None:
    (small.home / "a.txt").write_text("a")
    assert small.end(small.start()) == 0
    small.remount_persist("ro")
    small.new_home()
    process = small.start(state="degraded")
    wait_until((small.home / "a.txt").exists, "the work is back")
    wait_until(lambda: small.status()["persist"]["state"] == "read-only", "the status says why")
    (small.home / "a.txt").write_text("changed")
    assert small.end(process) == 4
    assert "Traceback" not in small.log.read_text()
    process = small.start(state="degraded")
    small.remount_persist("rw")
    wait_until(lambda: small.status()["state"] == "watching", "it works again")
    small.flush()
    assert (small.mirror / "a.txt").read_text() == "changed"
    assert small.end(process) == 0
