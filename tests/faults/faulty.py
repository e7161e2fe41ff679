"""A file system that fails one call, or dies in it; and a clock that waits for nobody."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sidecar.clock import Clock
from sidecar.fsops import FileSystem


class Killed(BaseException):
    """The process ends here: nobody catches it, and nothing it wanted to do afterwards happens."""


@dataclass(frozen=True)
class Fault:
    """What the ``at``-th call does instead of its work. Without any of them set, every call works."""

    at: int = 0
    number: int = 0
    """The errno it fails with."""
    lasting: bool = False
    """Every later call that writes fails with it, too: a disk that is full stays full."""
    short: bool = False
    """It writes only a part."""
    killed: str = ""
    """``before`` or ``after`` its work."""


_WRITING = frozenset(
    {"write", "copy_range", "fsync", "truncate", "rename", "link", "symlink", "mkdir", "open_unnamed", "link_unnamed"}
)


class FaultyFileSystem(FileSystem):
    """Counts the calls and lets ``fault`` happen. ``fsync`` costs nothing here: no power cut is played."""

    def __init__(self, fault: Fault = Fault()) -> None:
        self.fault = fault
        self.calls: list[str] = []
        self.happened = False
        self._dead = False
        self._lock = threading.Lock()
        self._open: set[int] = set()

    def perform(self, name: str, call: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        """The call ``name``, or its fault."""
        with self._lock:
            if self._dead:
                raise Killed
            self.calls.append(name)
            now = len(self.calls) == self.fault.at
            again = self.fault.lasting and len(self.calls) > self.fault.at and name in _WRITING
            self.happened = self.happened or now
            if (now and self.fault.killed == "before") or (now and self.fault.killed == "after" and name == "entries"):
                self._dead = True
                raise Killed
        if (now or again) and self.fault.number:
            if name == "close":  # Linux has given the descriptor back even where close fails
                self._opened(call, *args, **keywords)
            raise OSError(self.fault.number, os.strerror(self.fault.number))
        if now and self.fault.short and name == "write":
            args = (args[0], bytes(args[1])[: max(1, len(args[1]) // 2)])
        if now and self.fault.short and name == "copy_range":
            args = (*args[:2], max(1, args[2] // 2), *args[3:])
        result = self._opened(call, *args, **keywords)
        if now and self.fault.killed == "after":
            self._dead = True
            raise Killed
        return result

    def _opened(self, call: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        result = call(self, *args, **keywords)
        name = call.__name__
        if name in ("open", "open_unnamed"):
            self._open.add(result)
        elif name == "close":
            self._open.discard(args[0])
        return result

    def fsync(self, fd: int) -> None:
        """Only counted."""

    def bury(self) -> None:
        """What the dead left open is closed, as the kernel does it."""
        for fd in self._open:
            with suppress(OSError):
                os.close(fd)


def _counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: FaultyFileSystem, *args: Any, **keywords: Any) -> Any:
        return self.perform(name, call, *args, **keywords)

    return method


for _name, _call in vars(FileSystem).items():
    if not _name.startswith("_"):
        setattr(FaultyFileSystem, _name, _counted(_name, vars(FaultyFileSystem).get(_name, _call)))


class SwiftClock(Clock):
    """Waiting costs nothing, and every change lies well in the past."""

    def __init__(self) -> None:
        self._passed_s = 0.0

    def monotonic(self) -> float:
        return self._passed_s

    def now_ns(self) -> int:
        return time.time_ns() + 10_000_000_000

    def sleep(self, seconds: float) -> None:
        self._passed_s += seconds
