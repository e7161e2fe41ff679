"""The sidecar is two processes: whichever dies, the other knows what to do."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.processes import Place, wait_until


def _engine_of(supervisor: int) -> int:
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    assert len(children) == 1, children
    return int(children[0])


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_killed_engine_is_started_again_and_saves_what_changed_meanwhile(place: Place) -> None:
    process = place.start()
    for number in range(3):
        engine = _engine_of(process.pid)
        os.kill(engine, signal.SIGKILL)
        (place.home / f"f{number}.txt").write_text(str(number))
        assert place.run_json("status", "--json")["state"] != "stopped", "it says that nothing runs"
        wait_until((place.mirror / f"f{number}.txt").exists, "it is safe")
    assert place.end(process) == 0


def test_an_engine_that_was_killed_in_its_last_seconds_is_started_once_more(place: Place) -> None:
    place.settings = {"SIDECAR_QUIET": "30", "SIDECAR_MAX_DELAY": "60"}
    process = place.start("--grace", "20")
    place.flush()
    for number in range(1000):
        (place.home / f"f{number}.txt").write_text(str(number))
    engine = _engine_of(process.pid)
    process.terminate()
    os.kill(engine, signal.SIGKILL)
    assert process.wait(20) == 0
    assert len(list(place.mirror.iterdir())) == 1000


def test_without_its_supervisor_no_engine_goes_on(place: Place) -> None:
    process = place.start()
    engine = _engine_of(process.pid)
    place.kill(process)
    wait_until(lambda: not _is_running(engine), "the engine is gone", 1)
    assert place.end(place.start()) == 0


def test_whoever_stops_the_sidecar_stops_all_of_it_until_it_goes_on(place: Place) -> None:
    process = place.start()
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(1.5)  # for so long it may take the engine to see it
    (place.home / "a.txt").write_text("a")
    time.sleep(2)
    assert not (place.mirror / "a.txt").exists()
    os.kill(process.pid, signal.SIGCONT)
    wait_until((place.mirror / "a.txt").exists, "it goes on")
    assert place.end(process) == 0


def test_an_engine_that_somebody_stopped_goes_on_with_its_supervisor(place: Place) -> None:
    process = place.start()
    os.kill(_engine_of(process.pid), signal.SIGSTOP)
    (place.home / "a.txt").write_text("a")
    wait_until((place.mirror / "a.txt").exists, "it goes on")
    assert place.end(process) == 0


def test_a_flush_that_the_end_cut_short_is_no_success(place: Place) -> None:
    for directory in range(40):
        (place.home / f"d{directory}").mkdir()
        for number in range(400):
            (place.home / f"d{directory}" / f"f{number}").write_text("x")
    process = place.start("--grace", "30")
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(place.flush)
        time.sleep(0.2)  # for it to be asked
        process.terminate()
        time.sleep(0.1)  # two signals at once are one
        process.terminate()
        code = process.wait(20)
    saved = sum(len(files) for _, _, files in os.walk(place.mirror))
    assert saved < 40 * 400, "it was too quick to be cut short"
    assert code != 0
    assert not reply.result()["complete"]
    assert reply.result()["unsaved"] >= 40 * 400 - saved


def test_a_terminal_that_interrupts_the_whole_group_does_not_cut_the_drain_short(place: Place) -> None:
    place.settings = {"SIDECAR_QUIET": "30", "SIDECAR_MAX_DELAY": "60"}
    process = place.start()
    place.flush()
    for number in range(1000):
        (place.home / f"f{number}.txt").write_text(str(number))
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(20) == 0
    assert len(list(place.mirror.iterdir())) == 1000


def test_as_process_1_it_buries_every_orphan(place: Place) -> None:
    place.prefix = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL"]
    process = place.start()
    place.flush()
    supervisor = _engine_of(process.pid)
    # An orphan: its parent, in the same namespace, ends before it.
    inside = ["nsenter", "-t", str(supervisor), "-p", "-m", "sh", "-c", "(sleep 0.2 &) ; exit 0"]
    assert place.spawn(inside).wait(10) == 0
    time.sleep(0.5)
    wait_until(lambda: not _zombies(supervisor), "nobody is left unburied", 5)
    os.kill(supervisor, signal.SIGTERM)
    assert process.wait(20) == 0


def _zombies(supervisor: int) -> list[str]:
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return [child for child in children if "(zombie)" in Path(f"/proc/{child}/status").read_text()]
