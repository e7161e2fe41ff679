"""Two sidecars on one Persist: of the same server one writes and the other says so; of different servers both write."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sidecar.backup.holder import Holder
from sidecar.backup.lease_record import Record, encode
from tests.processes import Place, wait_until

FENCED_WITHIN_S = 20.0
STILL_S = 15.0
"""Three intervals of a holder that works."""


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Place, Place]]:
    """Two homes, as on two machines, with the same Persist."""
    with ExitStack() as stack:
        places = []
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            places.append(stack.enter_context(Place(tmp_path / name)))
        first, second = places
        shutil.rmtree(second.persist)
        second.persist = second.persist_inside = first.persist
        yield first, second


def _is_fenced(place: Place) -> bool:
    status = place.status()
    return (status["state"], status.get("persist", {}).get("state")) == ("degraded", "fenced")


def _may_make_namespaces() -> bool:
    return subprocess.run(["unshare", "--pid", "--fork", "true"], check=False, capture_output=True).returncode == 0


def test_the_newcomer_is_degraded_at_once_brings_the_work_back_and_writes_nothing(two: tuple[Place, Place]) -> None:
    first, second = two
    (first.home / "work.ipynb").write_text("of the first")
    holder = first.start()
    first.flush()
    newcomer = second.start(state="degraded")
    wait_until(lambda: _is_fenced(second), "it is fenced", FENCED_WITHIN_S)
    wait_until((second.home / "work.ipynb").exists, "the work is there", 5)
    (second.home / "work.ipynb").write_text("of the second")
    (second.home / "other.ipynb").write_text("of the second")
    (first.home / "work.ipynb").write_text("of the first again")
    first.flush()
    assert not _is_fenced(first)
    assert {path.name: path.read_text() for path in first.mirror.glob("*.ipynb")} == {
        "work.ipynb": "of the first again"
    }
    assert second.end(newcomer) == 4
    assert first.end(holder) == 0
    assert "NOT SAVED" in second.log.read_text()


def test_when_the_holder_ends_the_newcomer_follows_and_nothing_of_either_is_lost(two: tuple[Place, Place]) -> None:
    first, second = two
    (first.home / "a.txt").write_text("a")
    holder = first.start()
    first.flush()
    newcomer = second.start(state="degraded")
    (second.home / "b.txt").write_text("b")
    assert first.end(holder) == 0
    wait_until(lambda: second.status()["state"] == "watching", "it has taken over", 10)
    assert second.flush()["unsaved"] == 0
    assert {path.name for path in first.mirror.glob("*.txt")} == {"a.txt", "b.txt"}
    assert second.end(newcomer) == 0


def test_equal_process_numbers_in_two_pid_namespaces_are_not_taken_for_one_another(two: tuple[Place, Place]) -> None:
    if not _may_make_namespaces():
        pytest.skip("no PID namespace can be made here")
    first, second = two
    for place in two:
        place.prefix = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL"]
    holder = first.start()
    newcomer = second.spawn(second.command("run"))
    wait_until(lambda: _is_fenced(second), "it is fenced", FENCED_WITHIN_S)
    (first.home / "a.txt").write_text("a")
    assert first.flush()["unsaved"] == 0
    for process in (newcomer, holder):
        process.kill()


def test_two_servers_of_one_user_both_work(two: tuple[Place, Place]) -> None:
    first, second = two
    for place, name in ((first, "one"), (second, "two")):
        place.settings = {"SIDECAR_SERVER": name}
    processes = [place.start() for place in two]
    for place in two:
        (place.home / "a.txt").write_text(place.settings["SIDECAR_SERVER"])
        assert place.flush()["unsaved"] == 0
    for name in ("one", "two"):
        assert (first.persist / "Backup" / name / "a.txt").read_text() == name
    assert [place.end(process) for place, process in zip(two, processes, strict=True)] == [0, 0]


def test_a_zombie_that_wakes_after_losing_the_lease_writes_nothing(two: tuple[Place, Place]) -> None:
    first, second = two
    holder = first.start()
    (first.home / "a.txt").write_text("before")
    first.flush()
    os.killpg(holder.pid, signal.SIGSTOP)
    (first.home / "a.txt").write_text("never to be seen")
    newcomer = second.start(state="degraded")
    # As long as it stands still, and no longer than that: it had stated the interval of one who works.
    wait_until(lambda: second.status()["state"] == "watching", "it has taken over", STILL_S + 15)
    assert (second.home / "a.txt").read_text() == "before"
    before = _snapshot(first.persist)
    os.killpg(holder.pid, signal.SIGCONT)
    wait_until(lambda: _is_fenced(first), "it has learned it", FENCED_WITHIN_S)
    assert first.end(holder) == 4
    assert _snapshot(first.persist) == before
    assert second.end(newcomer) == 0


def _snapshot(persist: Path) -> dict[str, bytes]:
    """Every file but the lease, which its holder goes on to beat."""
    found = {str(path): path.read_bytes() for path in persist.rglob("*") if path.is_file()}
    return {path: content for path, content in found.items() if not Path(path).name.startswith("lease")}


def test_a_sidecar_that_was_killed_is_followed_at_once_on_the_same_machine(two: tuple[Place, Place]) -> None:
    first, second = two
    first.kill(first.start())
    assert second.end(second.start()) == 0


def test_in_the_same_pod_the_next_container_follows_at_once(two: tuple[Place, Place]) -> None:
    if not _may_make_namespaces():
        pytest.skip("no PID namespace can be made here")
    first, second = two
    for place in two:
        place.prefix = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL"]
        place.settings = {"SIDECAR_POD_UID": "0a1b-pod"}
    first.kill(first.start())
    began = time.monotonic()
    process = second.start()
    assert time.monotonic() - began < STILL_S / 2, "it waited until the lease had stood still"
    process.kill()


def test_a_backup_beside_a_holder_elsewhere_is_refused_in_one_line(two: tuple[Place, Place]) -> None:
    first, second = two
    process = first.start()
    result = second.run("backup")
    assert (result.returncode, "held by" in result.stderr, "Traceback" in result.stderr) == (4, True, False)
    assert first.end(process) == 0
    assert second.run("backup").returncode == 0


def test_what_is_restored_needs_no_lease(two: tuple[Place, Place]) -> None:
    first, second = two
    (first.home / "a.txt").write_text("a")
    process = first.start()
    first.flush()
    target = Path(tempfile.mkdtemp(dir=second.top))
    assert second.run("restore", "--to", str(target)).returncode == 0
    assert (target / "a.txt").read_text() == "a"
    assert first.end(process) == 0


def _steal(place: Place) -> None:
    """Somebody else has the lease from now on."""
    holder = Holder(pod_uid="other", boot_id="b", pid_namespace="1:2", pid=7, started_ticks=3, host="elsewhere")
    fresh = place.persist / ".jupyterhub-sidecar" / "default" / "lease.fresh"
    fresh.write_bytes(encode(Record(generation=99, token="ab" * 8, holder=holder)))
    fresh.replace(fresh.with_name("lease"))


def test_an_idle_sidecar_that_lost_the_lease_claims_no_success(two: tuple[Place, Place]) -> None:
    first, _ = two
    (first.home / "a.txt").write_text("a")
    process = first.start()
    first.flush()
    _steal(first)
    assert first.run("backup").returncode == 4
    assert first.end(process) == 4
    process = first.spawn(first.command("run"))
    wait_until(lambda: _is_fenced(first), "it is fenced", FENCED_WITHIN_S)
    assert first.run("backup").returncode == 4, "whoever asks is answered, and not with success"
    assert first.end(process) == 4


@pytest.mark.parametrize("damage", ["cut off", "nonsense", "a link", "a directory", "a FIFO", "gone"])
def test_a_lease_that_somebody_damaged_is_taken_again_by_who_had_it(two: tuple[Place, Place], damage: str) -> None:
    first, _ = two
    process = first.start()
    first.flush()
    lease = first.persist / ".jupyterhub-sidecar" / "default" / "lease"
    if damage == "cut off":
        os.truncate(lease, 0)
    elif damage == "nonsense":
        lease.write_bytes(b"x" * 1024)
    else:
        lease.unlink()
        if damage == "a link":
            lease.symlink_to("/nowhere")
        elif damage == "a directory":
            lease.mkdir()
        elif damage == "a FIFO":
            os.mkfifo(lease)
    (first.home / "b.txt").write_text("b")
    wait_until((first.mirror / "b.txt").exists, "it is safe", 10)
    assert first.status()["state"] == "watching"
    assert first.end(process) == 0
    assert first.end(first.start()) == 0
