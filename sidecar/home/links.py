"""The ``Save`` link in the home, and what it tells about whose home this is."""

from __future__ import annotations

import logging
import os

from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.fsops import FileSystem
from sidecar.select import SAVE_LINK

log = logging.getLogger(__name__)

PERSIST_MOUNT = b"Persist"


def make_save_link(fs: FileSystem, home_fd: int, settings: Settings) -> bool:
    """``Save`` in the home leads to Persist. False, with a warning, where something of the user's has that name.

    In a pod the link is relative, because the sidecar and the notebook see the home at different places.
    """
    target = PERSIST_MOUNT
    if not settings.require_mount and not _exists(fs, home_fd, PERSIST_MOUNT):
        target = os.fsencode(settings.persist)
    try:
        fs.symlink(target, SAVE_LINK, at=home_fd)
    except FileExistsError:
        try:
            found = fs.readlink(SAVE_LINK, at=home_fd)
        except OSError:
            found = b""
        if found != target:
            log.warning("the home has something of its own called Save: it was left alone")
            return False
    return True


def session_of(fs: FileSystem, home_fd: int, clock: Clock) -> bytes:
    """Which home this is: the same text for the same home, and another for every other.

    The link is made once in each home and its times cannot be set by a user, so its identity is the home's. Where it
    is not ours, the home counts as a new one each time: then nothing in it can be called deleted.
    """
    home = fs.fstat(home_fd)
    try:
        link = fs.lstat(SAVE_LINK, at=home_fd)
        fs.readlink(SAVE_LINK, at=home_fd)
    except OSError:
        return b"unknown-%d" % clock.now_ns()
    return b"%d-%d-%d" % (home.st_ino, link.st_ino, link.st_ctime_ns)


def _exists(fs: FileSystem, at: int, name: bytes) -> bool:
    try:
        fs.lstat(name, at=at)
    except FileNotFoundError:
        return False
    return True
