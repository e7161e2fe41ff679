"""Whether a directory is a mount of its own, told by the kernel's table and without touching it."""

from __future__ import annotations

import os
import re

_ESCAPE = re.compile(rb"\\([0-7]{3})")


def mount_points(mountinfo: bytes) -> dict[bytes, int]:
    """The mount points in the text of /proc/self/mountinfo with their ids (proc(5): fifth field, octal escapes; first).

    Of several on top of each other the last counts: it hides the others.
    """
    found = {}
    for line in mountinfo.splitlines():
        columns = line.split(b" ")
        if len(columns) > 4:
            found[_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), columns[4])] = int(columns[0])
    return found


def mount_id(path: str) -> int | None:
    """Which mount is exactly at ``path``, if any; compared as text: resolving a path on a hung mount would hang."""
    with open("/proc/self/mountinfo", "rb") as table:
        return mount_points(table.read()).get(os.fsencode(os.path.normpath(path)))


def mount_of(fd: int) -> int:
    """Which mount the open ``fd`` lies on: proc(5), ``fdinfo``."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as info:
        return next(int(line.split()[1]) for line in info if line.startswith(b"mnt_id:"))


def is_mount_point(path: str) -> bool:
    """Whether something is mounted exactly at ``path``."""
    return mount_id(path) is not None
