"""What a home can hold: every kind of thing under every kind of name comes back as it was, or is named as left out."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Place, wait_until

NAMES = [
    b"plain.txt",
    b"new\nline",
    b"invalid-\xff\xfe",
    b"-rf",
    b"--help",
    b" ",
    b"\x1b[31m",
    b"x" * 255,
    "\u202etxt.exe".encode(),
    b"*?[]{}$(touch x)",
    b"20260101T000000.000000Z_20270101T000000.000000Z",
    b"journal",
    b".new",
]


def test_every_name_is_saved_changed_deleted_and_restored(place: Place) -> None:
    home = os.fsencode(place.home)
    for name in NAMES:
        os.mkdir(os.path.join(home, b"in-" + name[:200]))
        for path in (name, os.path.join(b"in-" + name[:200], name)):
            with open(os.path.join(home, path), "wb") as file:
                file.write(name)
    process = place.start()
    assert place.flush()["unsaved"] == 0
    for name in NAMES:
        with open(os.path.join(home, name), "wb") as file:
            file.write(b"changed " + name)
        os.unlink(os.path.join(home, b"in-" + name[:200], name))
    assert place.flush()["unsaved"] == 0
    place.status()
    assert place.end(process) == 0
    mirror = os.fsencode(place.mirror)
    for name in NAMES:
        with open(os.path.join(mirror, name), "rb") as file:
            assert file.read() == b"changed " + name
        assert os.listdir(os.path.join(mirror, b"in-" + name[:200])) == []
        assert place.run("restore", os.fsdecode(os.path.join(b"in-" + name[:200], name))).returncode == 0
        with open(os.path.join(home, b"in-" + name[:200], name), "rb") as file:
            assert file.read() == name
    place.new_home()
    process = place.start()
    assert sorted(os.listdir(home)) == sorted([*NAMES, *(b"in-" + name[:200] for name in NAMES), b"Save"])
    assert place.end(process) == 0


def _make_deep(home: Path, levels: int, name: str) -> None:
    fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    leaf = os.open("leaf.txt", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd)
    os.write(leaf, b"at the bottom")
    os.close(leaf)
    os.close(fd)


def _read_deep(top: Path, levels: int, name: str) -> bytes:
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(levels):
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = below
        leaf = os.open("leaf.txt", os.O_RDONLY, dir_fd=fd)
        try:
            return os.read(leaf, 100)
        finally:
            os.close(leaf)
    finally:
        os.close(fd)


@pytest.mark.usefixtures("_no_deep_tree_left")
@pytest.mark.parametrize(("levels", "name"), [(60, "n" * 100), pytest.param(1100, "d", marks=pytest.mark.slow)])
def test_a_tree_deeper_than_a_path_can_name_is_saved_deleted_and_restored(place: Place, levels: int, name: str) -> None:
    _make_deep(place.home, levels, name)
    for number in range(5):
        (place.home / f"other{number}").write_text("x")
    process = place.start()
    assert place.flush()["unsaved"] == 0
    assert _read_deep(place.mirror, levels, name) == b"at the bottom"
    assert place.end(process) == 0
    place.new_home()
    process = place.start()
    assert _read_deep(place.home, levels, name) == b"at the bottom"
    subprocess.run(["rm", "-rf", str(place.home / name)], check=True)  # Python's own recursion ends before
    place.flush()
    assert not (place.mirror / name).exists()
    assert place.end(process) == 0
    assert place.run("restore", name).returncode == 0
    assert _read_deep(place.home, levels, name) == b"at the bottom"


@pytest.fixture
def _no_deep_tree_left(tmp_path: Path) -> Iterator[None]:
    """pytest clears its directories by recursion, which ends at a thousand levels; so do others."""
    yield
    subprocess.run(["rm", "-rf", str(tmp_path)], check=True)


def test_sparse_files_stay_sparse_and_empty_directories_stay(place: Place) -> None:
    with (place.home / "sparse.bin").open("wb") as file:
        file.seek(100 << 20)
        file.write(b"data")
        file.truncate(200 << 20)
    (place.home / "a" / "b" / "empty").mkdir(parents=True)
    (place.home / "empty.txt").touch()
    process = place.start()
    assert place.flush()["unsaved"] == 0
    assert place.end(process) == 0
    place.new_home()
    assert place.end(place.start()) == 0
    for top in (place.mirror, place.home):
        status = (top / "sparse.bin").stat()
        assert (status.st_size, status.st_blocks * 512 < 1 << 20) == (200 << 20, True), top
        with (top / "sparse.bin").open("rb") as file:
            file.seek(100 << 20)
            assert file.read(5) == b"data\0"
        assert list((top / "a" / "b" / "empty").iterdir()) == []
        assert (top / "empty.txt").stat().st_size == 0


def test_special_files_are_skipped_with_their_reason(place: Place) -> None:
    os.mkfifo(place.home / "fifo")
    os.mknod(place.home / "socket", stat.S_IFSOCK | 0o644)
    (place.home / "huge.bin").touch()
    os.truncate(place.home / "huge.bin", 2 << 30)
    (place.home / "__pycache__").mkdir()
    (place.home / "__pycache__" / "x.pyc").write_text("x")
    (place.home / "core").write_text("a text about apples")
    (place.home / "core.77").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x04\x00" + bytes(100))
    os.mkdir(place.home / "locked-time")
    os.utime(place.home / "core", ns=(2**63 + 10**18, 2**63 + 10**18))  # beyond what 64 bits of nanoseconds hold
    process = place.start()
    assert place.flush()["unsaved"] == 0
    reasons = {item["path"]: item["reason"] for item in place.status()["skipped"]}
    assert set(reasons) == {"fifo", "socket", "huge.bin", "__pycache__", "core.77", "Save"}
    assert all(reasons.values())
    assert sorted(p.name for p in place.mirror.iterdir()) == ["core", "locked-time"]
    assert place.end(process) == 0


def test_whatever_replaces_whatever_the_mirror_follows(place: Place) -> None:
    kinds = ("file", "directory", "link")

    def make(path: Path, kind: str) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.is_symlink() or path.exists():
            path.unlink()
        if kind == "file":
            path.write_text("a file")
        elif kind == "directory":
            path.mkdir()
            (path / "inside.txt").write_text("inside")
        else:
            path.symlink_to("/etc")

    def is_kind(path: Path, kind: str) -> bool:
        if kind == "link":
            return path.is_symlink() and os.readlink(path) == "/etc"
        if path.is_symlink():
            return False
        return path.is_file() and path.read_text() == "a file" if kind == "file" else (path / "inside.txt").is_file()

    cases = [(before, after) for before in kinds for after in kinds]
    for before, after in cases:
        make(place.home / f"{before}-{after}", before)
    process = place.start()
    assert place.flush()["unsaved"] == 0
    for before, after in cases:
        make(place.home / f"{before}-{after}", after)
    wait_until(
        lambda: all(is_kind(place.mirror / f"{before}-{after}", after) for before, after in cases),
        "the mirror is as the home",
    )
    assert place.flush()["unsaved"] == 0
    assert place.run("restore", "file-directory", "--to", str(place.top / "aside")).returncode == 0
    assert len(place.run_json("versions", "file-directory", "--json")["versions"]) == 1
    assert len(place.run_json("versions", "directory-file/inside.txt", "--json")["versions"]) == 1
    assert place.end(process) == 0


def test_hard_links_are_saved_as_files(place: Place) -> None:
    (place.home / "one").write_text("content")
    os.link(place.home / "one", place.home / "two")
    process = place.start()
    place.flush()
    (place.home / "one").write_text("changed by either name")
    assert place.flush()["unsaved"] == 0
    assert [(place.mirror / name).read_text() for name in ("one", "two")] == ["changed by either name"] * 2
    assert place.end(process) == 0


def test_a_renamed_directory_is_whole_under_its_new_name_and_pulls_no_brake(place: Place) -> None:
    for number in range(400):
        path = place.home / "before" / f"d{number % 20}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number))
    process = place.start()
    place.flush()
    (place.home / "before").rename(place.home / "after")
    wait_until(lambda: sum(1 for p in place.mirror.glob("after/*/f*")) == 400, "the new name is in the mirror")
    wait_until(lambda: not (place.mirror / "before").exists(), "the old name has left it")
    # What is written under the new name is seen.
    (place.home / "after" / "d3" / "late").write_text("late")
    wait_until((place.mirror / "after" / "d3" / "late").exists, "a change under the new name is safe", 3)
    assert place.status()["brake"] is None
    assert "BRAKE" not in place.log.read_text()
    assert "vanished at once" not in place.log.read_text()
    assert place.end(process) == 0
