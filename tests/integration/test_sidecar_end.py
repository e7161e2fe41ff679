"""The end in time: whatever the grace is, the process is gone within it, and says truly what it left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Place, wait_until

_LATER = {"SIDECAR_QUIET": "300", "SIDECAR_MAX_DELAY": "600"}
"""What changes waits for the end."""
_LARGE_BYTES = 900_000_000
_BLOCK_BYTES = 4 << 20


def _write(home: Path, count: int) -> dict[str, str]:
    wanted = {f"d{number % 100}/f{number}.py": f"{number}\n" * 50 for number in range(count)}
    for name, content in wanted.items():
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text(content)
    return wanted


def _saved(place: Place) -> dict[str, str]:
    return {str(path.relative_to(place.mirror)): path.read_text() for path in place.mirror.glob("d*/*.py")}


def _left_behind(place: Place) -> dict[str, Any] | None:
    path = place.persist / ".jupyterhub-sidecar" / "default" / "left-behind.json"
    document: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return document


def _ended(place: Place, process: subprocess.Popen[bytes], grace_s: float) -> int:
    started = time.monotonic()
    process.terminate()
    code = process.wait(grace_s + 5)
    assert time.monotonic() - started < grace_s, "it would have been killed"
    return code


def _check_the_truth(place: Place, code: int, wanted: dict[str, str]) -> None:
    """Nothing is torn; what is not saved is counted as left behind, and the exit code tells of it."""
    saved = _saved(place)
    assert saved.items() <= wanted.items()
    left = _left_behind(place)
    if code == 0:
        assert (saved, left) == (wanted, None)
    else:
        assert code == 5
        assert left is not None, f"{len(wanted) - len(saved)} files are left behind, and not listed"
        assert left["count"] >= len(wanted) - len(saved)


def test_ten_thousand_dirty_files_are_saved_within_ten_seconds(place: Place) -> None:
    place.settings = _LATER
    process = place.start("--grace", "10")
    wanted = _write(place.home, 10_000)
    code = _ended(place, process, 10)
    _check_the_truth(place, code, wanted)
    assert code == 0


def test_a_grace_of_one_second_is_kept_and_what_it_did_not_save_is_named(place: Place) -> None:
    place.settings = _LATER
    (place.home / "a.ipynb").write_text("{}")
    process = place.start("--grace", "1")
    place.flush()
    wanted = _write(place.home, 3000)
    (place.home / "a.ipynb").write_text('{"cells": []}')
    code = _ended(place, process, 1)
    assert (place.mirror / "a.ipynb").read_text() == '{"cells": []}', "what matters most"
    _check_the_truth(place, code, wanted)


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Place]:
    """A place whose home is in memory."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < 6 * _LARGE_BYTES:
        pytest.skip("there is no room for four large files in /dev/shm")
    if shutil.disk_usage(tmp_path).free < 6 * _LARGE_BYTES:
        pytest.skip(f"there is no room for four large files in {tmp_path}")
    with tempfile.TemporaryDirectory(dir=memory) as home, Place(tmp_path) as place:
        place.home = Path(home)
        yield place
        shutil.rmtree(place.persist)


