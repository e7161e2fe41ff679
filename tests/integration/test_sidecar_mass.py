"""A mass of files is staged by a second process, and whatever happens to that process, nothing is lost."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from sidecar.errors import EXIT_SAFE
from tests.engines import turn_until, watching_engine
from tests.processes import Place, tree, wait_until

FILES = 4000

pytestmark = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="with one processor there is no second process"
)


def _fill(home: Path, count: int = FILES) -> None:
    for number in range(count):
        directory = home / f"d{number // 200}"
        if number % 200 == 0:
            directory.mkdir()
        (directory / f"f{number}.bin").write_bytes(b"%d" % number * 50)
    (home / "d0" / "link").symlink_to("f0.bin")


def _porters(pid: int) -> list[int]:
    """Children of ``pid``, or of its children: the engine is one itself."""
    found = []
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        if b"porter_process" in Path(f"/proc/{child}/cmdline").read_bytes():
            found.append(child)
        else:
            found += _porters(child)
    return found


def _same(place: Place) -> bool:
    home = {name: content for name, (_, _, content) in tree(place.home).items() if name != "Save"}
    return {name: content for name, (_, _, content) in tree(place.mirror).items()} == home


def test_a_mass_is_saved_whole_and_the_second_process_is_gone_soon_after(place: Place) -> None:
    _fill(place.home)
    process = place.start()
    wait_until(lambda: _porters(process.pid), "there is a second process")
    (place.home / "fresh.ipynb").write_text("{}")
    wait_until((place.mirror / "fresh.ipynb").exists, "what is fresh is safe", 5)
    wait_until(lambda: place.status()["pending"]["files"] == 0, "all is safe", 60)
    assert _same(place)
    wait_until(lambda: not _porters(process.pid), "it is gone", 10)
    assert place.end(process) == 0


def test_a_killed_second_process_costs_time_and_nothing_else(place: Place) -> None:
    _fill(place.home)
    process = place.start()
    wait_until(lambda: _porters(process.pid), "there is a second process")
    os.kill(_porters(process.pid)[0], signal.SIGKILL)
    wait_until(lambda: place.status()["pending"]["files"] == 0, "all is safe", 60)
    assert _same(place)
    assert place.end(process) == 0
    assert "the process for masses of files ended" in place.log.read_text()
    assert not list((place.persist / ".jupyterhub-sidecar/default/staging").iterdir()), "something stays staged"


def test_the_second_process_dies_with_the_first(place: Place) -> None:
    _fill(place.home)
    process = place.start()
    wait_until(lambda: _porters(process.pid), "there is a second process")
    (porter,) = _porters(process.pid)
    place.kill(process)
    wait_until(lambda: not Path(f"/proc/{porter}").exists(), "it is gone", 5)
    process = place.start()
    wait_until(lambda: place.status()["pending"]["files"] == 0, "all is safe", 60)
    assert _same(place)
    assert place.end(process) == 0


def test_a_file_that_changes_while_its_batch_is_under_way_is_saved_again(tmp_path: Path) -> None:
    with watching_engine(tmp_path, fill=_fill) as (engine, home, mirror):
        turn_until(engine, lambda: len(engine.saver.porter), "a batch is under way")
        under_way = [path for path, _ in engine.saver.porter.files()][:50]
        for path in under_way:
            (home / os.fsdecode(path)).write_text("changed meanwhile")
        assert engine.drain(lambda: False) == EXIT_SAFE
        assert all((mirror / os.fsdecode(path)).read_text() == "changed meanwhile" for path in under_way)
        assert sum(len(files) for _, _, files in os.walk(mirror)) == FILES + 1


def test_what_is_under_way_when_the_time_is_up_is_named(tmp_path: Path) -> None:
    with watching_engine(tmp_path, fill=_fill) as (engine, _home, mirror):
        turn_until(engine, lambda: len(engine.saver.porter), "a batch is under way")
        wait_until(lambda: _porters(os.getpid()), "there is a second process")
        os.kill(_porters(os.getpid())[0], signal.SIGSTOP)
        ends_at = time.monotonic() + 1.0
        assert engine.drain(lambda: time.monotonic() > ends_at) == 5
        saved = sum(len(files) for _, _, files in os.walk(mirror))
        assert engine.status("stopped").left_behind["count"] == FILES + 1 - saved > 0
