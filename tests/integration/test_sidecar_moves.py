"""A directory that is renamed is renamed in the mirror, in one operation; its history stays readable."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from tests.processes import Place, tree, wait_until

FILES = 300


def _inodes(directory: Path) -> dict[str, int]:
    return {str(path.relative_to(directory)): path.stat().st_ino for path in directory.rglob("f*")}


def _make(directory: Path) -> None:
    (directory / "sub" / "deeper").mkdir(parents=True)
    for number in range(FILES):
        (directory / ("sub" if number % 2 else "sub/deeper") / f"f{number}").write_text(f"content {number}")


def _same(place: Place, *, but: tuple[str, ...] = ("Save",)) -> bool:
    try:
        home, mirror = _contents(place.home), _contents(place.mirror)
    except FileNotFoundError:
        return False  # in the middle of a change
    return mirror == {name: content for name, content in home.items() if name.split("/", 1)[0] not in but}


def _contents(top: Path) -> dict[str, bytes]:
    return {name: content for name, (_, _, content) in tree(top).items()}


def test_a_renamed_directory_keeps_its_files_in_the_mirror_and_its_history(place: Place) -> None:
    _make(place.home / "old")
    process = place.start()
    place.flush()
    before = _inodes(place.mirror / "old")
    assert len(before) == FILES
    at = datetime.now(UTC).isoformat()
    (place.home / "new parent").mkdir()
    wait_until((place.mirror / "new parent").is_dir, "the new parent is known")
    (place.home / "old").rename(place.home / "new parent" / "new")
    (place.home / "new parent" / "new" / "sub" / "f1").write_text("changed after the move")
    wait_until(lambda: _same(place), "the mirror is as the home", 5)
    after = _inodes(place.mirror / "new parent" / "new")
    assert {name for name in before if before[name] != after[name]} == {"sub/f1"}, "files were copied again"
    assert not list((place.persist / ".jupyterhub-sidecar/default/versions").rglob("f2"))

    # Not even a lost home knows the old name any more, and yet it can be asked for.
    assert place.end(process) == 0
    target = place.top / "back"
    assert place.run("restore", "old", "--at", at, "--to", str(target)).returncode == 0
    back = {path.name: path.read_text() for path in target.rglob("f*")}
    assert back == {f"f{number}": f"content {number}" for number in range(FILES)}
    (past,) = place.run_json("versions", "--json", "old/sub/f3")["versions"]
    assert not past["current"]
    (present,) = place.run_json("versions", "--json", "new parent/new/sub/f3")["versions"]
    assert present["current"]
    assert past["until"] == present["from"]


def test_directories_that_are_moved_about_end_where_the_home_has_them(place: Place) -> None:
    for name in ("a", "x", "left"):
        _make(place.home / name)
    process = place.start()
    place.flush()
    (place.home / "a").rename(place.home / "b")
    (place.home / "b").rename(place.home / "c")
    (place.home / "x" / "sub").rename(place.home / "c" / "from x")
    (place.home / "x").rename(place.home / "a")  # the name that was free again
    (place.home / "left").rename(place.home / "right")
    (place.home / "right").rename(place.home / "left")
    place.flush()
    assert _same(place)
    (place.home / "c" / "from x" / "deeper" / "f0").write_text("watched under its new name")
    wait_until(lambda: _same(place), "a change in a moved directory is safe", 3)
    assert place.end(process) == 0


def test_a_directory_that_is_moved_to_where_nothing_is_saved_is_gone_from_the_mirror(place: Place) -> None:
    _make(place.home / "work")
    _make(place.home / "other")
    (place.home / ".cache").mkdir()
    process = place.start()
    place.flush()
    (place.home / "work").rename(place.home / ".cache" / "work")
    wait_until(lambda: not (place.mirror / "work").exists(), "it has left the mirror", 5)
    place.flush()
    assert not (place.mirror / ".cache").exists()
    kept = place.persist / ".jupyterhub-sidecar/default/versions/work"
    assert sum(len(files) for _, _, files in os.walk(kept)) == FILES, "its contents are no versions"
    (place.home / ".cache" / "work").rename(place.home / "work")
    wait_until(lambda: _same(place, but=("Save", ".cache")), "it is saved again", 5)
    assert place.end(process) == 0
