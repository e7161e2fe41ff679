"""Whether a directory is a mount of its own, told by the kernel's table and without touching it."""

from __future__ import annotations

import os
import re

_ESCAPE = re.compile(rb"\\([0-7]{3})")


def mount_points(mountinfo: bytes) -> set[bytes]:
    """The mount points in the text of /proc/self/mountinfo (proc(5): the fifth field, octal escapes)."""
    found = set()
    for line in mountinfo.splitlines():
        columns = line.split(b" ")
        if len(columns) > 4:
            found.add(_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), columns[4]))
    return found


def is_mount_point(path: str) -> bool:
    """Whether something is mounted exactly at ``path``, compared as text: resolving a hung mount would hang."""
    with open("/proc/self/mountinfo", "rb") as table:
        return os.fsencode(os.path.normpath(path)) in mount_points(table.read())
