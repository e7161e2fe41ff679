"""What is listed at the end can always be read at the next start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sidecar.backup import left_behind
from sidecar.fsops import FileSystem

_LONGEST = b"/".join([b"\xff" * 255] * 16)


def _read_back(top: Path, document: dict[str, Any]) -> Any:
    fd = os.open(top, os.O_RDONLY)
    try:
        left_behind.write(FileSystem(), fd, document)
        return left_behind.read(FileSystem(), fd)
    finally:
        os.close(fd)


def _document(paths: list[str]) -> dict[str, Any]:
    files = [{"path": path, "reason": "the time was up"} for path in paths]
    return {"schema": 1, "count": 12_345, "files": files}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    document = _document(["notes.ipynb", "data.h5"])
    assert _read_back(tmp_path, document) == document


@pytest.mark.parametrize("long_first", [False, True])
def test_of_too_much_the_first_files_are_listed_and_the_count_stays(tmp_path: Path, long_first: bool) -> None:
    longest = _LONGEST.decode("utf-8", "backslashreplace")
    paths = ["short"] * 500 + [f"{number}{longest}" for number in range(500)]
    document = _document(paths[::-1] if long_first else paths)
    found = _read_back(tmp_path, document)
    assert found["count"] == 12_345
    assert 20 < len(found["files"]) < 1000
    assert found["files"] == document["files"][: len(found["files"])]


def test_nothing_that_can_be_read_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "left-behind.json").write_text("{")
    fd = os.open(tmp_path, os.O_RDONLY)
    assert left_behind.read(FileSystem(), fd) is None
    left_behind.clear(FileSystem(), fd)
    left_behind.clear(FileSystem(), fd)
    assert left_behind.read(FileSystem(), fd) is None
    os.close(fd)
