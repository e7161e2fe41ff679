"""What the kernel says about changes in the home: one watch for each directory that matters, and nothing else.

Built on watchdog's inotify layer with watches and a mask of our own. Its recursive observer loses events at an
overflow without telling, walks into caches and other tiers, and starts silently half blind at the watch limit.
Events only make the sidecar fast; whatever they miss, the scan finds.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import threading
from contextlib import suppress
from enum import Flag, auto
from typing import Protocol

from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, Mask, WatchDescriptor

from sidecar.entry import join
from sidecar.home.inotify import Inotify

log = logging.getLogger(__name__)

# Not OPEN, ACCESS or CLOSE_NOWRITE: reading changes nothing, and they are most of the events of a busy home.
_MASK = Mask(
    InotifyConstants.IN_MODIFY
    | InotifyConstants.IN_ATTRIB
    | InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_MOVED_FROM
    | InotifyConstants.IN_MOVED_TO
    | InotifyConstants.IN_CREATE
    | InotifyConstants.IN_DELETE
    | InotifyConstants.IN_ONLYDIR
    | InotifyConstants.IN_EXCL_UNLINK
)
_APPEARED = InotifyConstants.IN_CREATE | InotifyConstants.IN_MOVED_TO
_LIMITS = {errno.ENOSPC, errno.EMFILE}


class What(Flag):
    """What happened to a path."""

    CHANGED = auto()
    APPEARED = auto()
    """It is a directory that was made, or moved here."""
    DEPARTED = auto()
    """It is a directory that was moved away."""
    WRITTEN = auto()
    """Somebody writes to it, and has not closed it yet."""
    CLOSED = auto()
    """Whoever wrote to it has closed it; a file that is mapped for writing is closed when it is unmapped."""


class Listener(Protocol):
    """Hears of changes, on the thread of the watch."""

    def changed(self, path: bytes, what: What) -> None:
        """Something happened to ``path``."""

    def moved(self, old: bytes, new: bytes) -> None:
        """The directory ``old`` is ``new`` now; ``changed`` tells of the two names as well."""

    def overflowed(self) -> None:
        """Events were lost."""


class Watch:
    """The watches of one home; ``listener`` hears of what happens."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._departed: tuple[int, bytes] = (0, b"")
        """The cookie and the old path of the directory that was last moved away."""
        self._lock = threading.Lock()
        self._path_of: dict[WatchDescriptor, bytes] = {}
        self._watch_of: dict[bytes, WatchDescriptor] = {}
        self.overflows = 0
        self.limit_reached = False
        self._inotify = self._open()
        self._barrier = _Barrier.of(self._inotify)
        if self._inotify is not None:
            self._inotify.start()

    def _open(self) -> Inotify | None:
        try:
            return Inotify(self._hear)
        except OSError as error:
            if error.errno not in _LIMITS:
                raise
            self._reach_limit(error)
            return None

    def _reach_limit(self, error: OSError) -> None:
        if not self.limit_reached:
            log.warning("%s: what is not watched is found by the scan", error.strerror)
        self.limit_reached = True

    @property
    def watches(self) -> int:
        """How many directories are watched."""
        return len(self._path_of)

    def is_on(self, path: bytes) -> bool:
        """Whether the directory ``path`` is watched."""
        with self._lock:
            return path in self._watch_of

    def add(self, path: bytes, directory_fd: int) -> bool:
        """Whether ``path``, open as ``directory_fd``, is watched from now on. Add first, then read the directory.

        False at the kernel's limit and where we may not look; then only the scan sees the directory.
        """
        if self._inotify is None:
            return False
        with self._lock:
            try:
                # By descriptor: no link planted meanwhile can divert it, and no path is too long.
                watch = self._inotify.watch(b"/proc/self/fd/%d" % directory_fd, _MASK)
            except OSError as error:
                if error.errno == errno.EACCES:
                    return False
                if error.errno not in _LIMITS:
                    raise
                self._reach_limit(error)
                return False
            known_as = self._path_of.get(watch)
            if known_as == path:
                return True
            if known_as is not None:  # the same directory under its old name
                del self._watch_of[known_as]
            replaced = self._watch_of.pop(path, None)
            if replaced is not None:  # another directory, that was moved away from here
                del self._path_of[replaced]
                self._inotify.end(replaced)
            self._path_of[watch] = path
            self._watch_of[path] = watch
            return True

    def remove(self, path: bytes) -> None:
        """Neither ``path`` nor anything below it is watched any more."""
        inside = path + b"/"
        with self._lock:
            for known in [each for each in self._watch_of if each == path or each.startswith(inside)]:
                watch = self._watch_of.pop(known)
                del self._path_of[watch]
                if self._inotify is not None:
                    self._inotify.end(watch)

    def _hear(self, event: InotifyEvent) -> None:
        """Called on the thread of the watch, for each event."""
        if event.is_queue_overflow:
            log.warning("events were lost: the scan finds what they told of")
            self.overflows += 1
            self._listener.overflowed()
        elif self._barrier is not None and event.wd == self._barrier.watch:
            self._barrier.hear(event)
        elif event.is_ignored:
            self._end(event.wd)
        else:
            self._tell(event)

    def _end(self, watch: WatchDescriptor) -> None:
        """The directory of ``watch`` is gone, and its watch with it."""
        with self._lock:
            path = self._path_of.pop(watch, None)
            if path is not None:
                del self._watch_of[path]

    def _tell(self, event: InotifyEvent) -> None:
        with self._lock:
            directory = self._path_of.get(event.wd)
        if directory is None or not event.name:
            return
        path, mask = join(directory, event.name), event.mask
        if mask & InotifyConstants.IN_ISDIR:
            if mask & InotifyConstants.IN_MOVED_FROM:
                self._departed = (event.cookie, path)
            elif mask & InotifyConstants.IN_MOVED_TO and self._departed[0] == event.cookie:
                # First: whoever hears of the new name knows already that it is no new directory.
                self._listener.moved(self._departed[1], path)
            what = What.CHANGED
            if mask & _APPEARED:
                what = What.APPEARED
            elif mask & InotifyConstants.IN_MOVED_FROM:
                what = What.DEPARTED
        elif mask & InotifyConstants.IN_CLOSE_WRITE:
            what = What.CLOSED
        else:
            what = What.WRITTEN if mask & InotifyConstants.IN_MODIFY else What.CHANGED
        self._listener.changed(path, what)

    def catch_up(self, timeout_s: float) -> bool:
        """Whether every event of a change made before this call has been delivered."""
        return self._barrier is not None and self._barrier.passed(timeout_s)

    def close(self) -> None:
        """The thread ends; no call comes after this."""
        if self._inotify is not None:
            self._inotify.stop()
            self._inotify.join(timeout=1.0)
        if self._barrier is not None:
            self._barrier.close()


