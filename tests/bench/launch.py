"""Run one program, then print how it went. Its own process, because of where Linux begins to count.

A program's peak of memory (``ru_maxrss``) begins with that of the process it was forked from, so that a benchmark that
holds much would lend its own size to every peer. This one imports next to nothing, and ``fork`` copies only part of it.
"""

from __future__ import annotations

import os
import sys
import time


def main() -> None:
    """``launch.py PROGRAM ARGUMENT…`` prints exit code, seconds, and bytes of memory of the largest process."""
    null = os.open(os.devnull, os.O_RDWR)
    started_s = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(null, 0)
            os.dup2(null, 1)
            os.execv(sys.argv[1], sys.argv[1:])  # looking along PATH would import more
        finally:
            os._exit(127)
    _, status, usage = os.wait4(pid, 0)
    print(os.waitstatus_to_exitcode(status), time.perf_counter() - started_s, usage.ru_maxrss * 1024)


if __name__ == "__main__":
    main()
