"""The program of the porter: it stages files, batch after batch, until its input ends. See ``porter``."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress

from sidecar.clock import Clock
from sidecar.copy import Copier, Source, Staged
from sidecar.entry import Entry, parent
from sidecar.fsops import DestinationError, FileSystem, Tree
from sidecar.outcome import ChangedWhileReading, Failed, Skipped, Vanished

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

FRAME = struct.Struct("<Q")

Task = tuple[bytes, bytes, bytes, bool, bool]
"""Path, packed entry, name in the staging directory, whether it may be a core dump, whether it may be mapped."""

Reply = bytes | tuple[str, str] | int | None
"""The packed entry of what was staged; a kind of outcome and its reason; an errno of Persist; None where it changed."""


def read_frame(fd: int) -> bytes:
    """The next message; empty at the end. Raises ``OSError`` and ``EOFError``."""
    head = _read(fd, FRAME.size, may_end=True)
    return _read(fd, FRAME.unpack(head)[0]) if head else b""


def _read(fd: int, count: int, *, may_end: bool = False) -> bytes:
    blocks: list[bytes] = []
    left = count
    while left:
        block = os.read(fd, left)
        if not block:
            if may_end and not blocks:
                return b""
            raise EOFError("the other side is gone in the middle of a message")
        blocks.append(block)
        left -= len(block)
    return b"".join(blocks)


def write_frame(fd: int, message: bytes) -> None:
    """``message`` is sent. Raises ``OSError``."""
    view = memoryview(FRAME.pack(len(message)) + message)
    while view:
        view = view[os.write(fd, view) :]


def main() -> None:
    """Descriptors of the home and of the staging directory, and the cap in bytes, are the arguments."""
    # It must not go on where the next sidecar begins.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    home_fd, staging_fd, max_file_bytes = (int(word) for word in sys.argv[1:4])
    fs, clock = FileSystem(), Clock()
    copier = Copier(fs, clock, staging_fd, max_file_bytes, clock.sleep, lambda: False)
    home = Tree(fs, home_fd)
    while request := _next_request():
        tasks: list[Task] = pickle.loads(request)  # noqa: S301  from our own parent
        write_frame(1, pickle.dumps(list(_replies(copier, home, tasks))))
        home.forget()


def _next_request() -> bytes:
    with suppress(EOFError):  # whoever asked died while it did
        return read_frame(0)
    return b""


def _replies(copier: Copier, home: Tree, tasks: list[Task]) -> Iterator[Reply]:
    for path, packed, name, may_be_core, mapped in tasks:
        try:
            directory_fd = home.directory(parent(path))
        except OSError:
            yield "vanished", ""
            continue
        try:
            source = Source(path, directory_fd, Entry.unpack(packed), may_be_core, mapped)
            result = copier.stage(source, name, harden_later=False)
        except DestinationError as error:
            yield error.errno or 0
            continue
        match result:
            case Staged():
                yield result.entry.pack()
            case Skipped():
                yield "skipped", result.reason
            case Failed():
                yield "failed", result.reason
            case Vanished():
                yield "vanished", ""
            case ChangedWhileReading():
                yield None


if __name__ == "__main__":
    main()