class _Barrier:
    """An event of our own, in a directory of our own: the queue is first in, first out."""

    def __init__(self, directory: bytes, watch: WatchDescriptor) -> None:
        self._directory, self.watch = directory, watch
        self._names = itertools.count()
        self._seen: dict[bytes, threading.Event] = {}

    @classmethod
    def of(cls, inotify: Inotify | None) -> _Barrier | None:
        if inotify is None:
            return None
        # What tempfile would do, for a name that nobody can guess; it would import a megabyte for it.
        above = os.fsencode(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108  the directory below is 0700 and new
        directory = os.path.join(above, b"jupyterhub-sidecar-%b" % os.urandom(8).hex().encode())
        try:
            os.mkdir(directory, 0o700)
            return cls(directory, inotify.watch(directory, InotifyConstants.IN_CREATE))
        except OSError as error:
            log.warning("no barrier for events (%s): the end relies on the events already delivered", error)
            return None

    def passed(self, timeout_s: float) -> bool:
        name = b"%d" % next(self._names)
        seen = self._seen[name] = threading.Event()
        path = os.path.join(self._directory, name)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            os.unlink(path)
            return seen.wait(timeout_s)
        except OSError:
            return False
        finally:
            del self._seen[name]

    def hear(self, event: InotifyEvent) -> None:
        """Called on the thread of the watch, for each event of the directory."""
        seen = self._seen.get(event.name)
        if seen is not None:
            seen.set()

    def close(self) -> None:
        with suppress(OSError):
            os.rmdir(self._directory)
