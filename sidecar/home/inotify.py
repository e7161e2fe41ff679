"""watchdog's inotify thread without its books: a watch is a number here, and whoever asked for it knows its path.

For each watch watchdog keeps an object, a dictionary and a path. With ten thousand directories that is 4 MB, and half
of the time that it takes to watch them.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable

from watchdog.observers.inotify_c import (
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchDescriptor,
    inotify_add_watch,
    inotify_rm_watch,
)


class Inotify(InotifyFD):
    """One inotify instance; ``hear`` is called on its thread with every event, overflows and ends of watches too."""

    def __init__(self, hear: Callable[[InotifyEvent], None]) -> None:
        """Raises ``OSError``: EMFILE at the limit of instances."""
        super().__init__()
        self._hear = hear

    def watch(self, path: bytes, mask: Mask) -> WatchDescriptor:
        """The watch of what ``path`` is; the same number again where it is watched already, under whatever path.

        Raises ``OSError``: ENOSPC at the limit of watches, EACCES where nobody may look.
        """
        number = inotify_add_watch(self._inotify_fd, path, mask)
        if number == -1:
            raise _last_error()
        return number

    def end(self, number: WatchDescriptor) -> None:
        """The watch ``number`` is no more. It may have ended by itself: with the directory that it was for."""
        if inotify_rm_watch(self._inotify_fd, number) == -1 and ctypes.get_errno() != errno.EINVAL:
            raise _last_error()

    def handle_event(self, event: InotifyEvent) -> None:
        """Called by watchdog, for each event."""
        self._hear(event)


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
