"""``sidecar`` on a Persist that falls sick: the program of a test's process. The first argument says in which way.

``slow-sync``: a large file takes 25 s to become durable; when it begins to, the file ``syncing`` appears in the working
directory. ``read-only``: while there is a file ``sick``, nothing can be renamed.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import Any

from sidecar.__main__ import main
from sidecar.fsops import FileSystem

_LARGE_BYTES = 20 << 20


def _sync_slowly(self: FileSystem, fd: int) -> None:
    if os.fstat(fd).st_size >= _LARGE_BYTES:
        open("syncing", "wb").close()
        time.sleep(25)
    os.fsync(fd)


def _refuse_to_rename(self: FileSystem, *arguments: Any, **keywords: Any) -> None:
    if os.path.exists("sick"):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    _rename(self, *arguments, **keywords)


_rename = FileSystem.rename

if __name__ == "__main__":
    if sys.argv.pop(1) == "slow-sync":
        FileSystem.fsync = _sync_slowly  # type: ignore[method-assign]  # the seam, in a process of its own
    else:
        FileSystem.rename = _refuse_to_rename  # type: ignore[method-assign]
    main()
