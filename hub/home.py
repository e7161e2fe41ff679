"""The fast home of a server on one machine: made, linked to its other tiers, and wiped when all of it is safe."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time

from hub.plan import Directories
from hub.processes import open_at_once, until

LINKS = ("Persist", "Shared")
_SAVE = "Save"  # a link that the sidecar makes
_WIPING = ".wiping-"
_WIPE_WAIT_S = 3.0
_REMOVE = 'find "$@" -xdev -type d ! -perm -700 -exec chmod u+rwx {} ";"; exec rm -rf --one-file-system -- "$@"'


def prepare(directories: Directories) -> list[str]:
    """Makes the directories of a server, and the links to the other tiers in its home. Raises ``OSError``.

    What stands in a link's place is moved aside, so that it is saved like everything else; one line for each is
    returned.
    """
    os.makedirs(directories.persist, mode=0o700, exist_ok=True)
    os.makedirs(directories.shared, mode=0o700, exist_ok=True)
    for directory in (directories.server, directories.home, directories.run):
        os.makedirs(directory, mode=0o700, exist_ok=True)
    with os.scandir(directories.server) as entries:
        leftovers = [entry.path for entry in entries if entry.name.startswith(_WIPING)]
    if leftovers:
        _remove(leftovers)
    told = []
    for name, target in zip(LINKS, (directories.persist, directories.shared), strict=True):
        link = os.path.join(directories.home, name)
        if _links_to(link, target):
            continue
        if os.path.lexists(link):
            told.append(_move_aside(directories.home, name))
        os.symlink(target, link)
    if not _link_or_nothing(os.path.join(directories.home, _SAVE)):
        told.append(_move_aside(directories.home, _SAVE))
    return told


def _move_aside(home: str, name: str) -> str:
    aside = f"{name}.moved-aside-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    os.rename(os.path.join(home, name), os.path.join(home, aside))
    return f"{name} in the home was not ours; it is now {aside}"


def _link_or_nothing(path: str) -> bool:
    return os.path.islink(path) or not os.path.lexists(path)


def _links_to(path: str, target: str) -> bool:
    try:
        return os.readlink(path) == target
    except OSError:
        return False


def obstacle(directories: Directories) -> str:
    """Why the home must not be wiped although the sidecar says that all is safe; empty if nothing stands against it.

    The sidecar never looks at the names of the other tiers: work put there, in place of the link, is saved by nobody.
    """
    for name in (*LINKS, _SAVE):
        if not _link_or_nothing(os.path.join(directories.home, name)):
            return f"{name} in the home is no link any more, and what is in it is saved nowhere"
    return ""


async def wipe(directories: Directories) -> None:
    """The home is gone. Links are removed, never followed. Raises ``OSError``.

    It is renamed first, so that no half of it is ever taken for a home; what is not removed after a few seconds is
    removed while life goes on, or by the next ``prepare``.
    """
    doomed = os.path.join(directories.server, f"{_WIPING}{time.time_ns()}")
    try:
        os.rename(directories.home, doomed)
    except FileNotFoundError:
        return
    removal = _remove([doomed])
    await until(lambda: removal.poll() is not None, _WIPE_WAIT_S)


def _remove(paths: list[str]) -> subprocess.Popen[bytes]:
    """Starts to remove ``paths``, however deep: Python 3.11's ``rmtree`` ends at its recursion limit.

    A read-only directory, such as Go's module cache, is made writable first: ``rm`` would leave what is in it.
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", _REMOVE, "remove", *paths],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def forget_report(directories: Directories) -> None:
    """There is no GPU report: an earlier session's must not be read for this one's. Raises ``OSError``."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(directories.gpu_report)


def keep_report(directories: Directories, report: str) -> None:
    """There is a GPU report: this one, unless the check has left its own. Raises ``OSError``."""
    with contextlib.suppress(FileExistsError), open(directories.gpu_report, "x", encoding="utf-8") as file:
        file.write(report)


async def note_kept(directories: Directories, reason: str) -> None:
    """Writes down, beside the home, why it was kept; ``kept_note`` reads it at the next start."""
    await asyncio.to_thread(_write, directories.kept, reason + "\n")


def _write(path: str, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with open(path, "x", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)


def kept_note(directories: Directories) -> str:
    """Why the home was kept at the last end; empty if it was not."""
    try:
        with open(directories.kept, encoding="utf-8", errors="replace", opener=open_at_once) as file:
            return file.read(1000).strip()
    except OSError:
        return ""


def forget_kept(directories: Directories) -> None:
    """The note is gone."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(directories.kept)
