"""The life of a home: it is saved, comes back, and what the user deleted stays deleted and can be had again."""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.processes import Place, tree, wait_until


def _utc_now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat()


@pytest.mark.parametrize("command", ["run", "backup"])
def test_a_persist_that_is_no_mount_is_refused_and_nothing_is_written_anywhere(place: Place, command: str) -> None:
    place.require_mount = True
    (place.home / "work.txt").write_text("work")
    before = tree(place.home), tree(place.persist)
    result = place.run(command)
    assert result.returncode == 4
    assert "not mounted" in result.stderr
    assert "Traceback" not in result.stderr
    assert (tree(place.home), tree(place.persist)) == before
    assert not list(place.run_directory.glob("s*"))


def test_a_persist_that_is_not_there_is_exit_code_4(place: Place) -> None:
    place.persist.rmdir()
    result = place.run("run")
    assert (result.returncode, "Traceback" in result.stderr) == (4, False)
    assert not place.persist.exists()


def test_a_mount_of_its_own_is_accepted(place: Place) -> None:
    below = place.persist
    place.mount_persist("tmpfs -o size=8m")
    (place.home / "work.txt").write_text("work")
    process = place.start()
    assert place.flush()["unsaved"] == 0
    assert (place.mirror / "work.txt").read_text() == "work"
    assert place.end(process) == 0
    assert list(below.iterdir()) == [], "something was written below the mount"


def test_a_directory_in_a_mount_is_no_mount_of_its_own(place: Place) -> None:
    place.mount_persist("tmpfs")
    (place.persist / "user").mkdir()
    place.persist_inside /= "user"
    assert place.run("run").returncode == 4
    assert list((place.persist / "user").iterdir()) == []


def test_an_empty_home_gets_everything_back_and_nothing_leaves_the_mirror(place: Place) -> None:
    (place.home / "src" / "empty").mkdir(parents=True)
    (place.home / "analysis.ipynb").write_text('{"cells": []}')
    (place.home / "src" / "run.sh").write_text("#!/bin/sh\n")
    (place.home / "src" / "run.sh").chmod(0o755)
    (place.home / "src").chmod(0o750)
    (place.home / ".ssh").mkdir(mode=0o700)
    (place.home / ".ssh" / "id_ed25519").write_text("secret")
    (place.home / ".ssh" / "id_ed25519").chmod(0o600)
    (place.home / "src" / "link").symlink_to("../analysis.ipynb")
    (place.home / "dangling").symlink_to("/nowhere/at/all")
    os.utime(place.home / "analysis.ipynb", ns=(10**18, 10**18 + 123_456_789))
    before = tree(place.home)
    process = place.start()
    assert place.end(process) == 0
    mirrored = tree(place.mirror)
    assert mirrored[".ssh/id_ed25519"][0] == 0o100600

    place.new_home()
    process = place.start()
    assert place.status()["restored"]["files"] == 5
    after = tree(place.home)
    assert {path: after[path] for path in before if path != "Save"} == {p: before[p] for p in before if p != "Save"}
    assert place.flush()["unsaved"] == 0
    assert place.end(process) == 0
    assert tree(place.mirror) == mirrored
    assert os.readlink(place.home / "Save") == str(place.persist)


def test_restore_never_overwrites_what_is_there(place: Place) -> None:
    for name in ("same.txt", "other.txt"):
        (place.home / name).write_text("old")
    place.end(place.start())
    place.new_home()
    (place.home / "other.txt").write_text("written by the user before the start")
    process = place.start()
    assert (place.home / "other.txt").read_text() == "written by the user before the start"
    assert (place.home / "same.txt").read_text() == "old"
    assert place.flush()["unsaved"] == 0
    assert (place.mirror / "other.txt").read_text() == "written by the user before the start"
    # What the mirror held is not destroyed either.
    assert len(place.run_json("versions", "other.txt", "--json")["versions"]) == 2
    (place.home / "same.txt").write_text("new")
    result = place.run("restore", "same.txt")
    assert (result.returncode, (place.home / "same.txt").read_text()) == (3, "new")
    place.end(process)


def test_a_deleted_file_leaves_the_mirror_is_a_version_and_comes_back(place: Place) -> None:
    for number in range(20):
        (place.home / f"kept-{number}").write_text("kept")
    (place.home / "thesis.tex").write_text("first")
    process = place.start()
    place.flush()
    at_first = _utc_now()
    (place.home / "thesis.tex").write_text("second")
    place.flush()
    at_second = _utc_now()
    (place.home / "thesis.tex").unlink()
    place.flush()
    assert not (place.mirror / "thesis.tex").exists()
    document = place.run_json("versions", "thesis.tex", "--json")
    assert document["schema"] == 1
    assert [version["current"] for version in document["versions"]] == [False, False]
    assert place.run("restore", "thesis.tex", "--at", at_first).returncode == 0
    assert (place.home / "thesis.tex").read_text() == "first"
    (place.home / "thesis.tex").unlink()
    assert place.run("restore", "thesis.tex", "--at", at_second).returncode == 0
    assert (place.home / "thesis.tex").read_text() == "second"
    assert place.run("restore", "thesis.tex", "--at", at_first, "--to", str(place.top / "aside")).returncode == 0
    assert (place.top / "aside" / "thesis.tex").read_text() == "first"
    assert place.run("restore", "thesis.tex", "--at", "1999-01-01").returncode == 3
    assert place.run("restore", "thesis.tex", "--at", "yesterday").returncode == 2
    assert place.run("versions", "never-was").returncode == 3
    assert place.run("versions", "../outside").returncode == 2
    place.end(process)


