"""Large files are in nobody's way, and one that changes all the time costs a bounded share of the time."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from sidecar.errors import EXIT_SAFE
from sidecar.fsops import FileSystem
from sidecar.saving.jobs import APART_BYTES
from tests.engines import turn_until, watching_engine
from tests.processes import Place, wait_until

_LARGE = 4 * APART_BYTES


class _SlowLarge(FileSystem):
    """A Persist that takes its time for what the kernel copies, and counts how often that begins."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.begun = 0

    def copy_range(self, source: int, target: int, count: int, source_offset: int, target_offset: int) -> int:
        if source_offset == 0:
            self.begun += 1
        self.go_on.wait(20)
        return super().copy_range(source, target, count, source_offset, target_offset)


def test_small_files_are_safe_while_a_large_one_is_copied(tmp_path: Path) -> None:
    fs = _SlowLarge()
    with watching_engine(tmp_path, fs) as (engine, home, mirror):
        (home / "large.h5").write_bytes(os.urandom(_LARGE))
        for _ in range(100):
            engine.turn()
            if fs.begun:
                break
            time.sleep(0.02)
        assert fs.begun == 1
        (home / "small.ipynb").write_text("{}")
        turn_until(engine, (mirror / "small.ipynb").exists, "small.ipynb is saved")
        assert not (mirror / "large.h5").exists()
        assert engine.status("watching").pending_files == 1
        fs.go_on.set()
        turn_until(engine, (mirror / "large.h5").exists, "large.h5 is saved")
        assert (mirror / "large.h5").read_bytes() == (home / "large.h5").read_bytes()
        assert engine.drain(lambda: False) == EXIT_SAFE


def test_a_drain_waits_for_a_large_copy_that_has_begun_and_copies_what_changed_since(tmp_path: Path) -> None:
    fs = _SlowLarge()
    with watching_engine(tmp_path, fs) as (engine, home, mirror):
        (home / "large.h5").write_bytes(bytes(_LARGE))
        while not fs.begun:
            engine.turn()
            time.sleep(0.02)
        with (home / "large.h5").open("r+b") as file:
            file.write(b"changed")
        fs.go_on.set()
        assert engine.drain(lambda: False) == EXIT_SAFE
        assert (mirror / "large.h5").read_bytes()[:7] == b"changed"


def test_a_drain_without_time_for_a_large_file_names_it(tmp_path: Path) -> None:
    fs = _SlowLarge()
    with watching_engine(tmp_path, fs) as (engine, home, mirror):
        (home / "large.h5").write_bytes(bytes(_LARGE))
        (home / "notes.md").write_text("short")
        ends_at = time.monotonic() + 1.0
        assert engine.drain(lambda: time.monotonic() > ends_at) == 5
        assert (mirror / "notes.md").read_text() == "short"
        assert engine.status("stopped").left_behind["count"] == 1
        assert engine.status("stopped").left_behind["files"][0]["path"] == "large.h5"
        fs.go_on.set()


def test_a_large_file_that_changes_all_the_time_is_held_back_named_and_whole_at_the_end(place: Place) -> None:
    path = place.home / "checkpoint.bin"
    path.write_bytes(bytes(_LARGE))
    process = place.start()
    place.flush()
    stop = threading.Event()
    generation = 0

    def rewrite() -> None:
        nonlocal generation
        while not stop.wait(0.05):
            generation += 1
            with path.open("r+b") as file:
                file.seek(generation % 100 * 4096)
                file.write(b"%8d" % generation)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        wait_until(lambda: place.status()["pending"].get("held_back"), "it is held back, or called busy", 30)
        (held,) = place.status()["pending"]["held_back"]
        assert held["path"] == "checkpoint.bin"
        assert "changes all the time" in held["reason"]
        (place.home / "notes.md").write_text("beside it")
        wait_until((place.mirror / "notes.md").exists, "a small file is safe", 3)
    finally:
        stop.set()
        writer.join()
    assert place.end(process) == 0
    assert (place.mirror / "checkpoint.bin").read_bytes() == path.read_bytes()
