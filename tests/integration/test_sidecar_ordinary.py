"""An ordinary container: it is told to end together with the notebook, which goes on writing for a while."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.processes import Place, wait_until

_WRITER = """
import pathlib, sys, time
home = pathlib.Path(sys.argv[1])
for number in range(8):
    time.sleep(0.5)
    (home / "log.txt").write_text(str(number))
"""
_BUSY = """
import pathlib, sys, time
until = time.monotonic() + 3
while time.monotonic() < until:
    (pathlib.Path(sys.argv[1]) / "busy.txt").write_text(str(time.monotonic()))
    time.sleep(0.01)
"""
_FOREVER = """
import pathlib, sys, time
while True:
    (pathlib.Path(sys.argv[1]) / f"f{time.time_ns()}").write_text("x")
    time.sleep(0.01)
"""
_WRITES_FOR_S = 4.0


def test_it_waits_until_the_home_has_gone_quiet(place: Place) -> None:
    place.settings = {"SIDECAR_NATIVE": "0"}
    process = place.start("--grace", "30")
    place.flush()
    notebook = subprocess.Popen([sys.executable, "-c", _WRITER, str(place.home)])
    started = time.monotonic()
    assert place.end(process, 30) == 0
    took_s = time.monotonic() - started
    assert notebook.poll() == 0, "it ended before the notebook"
    assert (place.mirror / "log.txt").read_text() == "7"
    assert _WRITES_FOR_S < took_s < _WRITES_FOR_S + 8


def test_a_home_that_never_goes_quiet_is_drained_in_time(place: Place) -> None:
    place.settings = {"SIDECAR_NATIVE": "0"}
    process = place.start("--grace", "6")
    place.flush()
    writer = place.spawn(
        [
            sys.executable,
            "-c",
            "import sys\nwhile True: open(sys.argv[1], 'w').write('x')",
            str(place.home / "busy.txt"),
        ]
    )
    (place.home / "kept.txt").write_text("kept")
    started = time.monotonic()
    assert place.end(process, 10) in (0, 3, 5)
    assert time.monotonic() - started < 6
    writer.kill()
    assert (place.mirror / "kept.txt").read_text() == "kept"


def test_a_native_sidecar_does_not_wait(place: Place) -> None:
    process = place.start("--grace", "30")
    place.flush()
    started = time.monotonic()
    assert place.end(process) == 0
    assert time.monotonic() - started < 2


def test_a_native_sidecar_waits_for_a_process_that_outlived_the_notebook(place: Place) -> None:
    process = place.start("--grace", "30")
    place.flush()
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(place.home)])
    busy = place.spawn([sys.executable, "-c", _BUSY, str(place.home)])
    wait_until((place.home / "busy.txt").exists, "it has begun")
    assert place.end(process, 30) == 0
    assert writer.poll() == busy.poll() == 0, "it ended before them"
    assert (place.mirror / "log.txt").read_text() == "7"


def test_a_native_sidecar_claims_no_success_while_somebody_writes(place: Place) -> None:
    process = place.start("--grace", "6")
    place.flush()
    writer = place.spawn([sys.executable, "-c", _FOREVER, str(place.home)])
    wait_until(lambda: list(place.mirror.glob("f*")), "it has begun")
    assert place.end(process, 10) in (3, 5)
    writer.kill()
