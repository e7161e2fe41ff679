"""What an end could not save, listed durably on Persist and shown at the next start."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sidecar.fsops import FileSystem, destination, read_file, sync_directory, write_file

NAME = b"left-behind.json"
_MAX_BYTES = 1 << 20


def read(fs: FileSystem, state_fd: int) -> Any:
    """What the last end listed; None where it left nothing behind. Raises ``OSError``."""
    try:
        return json.loads(read_file(fs, state_fd, NAME, _MAX_BYTES))
    except (FileNotFoundError, ValueError):
        return None


def write(fs: FileSystem, state_fd: int, document: dict[str, Any]) -> None:
    """``document`` is listed durably; of its ``files`` the first ones, as many as ``read`` takes in.

    Raises ``DestinationError``.
    """
    with destination():
        write_file(fs, state_fd, NAME, _bounded(document))


def _bounded(document: dict[str, Any]) -> bytes:
    files: Sequence[object] = document["files"]
    while len(data := json.dumps({**document, "files": files}, indent=1).encode() + b"\n") > _MAX_BYTES and files:
        files = files[: len(files) * _MAX_BYTES // len(data)]
    return data


def clear(fs: FileSystem, state_fd: int) -> None:
    """Nothing is left behind. Raises ``DestinationError``."""
    with destination():
        try:
            fs.unlink(NAME, at=state_fd)
        except FileNotFoundError:
            return
        sync_directory(fs, state_fd)
