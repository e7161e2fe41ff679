"""The checks that follow a notebook's start: detached from whoever starts them, and behind everything else."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Callable

IOPRIO_SET = {"x86_64": 251, "aarch64": 30}  # ioprio_set(2) has no wrapper in the C library
IDLE_CLASS = 3 << 13
LOWEST = 19


def detach(work: Callable[[], None]) -> None:
    """Returns at once; the work is done by a process that nothing connects with this one.

    A post-start hook that leaves a stream open delays its container's readiness for as long, and one that fails kills
    it. Raises OSError where no process can be made.
    """
    if os.fork():
        return
    try:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        os.closerange(3, 256)
        yield_to_others()
        work()
    finally:
        os._exit(0)  # whatever happened: nobody is left to be told, and the caller's code must not run twice


def yield_to_others() -> None:
    """This process and its children get what nobody else wants: of the CPU (nice 19) and of the disk (idle class)."""
    with contextlib.suppress(OSError):
        os.nice(LOWEST)
    number = IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None).syscall(number, 1, 0, IDLE_CLASS)  # 1: IOPRIO_WHO_PROCESS, 0: this one
