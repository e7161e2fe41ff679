"""Events only make it fast: whatever the kernel drops, refuses or never tells, nothing is missed."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import Place, wait_until


def _files(top: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(top))


def _queue_length() -> int:
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


def _overflow(place: Place, pid: int, files: int) -> int:
    """More events than the kernel's queue holds happened while the sidecar was stopped; how many files there are."""
    os.killpg(pid, signal.SIGSTOP)
    # Two files in turn: the kernel joins equal events that follow each other.
    for number in range(_queue_length() // 2 + 100):
        (place.home / f"turn{number % 2}").write_bytes(b"%d" % number)
    directory = place.home / "burst"
    directory.mkdir()
    for number in range(files):
        os.close(os.open(directory / f"f{number}", os.O_WRONLY | os.O_CREAT, 0o644))
    (place.home / "last.txt").write_text("after the overflow")
    return files + 3


@pytest.mark.slow
def test_after_an_overflow_of_the_queue_everything_is_found(place: Place) -> None:
    if _queue_length() > 60_000:
        pytest.skip("the kernel's event queue is too long to overflow in a test")
    process = place.start()
    place.flush()
    files = _overflow(place, process.pid, 30_000)
    os.killpg(process.pid, signal.SIGCONT)
    wait_until(lambda: place.status().get("watch", {}).get("overflows"), "the overflow is noticed")
    wait_until((place.mirror / "last.txt").exists, "what came last is safe", 30)
    wait_until(lambda: place.status()["protected"]["files"] == files, "everything is safe", 60)
    assert _files(place.mirror) == files
    started = time.monotonic()
    (place.home / "later.txt").write_text("later")
    wait_until((place.mirror / "later.txt").exists, "a new file is safe soon")
    assert time.monotonic() - started < 5
    assert place.end(process) == 0


def test_an_overflow_in_the_last_moment_is_no_reason_to_claim_success(place: Place) -> None:
    if _queue_length() > 60_000:
        pytest.skip("the kernel's event queue is too long to overflow in a test")
    process = place.start("--grace", "60")
    place.flush()
    files = _overflow(place, process.pid, 1000)
    process.terminate()
    os.killpg(process.pid, signal.SIGCONT)
    assert process.wait(60) == 0
    assert (place.mirror / "last.txt").read_text() == "after the overflow"
    assert _files(place.mirror) == files


def _limited(place: Place, watches: int) -> None:
    """The sidecars of ``place`` may have so many watches. Skips where the kernel has no limit of its own for a user."""
    line = f"echo {watches} > /proc/sys/user/max_inotify_watches"
    if subprocess.run(["unshare", "-Ur", "sh", "-c", line], capture_output=True, check=False).returncode:
        pytest.skip("a user namespace with a limit of its own is not allowed here")
    place.prefix = ["unshare", "-Ur", "sh", "-c", f'{line} && exec "$@"', "sh"]


def test_at_the_limit_of_watches_the_scan_finds_what_events_do_not_tell(place: Place) -> None:
    for number in range(100):
        (place.home / f"d{number:04d}").mkdir()
    _limited(place, 20)
    place.settings = {"SIDECAR_SCAN_INTERVAL": "0.5"}
    process = place.start()
    for number in range(100):
        (place.home / f"d{number:04d}" / "file.txt").write_text(str(number))
    wait_until(lambda: _files(place.mirror) == 100, "every file is safe", 30)
    assert place.end(process) == 0


def test_at_the_limit_of_watches_the_end_misses_nothing(place: Place) -> None:
    for number in range(1000):
        (place.home / f"d{number:04d}").mkdir()
    _limited(place, 200)
    process = place.start()
    watch = place.status()["watch"]
    assert (watch["limit_reached"], 0 < watch["watches"] <= 200) == (True, True)
    place.flush()
    for number in range(1000):
        (place.home / f"d{number:04d}" / "file.txt").write_text(str(number))
        if number % 10 == 0:
            below = place.home / f"d{number:04d}" / "new" / "deep"
            below.mkdir(parents=True)
            (below / "file.txt").write_text(str(number))
    assert place.end(process) == 0
    assert _files(place.mirror) == 1100


def test_a_directory_that_becomes_a_cache_later_is_left_out_from_then_on(place: Place) -> None:
    cache = place.home / "model-cache"
    (cache / "sub").mkdir(parents=True)
    (cache / "sub" / "early.bin").write_text("early")
    process = place.start()
    assert place.flush()["unsaved"] == 0
    (cache / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n# a cache\n")
    wait_until(
        lambda: "model-cache" in [item["path"] for item in place.status()["skipped"]], "the marker is understood"
    )
    (cache / "sub" / "late.bin").write_text("late")
    (place.home / "other.txt").write_text("other")
    assert place.flush()["unsaved"] == 0
    assert not (place.mirror / "model-cache" / "sub" / "late.bin").exists()
    assert (place.mirror / "model-cache" / "sub" / "early.bin").read_text() == "early", "nothing is destroyed"
    assert (place.mirror / "other.txt").exists()
    assert place.end(process) == 0


def test_an_environment_made_inside_a_project_leaves_the_project_saved(place: Place) -> None:
    project = place.home / "project"
    (project / "lib").mkdir(parents=True)
    (project / "lib" / "mine.py").write_text("mine = 1")
    (project / ".gitignore").write_text("*.o")
    process = place.start()
    place.flush()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(project)], check=True)
    packages = next((project / "lib").glob("python3*/site-packages"))
    (packages / "installed.py").write_text("installed")
    (project / "bin" / "run.sh").write_text("my own script")
    (project / "work.ipynb").write_text("{}")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place.home / "pure")], check=True)
    place.flush()
    assert place.flush()["unsaved"] == 0
    assert place.end(process) == 0
    mirror = place.mirror / "project"
    assert (mirror / "lib" / "mine.py").read_text() == "mine = 1"
    assert (mirror / ".gitignore").read_text() == "*.o"
    assert (mirror / "bin" / "run.sh").read_text() == "my own script"
    assert (mirror / "work.ipynb").exists()
    assert not list(place.mirror.rglob("installed.py"))
    assert not (place.mirror / "pure" / "pyvenv.cfg").exists()