def test_a_deletion_while_the_sidecar_was_down_is_a_deletion_in_the_same_home_only(place: Place) -> None:
    for number in range(20):
        (place.home / f"f{number}").write_text("x")
    place.end(place.start())
    (place.home / "f0").unlink()
    process = place.start()
    place.flush()
    assert not (place.mirror / "f0").exists()
    assert not (place.home / "f0").exists(), "a deleted file came back in the same home"
    place.end(process)

    place.new_home()
    process = place.start()
    assert sorted(p.name for p in place.home.iterdir() if p.name != "Save") == sorted(f"f{n}" for n in range(1, 20))
    place.flush()
    assert len(list(place.mirror.iterdir())) == 19
    place.end(process)


def test_a_lost_journal_is_rebuilt_and_deletes_nothing(place: Place) -> None:
    for number in range(10):
        (place.home / f"f{number}").write_text("x")
    place.end(place.start())
    (place.persist / ".jupyterhub-sidecar" / "default" / "journal").unlink()
    before = tree(place.mirror)
    process = place.start()
    place.flush()
    place.end(process)
    assert tree(place.mirror) == before
    assert not any((place.persist / ".jupyterhub-sidecar" / "default" / "versions").rglob("*_*"))


def test_a_mass_deletion_pulls_the_brake_until_it_is_accepted(place: Place) -> None:
    for number in range(20):
        (place.home / f"f{number}").write_text(str(number))
    process = place.start()
    place.flush()
    for number in range(15):
        (place.home / f"f{number}").unlink()
    assert place.flush()["brake"]
    status = place.status()
    assert (status["state"], bool(status["brake"])) == ("degraded", True)
    assert len(list(place.mirror.iterdir())) == 20
    assert place.run("backup").returncode == 3
    assert place.end(process) == 3
    assert len(list(place.mirror.iterdir())) == 20

    process = place.start(state="degraded")
    assert place.run("backup", "--accept-deletions").returncode == 0
    assert len(list(place.mirror.iterdir())) == 5
    wait_until(lambda: place.status()["state"] == "watching", "the brake is released")
    assert place.end(process) == 0
    assert place.run("restore", "f3").returncode == 0
    assert (place.home / "f3").read_text() == "3"


def test_an_emptied_home_pulls_the_brake_while_running(place: Place) -> None:
    for number in range(6):
        (place.home / f"f{number}").write_text(str(number))
    process = place.start()
    place.flush()
    for number in range(6):
        (place.home / f"f{number}").unlink()
    place.flush()
    assert len(list(place.mirror.iterdir())) == 6
    assert place.end(process) == 3


def test_status_is_quick_and_says_stopped_where_nothing_runs(place: Place) -> None:
    started = time.monotonic()
    document = place.run_json("status", "--json")
    assert time.monotonic() - started < 2
    assert (document["schema"], document["state"]) == (1, "stopped")
    process = place.start()
    document = place.run_json("status", "--json")
    assert document["state"] == "watching"
    assert document["watch"]["watches"] >= 1
    assert {"protected", "pending", "skipped", "failed", "last_saved_at", "persist", "left_behind", "brake"} <= set(
        document
    )
    os.killpg(process.pid, signal.SIGSTOP)
    started = time.monotonic()
    frozen = place.run_json("status", "--json")
    assert time.monotonic() - started < 2
    assert (frozen["state"], frozen["detail"]) == ("degraded", "the sidecar runs, and does not answer")
    os.killpg(process.pid, signal.SIGCONT)
    place.end(process)
    assert place.run_json("status", "--json")["state"] == "stopped"


def test_a_killed_sidecar_is_stopped_and_can_start_again(place: Place) -> None:
    place.kill(place.start())
    assert place.run_json("status", "--json")["state"] == "stopped"
    assert place.end(place.start()) == 0


def test_backup_saves_once_and_beside_a_running_sidecar_asks_it_to(place: Place) -> None:
    (place.home / "a.txt").write_text("a")
    assert place.run("backup").returncode == 0
    assert (place.mirror / "a.txt").read_text() == "a"
    process = place.start()
    (place.home / "b.txt").write_text("b")
    assert place.run("backup").returncode == 0
    assert (place.mirror / "b.txt").read_text() == "b"
    assert place.run("run").returncode == 4, "a second sidecar for the same home"
    assert place.end(process) == 0


