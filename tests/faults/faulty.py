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

SYNCED_AS_A_WHOLE = 0xEF53
"""The type of ext4: a batch is made durable by one ``sync_file_system``."""
SYNCED_BY_FILE = 0x6969
"""The type of NFS: every file and directory of a batch has an ``fsync`` of its own."""
MODES = {"as a whole": SYNCED_AS_A_WHOLE, "by file": SYNCED_BY_FILE}


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


NO_FAULT = Fault()

_WRITING = frozenset(
    {"write", "copy_range", "fsync", "sync_file_system", "truncate", "rename", "link", "symlink", "mkdir"}
    | {"open_unnamed", "link_unnamed"}
)
_GENERATORS = frozenset({"entries", "chosen"})
"""Their work is done while somebody iterates: after the call is before the work."""


class FaultyFileSystem(FileSystem):
    """Counts the calls and lets ``fault`` happen. A sync costs nothing here: no power cut is played."""

    def __init__(
        self, fault: Fault = NO_FAULT, *, kind: int = SYNCED_AS_A_WHOLE, armed: bool = True, thread: str = ""
    ) -> None:
        """Only the calls of threads count whose names begin with ``thread``."""
        self.fault = fault
        self.kind = kind
        """What it says its type is: it decides how a batch is made durable."""
        self._armed, self._thread = armed, thread
        self._counted = 0
        self.calls: list[str] = []
        self.happened = False
        self.thread = ""
        """The name of the thread whose call had the fault."""
        self._dead = False
        self._lock = threading.Condition()
        self._busy = 0
        self._open: set[int] = set()

    def arm(self) -> None:
        """The calls are counted from here, where ``armed`` was not set from the beginning."""
        if not self._armed:
            self.calls.clear()
            self._counted = 0
            self._armed = True

    def perform(self, name: str, call: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        """The call ``name``, or its fault."""
        with self._lock:
            if self._dead:
                raise Killed
            self._busy += 1
        try:
            return self._perform(name, call, *args, **keywords)
        finally:
            with self._lock:
                self._busy -= 1
                self._lock.notify_all()

    def _perform(self, name: str, call: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        with self._lock:
            self.calls.append(name)
            counts = threading.current_thread().name.startswith(self._thread)
            self._counted += counts
            now = self._armed and counts and self._counted == self.fault.at
            again = self.fault.lasting and self.happened and not now and name in _WRITING
            if now:
                self.happened, self.thread = True, threading.current_thread().name
            if now and (self.fault.killed == "before" or (self.fault.killed == "after" and name in _GENERATORS)):
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
        if name in ("open", "open_unnamed", "duplicate"):
            self._open.add(result)
        elif name == "close":
            self._open.discard(args[0])
        return result

    def fsync(self, fd: int) -> None:
        """Only counted."""

    def sync_file_system(self, fd: int) -> None:
        """Only counted."""

    def file_system_type(self, fd: int) -> int:  # noqa: ARG002  the call's signature
        """What the test wants it to be."""
        return self.kind

    def bury(self) -> None:
        """What the dead left open is closed, as the kernel does it, when nobody works with it any more."""
        with self._lock:
            self._dead = True
            self._lock.wait_for(lambda: not self._busy)
        for fd in self._open:
            with suppress(OSError):
                os.close(fd)
        self._open.clear()


def _counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: FaultyFileSystem, *args: Any, **keywords: Any) -> Any:
        return self.perform(name, call, *args, **keywords)

    return method


CALLS = frozenset(name for name in vars(FileSystem) if not name.startswith("_"))
"""Every call that the sidecar can make."""

for _name in CALLS:
    setattr(FaultyFileSystem, _name, _counted(_name, vars(FaultyFileSystem).get(_name, vars(FileSystem)[_name])))


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