def test_a_change_through_mapped_memory_is_found_by_the_scan(place: Place) -> None:
    path = place.home / "array.npy"
    path.write_bytes(bytes(8192))
    place.settings = {"SIDECAR_SCAN_INTERVAL": "0.3"}
    process = place.start()
    assert place.flush()["unsaved"] == 0
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[100:103] = b"abc"
        wait_until(lambda: (place.mirror / "array.npy").read_bytes()[100:103] == b"abc", "the change is safe")
    assert place.end(process) == 0


def test_jupyters_own_way_to_save_leaves_the_new_content_and_no_leftover(place: Place) -> None:
    notebook, spare = place.home / "a.ipynb", place.home / ".~a.ipynb"
    notebook.write_text("old")
    process = place.start()
    place.flush()
    spare.write_text("old")
    notebook.write_text("new")
    spare.unlink()
    wait_until(lambda: (place.mirror / "a.ipynb").read_text() == "new", "the new content is safe", 3)
    place.flush()
    assert sorted(p.name for p in place.mirror.iterdir()) == ["a.ipynb"]
    assert place.end(process) == 0


def test_what_moves_out_leaves_and_what_moves_in_is_whole(place: Place) -> None:
    for name in ("stays", "leaves"):
        (place.home / name / "sub").mkdir(parents=True)
        for number in range(10):
            (place.home / name / "sub" / f"f{number}").write_text(name)
    arriving = place.top / "arriving"
    (arriving / "x" / "y").mkdir(parents=True)
    (arriving / "x" / "y" / "f").write_text("arrived")
    process = place.start()
    place.flush()
    (place.home / "leaves").rename(place.top / "gone")
    arriving.rename(place.home / "arriving")
    wait_until((place.mirror / "arriving" / "x" / "y" / "f").exists, "what moved in is safe", 3)
    wait_until(lambda: not (place.mirror / "leaves").exists(), "what moved out has left the mirror", 3)
    (place.home / "leaves").mkdir()
    (place.home / "leaves" / "f").write_text("another directory of that name")
    wait_until((place.mirror / "leaves" / "f").exists, "its successor is safe", 3)
    (place.top / "gone" / "sub" / "f1").write_text("outside")
    place.flush()
    assert not (place.mirror / "leaves" / "sub").exists()
    assert place.end(process) == 0