def test_a_notice_saves_and_the_work_goes_on(place: Place) -> None:
    place.settings = {"SIDECAR_QUIET": "5", "SIDECAR_MAX_DELAY": "10"}
    process = place.start()
    (place.home / "a.txt").write_text("a")
    wait_until(lambda: place.status()["pending"]["files"] == 1, "the change is seen")
    process.send_signal(signal.SIGUSR1)
    wait_until((place.mirror / "a.txt").exists, "the notice makes it safe", 3)
    (place.home / "b.txt").write_text("b")
    assert place.flush()["unsaved"] == 0
    assert place.status()["state"] == "watching"
    assert place.end(process) == 0


def test_sigterm_saves_what_changed_in_the_last_moment(place: Place) -> None:
    (place.home / "old").write_text("old")
    process = place.start()
    place.flush()
    (place.home / "new").mkdir()
    for number in range(300):
        (place.home / "new" / f"f{number}").write_text(str(number))
    (place.home / "old").write_text("changed")
    assert place.end(process) == 0
    assert {p.name: p.read_text() for p in (place.mirror / "new").iterdir()} == {f"f{n}": str(n) for n in range(300)}
    assert (place.mirror / "old").read_text() == "changed"


def test_sigterm_right_at_the_start_is_an_end_and_not_a_kill(place: Place) -> None:
    (place.home / "a.txt").write_text("a")
    codes = set()
    for delay_s in (0.15, 0.2, 0.3):
        process = place.spawn(place.command("run"))
        try:
            process.wait(delay_s)
        except subprocess.TimeoutExpired:
            codes.add(place.end(process))
    assert codes <= {0, -signal.SIGTERM}, codes
    assert 0 in codes
    assert (place.mirror / "a.txt").read_text() == "a"


def test_a_second_sigterm_cuts_the_drain_short_and_names_what_is_left(place: Place) -> None:
    place.settings = {"SIDECAR_QUIET": "30", "SIDECAR_MAX_DELAY": "60"}
    process = place.start()
    with (place.home / "big.bin").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 300 << 20)
    (place.home / "small.ipynb").write_text("{}")
    wait_until(lambda: place.status()["pending"]["files"] == 2, "both are seen")
    process.terminate()
    wait_until(lambda: "the end:" in place.log.read_text(), "the drain has begun")
    process.terminate()
    code = process.wait(10)
    if code == 0:  # a disk faster than two signals
        assert (place.mirror / "big.bin").stat().st_size == 300 << 20
        return
    assert code == 5
    assert "NOT SAVED" in place.log.read_text()
    (place.home / "big.bin").unlink()
    process = place.start()
    assert "big.bin" in [file["path"] for file in place.status()["left_behind"]["files"]]
    assert place.flush()["unsaved"] == 0
    assert place.end(process) == 0
    assert (place.mirror / "small.ipynb").read_text() == "{}"
    assert not (place.persist / ".jupyterhub-sidecar" / "default" / "left-behind.json").exists()


def test_an_unreadable_file_is_named_and_is_exit_code_3(place: Place) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    for directory in (place.top, place.home, place.persist, place.run_directory):
        os.chown(directory, 1000, 1000)
    for above in [place.top, *place.top.parents]:
        if above != Path("/tmp") and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)
    place.prefix = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--"]
    if place.run("status").returncode != 0:
        pytest.skip("another user cannot run this environment's Python")
    (place.home / "fine.txt").write_text("fine")
    (place.home / "secret.txt").write_text("secret")
    (place.home / "locked").mkdir()
    (place.home / "locked" / "inside.txt").write_text("inside")
    for name in ("secret.txt", "locked"):
        (place.home / name).chmod(0)
    process = place.start()
    reply = place.flush()
    assert reply["unsaved"] == 2
    assert {item["path"] for item in place.status()["failed"]} == {"secret.txt", "locked"}
    assert place.run("backup").returncode == 3
    assert (place.mirror / "fine.txt").read_text() == "fine"
    (place.home / "secret.txt").chmod(0o600)
    os.chown(place.home / "secret.txt", 1000, 1000)
    (place.home / "locked").chmod(0o777)
    assert place.flush()["unsaved"] == 0
    (place.home / "locked").chmod(0)
    (place.home / "secret.txt").chmod(0)
    (place.home / "secret.txt").write_text("changed")
    assert place.end(process) == 3
    assert (place.mirror / "secret.txt").read_text() == "secret"


def test_a_sigterm_is_heard_at_once_whatever_the_sidecar_is_doing(place: Place) -> None:
    for delay_s in (0.0, 0.0005, 0.001, 0.002, 0.004):
        process = place.start()
        place.flush()
        time.sleep(delay_s)  # another moment between two waits each time
        assert place.end(process, deadline_s=5) == 0