@pytest.mark.slow
def test_large_files_without_time_for_them_are_listed_before_the_first_is_begun(large: Place) -> None:
    large.settings = _LATER
    process = large.start("--grace", "2")
    block = os.urandom(_BLOCK_BYTES)
    for number in range(4):
        with (large.home / f"checkpoint{number}.bin").open("wb") as file:
            for _ in range(_LARGE_BYTES // _BLOCK_BYTES):
                file.write(block)
    (large.home / "work.ipynb").write_text("{}")
    wait_until(lambda: large.status()["pending"]["files"] == 5, "all of them wait")
    staging = large.persist / ".jupyterhub-sidecar" / "default" / "staging"
    started = time.monotonic()
    process.terminate()
    wait_until(lambda: process.poll() is not None or _is_large(staging), "a large one is begun, or it is over", 3)
    left = _left_behind(large)
    assert left is not None
    assert {item["path"] for item in left["files"]} >= {f"checkpoint{number}.bin" for number in range(4)}
    assert process.wait(5) == 5
    assert time.monotonic() - started < 2
    assert (large.mirror / "work.ipynb").read_text() == "{}"
    unsaved = {path.name for path in large.home.glob("*.bin") if not (large.mirror / path.name).exists()}
    assert unsaved
    process = large.start("--grace", "60")
    assert {item["path"] for item in large.status()["left_behind"]["files"]} >= unsaved
    large.kill(process)


def _is_large(staging: Path) -> bool:
    return any(path.stat().st_size > _BLOCK_BYTES for path in staging.iterdir())


@pytest.mark.parametrize("delay_s", [0.005, 0.02, 0.05, 0.1])
def test_sigterm_milliseconds_after_the_start_is_never_a_false_success(place: Place, delay_s: float) -> None:
    (place.home / "a.txt").write_text("a")
    process = place.spawn(place.command("run"))
    time.sleep(delay_s)  # another moment of the start each time
    process.terminate()
    code = process.wait(10)
    # Before the interpreter can run a line of ours, the signal does what it always does.
    assert code in (0, -signal.SIGTERM)
    assert code != 0 or (place.mirror / "a.txt").read_text() == "a"
    assert "Traceback" not in place.log.read_text()
    process = place.start()
    place.flush()
    assert place.end(process) == 0
    assert (place.mirror / "a.txt").read_text() == "a"


@pytest.mark.parametrize(
    ("grace_s", "pause_s"), [(2.0, 3.0), pytest.param(30.0, 40.0, marks=pytest.mark.slow)], ids=["short", "40 s"]
)
def test_after_a_notice_that_no_end_followed_the_work_goes_on_and_the_end_has_its_whole_grace(
    place: Place, grace_s: float, pause_s: float
) -> None:
    process = place.start("--grace", str(grace_s))
    (place.home / "before.ipynb").write_text("before")
    process.send_signal(signal.SIGUSR1)
    noticed = time.monotonic()
    wait_until((place.mirror / "before.ipynb").exists, "the notice makes it safe", 3)
    while time.monotonic() < noticed + pause_s:
        assert place.status()["state"] == "watching"
        time.sleep(0.2)  # between two looks
    (place.home / "after.ipynb").write_text("after")
    wait_until((place.mirror / "after.ipynb").exists, "the work goes on", 3)
    (place.home / "last.ipynb").write_text("last")
    assert _ended(place, process, grace_s) == 0
    assert (place.mirror / "last.ipynb").read_text() == "last"


def _pss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise AssertionError("the kernel does not tell")


def _is_watching(place: Place) -> bool:
    with suppress(TimeoutError):  # fifty that start at once keep a small machine busy
        return bool(place.status()["state"] == "watching")
    return False


@pytest.mark.slow
def test_fifty_sidecars_told_to_end_at_once_are_done_within_thirty_seconds(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with ExitStack() as stack:
        places = []
        for number in range(50):
            top = tmp_path / f"user{number}"
            top.mkdir()
            places.append(stack.enter_context(Place(top)))
            places[-1].settings = _LATER
        processes = [place.spawn(place.command("run", "--grace", "30")) for place in places]
        wait_until(lambda: all(_is_watching(place) for place in places), "all are watching", 120)
        wanted = [_write(place.home, 500) for place in places]
        total_kib = sum(_pss_kib(pid) for place in places for pid in place.processes())
        started = time.monotonic()
        for process in processes:
            process.terminate()
        codes = [process.wait(40) for process in processes]
        took_s = time.monotonic() - started
        print(f"50 sidecars ended within {took_s:.1f} s; {total_kib / 1024:.0f} MiB (Pss) of all when told to")
        record_property("took_s", round(took_s, 1))
        record_property("pss_mib", round(total_kib / 1024))
        assert codes == [0] * 50
        assert [_saved(place) for place in places] == wanted
        assert took_s < 30
