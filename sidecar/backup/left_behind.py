"""What an end could not save, listed durably on Persist and shown at the next start."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from sidecar.copy import FULL
from sidecar.fsops import CREATE_FLAGS, FileSystem, destination, read_file, sync_directory, write_all, write_file

NAME = b"left-behind.json"
BALLAST = b"ballast"
_BALLAST_BYTES = 64 << 10
_MAX_BYTES = 1 << 20


def read(fs: FileSystem, state_fd: int) -> Any:
    """What the last end listed; None where it left nothing behind. Raises ``OSError``."""
    try:
        return json.loads(read_file(fs, state_fd, NAME, _MAX_BYTES))
    except (FileNotFoundError, ValueError):
        return None


def write(fs: FileSystem, state_fd: int, document: dict[str, Any]) -> None:
    """``document`` is listed durably; of its ``files`` the first ones, as many as ``read`` takes in.

    On a full Persist it takes the place of the ballast. Raises ``DestinationError``.
    """
    with destination():
        try:
            write_file(fs, state_fd, NAME, _bounded(document, _MAX_BYTES))
        except OSError as error:
            if error.errno not in FULL:
                raise
            with suppress(FileNotFoundError):
                fs.unlink(BALLAST, at=state_fd)
            write_file(fs, state_fd, NAME, _bounded(document, _BALLAST_BYTES // 2))


def take_ballast(fs: FileSystem, state_fd: int) -> None:
    """There is a file that can be given up for the list when nothing else fits; where there is room for it now."""
    with suppress(OSError):
        fd = fs.open(BALLAST, CREATE_FLAGS, at=state_fd)
        try:
            write_all(fs, fd, os.urandom(_BALLAST_BYTES))  # nothing that a file system makes smaller
            fs.fsync(fd)
        finally:
            fs.close(fd)


def _bounded(document: dict[str, Any], most_bytes: int) -> bytes:
    files: Sequence[object] = document["files"]
    while len(data := json.dumps({**document, "files": files}, indent=1).encode() + b"\n") > most_bytes and files:
        files = files[: len(files) * most_bytes // len(data)]
    return data


def clear(fs: FileSystem, state_fd: int) -> None:
    """Nothing is left behind. Raises ``DestinationError``."""
    with destination():
        try:
            fs.unlink(NAME, at=state_fd)
        except FileNotFoundError:
            return
        sync_directory(fs, state_fd)
