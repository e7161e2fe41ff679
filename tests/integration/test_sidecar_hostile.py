"""Links planted on Persist and in the home: nothing outside of them is ever read, written or followed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import Place, tree, wait_until

_SECRET = b"a secret of somebody else"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    directory = tmp_path / "outside"
    (directory / "sub").mkdir(parents=True)
    (directory / "work.txt").write_bytes(_SECRET)
    (directory / "sub" / "inner.txt").write_bytes(_SECRET)
    return directory


def _contents_on_persist(place: Place) -> list[bytes]:
    return [p.read_bytes() for p in place.persist.rglob("*") if p.is_file() and not p.is_symlink()]


def test_a_link_in_place_of_the_mirror_is_moved_aside_and_not_followed(place: Place, outside: Path) -> None:
    place.mirror.parent.mkdir()
    place.mirror.symlink_to(outside)
    before = tree(outside)
    (place.home / "work.txt").write_text("mine")
    process = place.start()
    assert place.flush()["unsaved"] == 0
    assert place.end(process) == 0
    assert tree(outside) == before
    assert not place.mirror.is_symlink()
    assert (place.mirror / "work.txt").read_text() == "mine"
    assert _SECRET not in _contents_on_persist(place)
    assert sorted(p.name for p in place.home.iterdir()) == ["Save", "work.txt"]


@pytest.mark.parametrize("name", ["Backup", ".jupyterhub-sidecar", ".jupyterhub-sidecar/default"])
def test_a_link_in_place_of_our_own_directories_is_refused(place: Place, outside: Path, name: str) -> None:
    (place.persist / name).parent.mkdir(exist_ok=True)
    (place.persist / name).symlink_to(outside)
    before = tree(outside)
    (place.home / "work.txt").write_text("mine")
    result = place.run("run")
    assert (result.returncode, "Traceback" in result.stderr) == (4, False), result.stderr
    assert tree(outside) == before
    assert tree(place.home) == {"work.txt": tree(place.home)["work.txt"]}


@pytest.mark.parametrize("when", ["before the start", "while it runs"])
def test_a_link_in_the_mirror_where_a_directory_should_be_is_moved_aside(
    place: Place, outside: Path, when: str
) -> None:
    (place.home / "sub").mkdir()
    (place.home / "sub" / "inner.txt").write_text("mine")
    before = tree(outside)
    process = place.start()
    place.flush()
    if when == "before the start":
        assert place.end(process) == 0
    subprocess.run(["rm", "-rf", str(place.mirror / "sub")], check=True)
    (place.mirror / "sub").symlink_to(outside)
    if when == "before the start":
        process = place.start()
    (place.home / "sub" / "inner.txt").write_text("changed")
    (place.home / "sub" / "new.txt").write_text("new")
    assert place.flush()["unsaved"] == 0
    (place.home / "sub" / "inner.txt").unlink()
    place.flush()
    assert place.end(process) == 0
    assert tree(outside) == before
    assert (place.mirror / "sub" / "new.txt").read_text() == "new"
    assert not (place.mirror / "sub").is_symlink()


def test_a_link_in_the_mirror_is_not_followed_by_a_restore(place: Place, outside: Path) -> None:
    (place.home / "sub").mkdir()
    (place.home / "sub" / "inner.txt").write_text("mine")
    assert place.run("backup").returncode == 0
    subprocess.run(["rm", "-rf", str(place.mirror / "sub")], check=True)
    (place.mirror / "sub").symlink_to(outside / "sub")
    place.new_home()
    assert place.run("restore").returncode == 3
    process = place.start()
    place.flush()
    place.end(process)
    for path in place.home.rglob("*"):
        assert path.is_symlink() or path.is_dir() or path.read_bytes() != _SECRET


def test_what_is_planted_under_a_mounts_name_is_not_restored_into_it(place: Place) -> None:
    (place.home / "work.txt").write_text("mine")
    assert place.run("backup").returncode == 0
    (place.mirror / "Shared").mkdir()
    (place.mirror / "Shared" / "planted.txt").write_text("planted")
    (place.persist / ".jupyterhub-sidecar" / "default" / "journal").unlink()  # so that the mirror is read
    place.new_home()
    (place.home / "Shared").mkdir()
    assert place.run("restore").returncode == 0
    assert list((place.home / "Shared").iterdir()) == []
    process = place.start()
    assert list((place.home / "Shared").iterdir()) == []
    place.end(process)


def test_links_in_the_home_are_kept_as_links_and_the_tiers_are_not_entered(place: Place, outside: Path) -> None:
    (place.home / "to-outside").symlink_to(outside)
    (place.home / "to-file").symlink_to(outside / "work.txt")
    (place.home / "loop").symlink_to(".")
    (place.home / "Persist").symlink_to(place.persist)
    (place.home / "Shared").mkdir()
    (place.home / "Shared" / "theirs.txt").write_text("theirs")
    process = place.start()
    assert place.flush()["unsaved"] == 0
    assert place.end(process) == 0
    assert {p.name: os.readlink(p) for p in place.mirror.iterdir()} == {
        "to-outside": str(outside),
        "to-file": str(outside / "work.txt"),
        "loop": ".",
    }
    assert os.readlink(place.home / "Save") == "Persist"


# Swaps a directory with a link to the outside as fast as it can, by the kernel's atomic exchange.
_ATTACK = """
import ctypes, os, sys
home, rounds = os.fsencode(sys.argv[1]), 0
libc = ctypes.CDLL(None, use_errno=True)
while True:
    libc.renameat2(-100, os.path.join(home, b"sub"), -100, os.path.join(home, b"decoy"), 2)
    rounds += 1
    if rounds % 50 == 0:
        with open(os.path.join(home, b"poke"), "w") as poke:
            poke.write(str(rounds))
        for name in (b"sub", b"decoy"):
            try:
                fd = os.open(os.path.join(home, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
            except OSError:
                continue
            inner = os.open(b"inner.txt", os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW, dir_fd=fd)
            os.write(inner, b"mine %d" % rounds)
            os.close(inner)
            os.close(fd)
"""


def test_a_directory_swapped_with_a_link_all_the_time_leads_nothing_outside(place: Place, outside: Path) -> None:
    (place.home / "sub").mkdir()
    (place.home / "sub" / "inner.txt").write_text("mine 0")
    (place.home / "decoy").symlink_to(outside / "sub")
    place.settings = {"SIDECAR_QUIET": "0.001", "SIDECAR_MAX_DELAY": "0.01", "SIDECAR_SCAN_INTERVAL": "0.05"}
    before = tree(outside)
    process = place.start()
    attack = subprocess.Popen([sys.executable, "-c", _ATTACK, str(place.home)])
    try:
        for _ in range(5):
            place.flush()
            assert process.poll() is None, "the attack ended the sidecar"
    finally:
        attack.kill()
        attack.wait()
    wait_until(lambda: place.flush()["unsaved"] == 0, "after the attack everything is safe")
    assert place.end(process) == 0
    assert tree(outside) == before
    assert _SECRET not in _contents_on_persist(place)
    real, link = (place.mirror / "sub", place.mirror / "decoy")
    if real.is_symlink():
        real, link = link, real
    assert (real / "inner.txt").read_text().startswith("mine")
    assert os.readlink(link) == str(outside / "sub")
