"""A file system that really works, and writes down what happened in one directory: for ``Disk``."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.disk import ROOT, Told
from tests.faults.faulty import NO_FAULT, Fault, FaultyFileSystem

Tell = Callable[[], None]


class Record:
    """What happened in the directory ``top``, where all that is there at first is durable: for ``Disk``."""

    def __init__(self, top: Path) -> None:
        self._told: list[Told] = []
        self._numbers = {_key(os.stat(top)): ROOT}
        """Of all that is or was there, by device and inode."""
        self._count = ROOT
        for above, directories, names in os.walk(top):
            at = os.open(above, os.O_RDONLY | os.O_DIRECTORY)
            for name in [*directories, *names]:
                self._tell_of(at, os.fsencode(name))
            os.close(at)
        self._tell("synced_all")

    def _tell(self, call: str, *args: object) -> None:
        self._told.append(Told(call, args))

    def take(self) -> list[Told]:
        """What happened since the last time."""
        told, self._told = self._told, []
        return told

    def _tell_of(self, at: int, name: bytes) -> None:
        """What stands at ``name`` is new there."""
        status = os.stat(name, dir_fd=at, follow_symlinks=False)
        self._count += 1
        number = self._numbers[_key(status)] = self._count
        kind = {stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}.get(stat.S_IFMT(status.st_mode), "file")
        content = os.fsencode(os.readlink(name, dir_fd=at)) if kind == "link" else b""
        self._tell("made", number, self._number_of(at), os.fsdecode(name), kind, content)
        if kind == "link":
            self._tell("touched", number, status.st_mtime_ns)
        if kind == "file":
            fd = os.open(name, os.O_RDONLY, dir_fd=at)
            self._tell_written(fd)
            os.close(fd)

    def _tell_written(self, fd: int) -> None:
        status = os.fstat(fd)
        content = Path(f"/proc/self/fd/{fd}").read_bytes()
        self._tell("written", self._number_of(fd), content, (stat.S_IMODE(status.st_mode), status.st_mtime_ns))

    def _number_of(self, fd: int) -> int | None:
        """The number of what is open as ``fd``; None where it is not ours."""
        return self._numbers.get(_key(os.fstat(fd)))

    def _named(self, name: bytes, at: int) -> int | None:
        try:
            return self._numbers.get(_key(os.stat(name, dir_fd=at, follow_symlinks=False)))
        except FileNotFoundError:
            return None

    def before(self, name: str, *args: Any, **keywords: Any) -> Tell | None:
        """What to tell when the call has worked; None where it changes nothing here."""
        if name == "sync_file_system":
            return lambda: self._tell("synced_all")
        if name in _BY_NAME:
            return self._before_by_name(name, *args, **keywords)
        fd = args[1] if name == "copy_range" else args[0]
        number = None if name not in _BY_DESCRIPTOR else self._number_of(fd)
        if number is None:
            return None
        return (lambda: self._tell("synced", number)) if name == "fsync" else (lambda: self._tell_written(fd))

    def _before_by_name(self, call: str, *args: Any, **keywords: Any) -> Tell | None:
        if call in ("rename", "link"):
            return self._before_two_names(call, *args, **keywords)
        at = keywords.get("at", -1)
        number = None if at < 0 else self._number_of(at)
        if number is None:
            return None
        name = args[1] if call == "symlink" else args[0]
        if call == "unlink":
            return lambda: self._tell("named", None, number, os.fsdecode(name))
        if call == "rmdir":
            gone = self._named(name, at)
            return lambda: self._tell("removed", gone, number, os.fsdecode(name))
        if call == "set_link_times":
            link = self._named(name, at)
            return lambda: self._tell("touched", link, args[1])
        if call == "open" and (not args[1] & os.O_CREAT or self._named(name, at) is not None):
            return None
        return lambda: self._tell_of(at, name)

    def _before_two_names(self, call: str, old: bytes, new: bytes, *, source_at: int, target_at: int) -> Tell | None:
        node, source, target = self._named(old, source_at), self._number_of(source_at), self._number_of(target_at)
        if node is None:
            return None
        if call == "link":
            return lambda: self._tell("named", node, target, os.fsdecode(new))
        return lambda: self._tell("renamed", node, (source, os.fsdecode(old)), (target, os.fsdecode(new)))


_BY_NAME = frozenset({"open", "mkdir", "symlink", "set_link_times", "unlink", "rmdir", "rename", "link"})
_BY_DESCRIPTOR = frozenset({"write", "copy_range", "truncate", "fchmod", "set_times", "fsync"})


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


class RecordingFileSystem(FaultyFileSystem):
    """Tells ``record`` of every call that worked. One call at a time: what happens has an order."""

    def __init__(self, record: Record, fault: Fault = NO_FAULT, *, kind: int, armed: bool = True) -> None:
        super().__init__(fault, kind=kind, armed=armed)
        self._record = record
        self._serial = threading.Lock()

    def perform(self, name: str, call: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        """The call, its fault, and what is told of it."""
        with self._serial:
            tell = self._record.before(name, *args, **keywords)
            result = super().perform(name, call, *args, **keywords)
            if tell is not None:
                tell()
            return result
