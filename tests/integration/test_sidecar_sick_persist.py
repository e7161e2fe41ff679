"""A Persist that falls sick under a running sidecar: the end comes in time, and the status tells of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes import Place, wait_until

_PROGRAM = str(Path(__file__).with_name("sick_sidecar.py"))


def _start(place: Place, sickness: str, *options: str) -> subprocess.Popen[bytes]:
    _, _, _, *words = place.command("run", *options)
    process = place.spawn([sys.executable, _PROGRAM, sickness, *words])
    wait_until(lambda: place.status()["state"] == "watching", "the sidecar is watching")
    return process


@contextmanager
def _somebody_who_asks_for_a_flush(place: Place) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(place.socket)
        connection.sendall(b'{"op": "flush"}\n')
        yield


def _is_in_trouble(place: Place) -> bool:
    status = place.status()
    return (status["state"], status["persist"]["state"]) == ("degraded", "read-only") and status["pending"]["files"] > 0


def _works_as_ever(place: Place) -> None:
    """Beside ``work.ipynb`` a new file was looked at, which nobody does while a flush or a notice is carried out."""
    (place.home / "later.txt").write_text("x")
    wait_until(lambda: place.status()["pending"]["bytes"] == 3, "the sidecar works as ever", 6)


def test_the_process_is_gone_before_the_grace_ends_though_a_copy_hangs_in_a_thread(place: Place) -> None:
    process = _start(place, "slow-sync", "--grace", "4")
    (place.home / "big.bin").write_bytes(bytes(1000) + os.urandom(24 << 20))
    (place.home / "small.ipynb").write_text("{}")
    wait_until((place.mirror / "small.ipynb").exists, "the small one is safe")
    wait_until((place.top / "syncing").exists, "the large one is being saved")
    started = time.monotonic()
    assert place.end(process) == 5
    assert time.monotonic() - started < 4
    assert "NOT SAVED: 1 files: big.bin" in place.log.read_text()


def test_the_status_tells_of_the_trouble_while_somebody_waits_for_a_flush(place: Place) -> None:
    process = _start(place, "read-only")
    (place.top / "sick").touch()
    (place.home / "work.ipynb").write_text("{}")
    with _somebody_who_asks_for_a_flush(place):
        wait_until(lambda: _is_in_trouble(place), "the status says so")
        (place.home / "more.ipynb").write_text("{}")
        wait_until(lambda: place.status()["pending"]["files"] > 1, "what changes meanwhile is pending too")
        (place.top / "sick").unlink()
        wait_until((place.mirror / "work.ipynb").exists, "it is saved when Persist is well again")
    wait_until(lambda: place.status()["state"] == "watching", "and the status says that")
    assert place.end(process) == 0


def test_a_flush_ends_when_whoever_asked_for_it_is_gone(place: Place) -> None:
    process = _start(place, "read-only")
    (place.top / "sick").touch()
    (place.home / "work.ipynb").write_text("{}")
    with _somebody_who_asks_for_a_flush(place):
        wait_until(lambda: _is_in_trouble(place), "the flush goes on")
    _works_as_ever(place)
    (place.top / "sick").unlink()
    assert place.flush()["unsaved"] == 0
    assert (place.mirror / "later.txt").read_text() == "x"
    assert place.end(process) == 0


def test_a_notice_that_no_end_follows_is_void_after_the_grace(place: Place) -> None:
    process = _start(place, "read-only", "--grace", "2")
    (place.top / "sick").touch()
    (place.home / "work.ipynb").write_text("{}")
    process.send_signal(signal.SIGUSR1)
    wait_until(lambda: _is_in_trouble(place), "the status tells of the trouble while the notice saves")
    _works_as_ever(place)
    (place.top / "sick").unlink()
    assert place.flush()["unsaved"] == 0
    assert (place.mirror / "later.txt").exists()
    assert place.end(process) == 0


def test_sigterm_ends_a_flush_and_a_notice_that_get_nowhere(place: Place) -> None:
    process = _start(place, "read-only", "--grace", "4")
    (place.top / "sick").touch()
    (place.home / "work.ipynb").write_text("{}")
    process.send_signal(signal.SIGUSR1)
    with _somebody_who_asks_for_a_flush(place):
        wait_until(lambda: _is_in_trouble(place), "it gets nowhere")
        started = time.monotonic()
        assert place.end(process) in (4, 5)
        assert time.monotonic() - started < 4
