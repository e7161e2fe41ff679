"""Persist says whose it is once somebody knows, and nobody else writes to it then."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sidecar.backup.persist import Layout
from sidecar.config import Settings
from sidecar.errors import EXIT_PERSIST, PersistForeign
from sidecar.fsops import FileSystem
from tests.processes import tree
from tests.unit.sidecar.stores import SetClock

_MARKER = Path(".jupyterhub-sidecar/format.json")


def _prepare(persist: Path, owner: str, fs: FileSystem | None = None, server: str = "default") -> None:
    settings = Settings(home="/nowhere", persist=str(persist), owner=owner, server=server, require_mount=False)
    with closing(Layout(fs or FileSystem(), SetClock(), settings)) as layout:
        layout.prepare()


def _marker(persist: Path) -> Any:
    return json.loads((persist / _MARKER).read_text())


@pytest.mark.parametrize("owner", ["anna", "Ünï <b>\n", "\udcff", "x" * 1024])
def test_the_owner_is_written_with_the_first_marker_and_his_servers_are_let_in(tmp_path: Path, owner: str) -> None:
    _prepare(tmp_path, owner)
    assert _marker(tmp_path)["owner"] == owner
    _prepare(tmp_path, owner, server="other")
    _prepare(tmp_path, "", server="third")
    assert _marker(tmp_path)["owner"] == owner


def test_an_old_marker_without_owner_gets_one_and_keeps_all_else(tmp_path: Path) -> None:
    _prepare(tmp_path, "")
    assert "owner" not in _marker(tmp_path)
    old = {**_marker(tmp_path), "of a later version": [1]}
    (tmp_path / _MARKER).write_text(json.dumps(old))
    _prepare(tmp_path, "")
    assert _marker(tmp_path) == old
    _prepare(tmp_path, "anna")
    assert _marker(tmp_path) == {**old, "owner": "anna"}
    assert [path.name for path in (tmp_path / _MARKER).parent.iterdir() if path.is_file()] == ["format.json"]


def test_a_version_that_knows_of_no_owner_reads_the_marker(tmp_path: Path) -> None:
    """All that version 0.1.0 asks of it: format 1."""
    _prepare(tmp_path, "anna")
    assert _marker(tmp_path)["format"] == 1


@pytest.mark.parametrize("server", ["default", "new one"])
def test_somebody_elses_persist_is_refused_and_nothing_is_written(tmp_path: Path, server: str) -> None:
    _prepare(tmp_path, "anna")
    before = tree(tmp_path)
    with pytest.raises(PersistForeign, match="belongs to 'anna' and not to 'bob'") as caught:
        _prepare(tmp_path, "bob", server=server)
    assert caught.value.exit_code == EXIT_PERSIST
    assert tree(tmp_path) == before


@pytest.mark.parametrize("text", ["[]", "5", '{"owner": "anna"}', "{", '{"format": 1, "owner": 5}'])
def test_a_marker_that_says_something_else_is_foreign(tmp_path: Path, text: str) -> None:
    _prepare(tmp_path, "anna")
    (tmp_path / _MARKER).write_text(text)
    with pytest.raises(PersistForeign):
        _prepare(tmp_path, "anna")


def test_of_two_owners_at_the_same_moment_one_is_refused(tmp_path: Path) -> None:
    class SomebodyIsFirst(FileSystem):
        def rename(self, source: bytes, target: bytes, *, source_at: int, target_at: int) -> None:
            super().rename(source, target, source_at=source_at, target_at=target_at)
            if target == b"format.json":
                marker = {**_marker(tmp_path), "owner": "anna"}
                (tmp_path / _MARKER).write_text(json.dumps(marker))

    with pytest.raises(PersistForeign):
        _prepare(tmp_path, "bob", SomebodyIsFirst())


def test_a_full_persist_gets_no_litter(tmp_path: Path) -> None:
    class Full(FileSystem):
        def fsync(self, fd: int) -> None:
            raise OSError(28, f"No space left on device: {fd}")

    (tmp_path / ".jupyterhub-sidecar").mkdir()
    (tmp_path / "Backup").mkdir()
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            _prepare(tmp_path, "anna", Full())
    assert list((tmp_path / ".jupyterhub-sidecar").iterdir()) == []


def test_what_stands_where_the_lease_is_to_be_is_moved_aside(tmp_path: Path) -> None:
    state = tmp_path / ".jupyterhub-sidecar/default"
    (state / "lease").mkdir(parents=True)
    _prepare(tmp_path, "")
    assert not (state / "lease").exists()
    assert len(list((state / "aside").iterdir())) == 1
