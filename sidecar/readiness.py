"""The start-up probe of a pod: whether the notebook can start.

It can when its work is back, and in any case after a while: a start that waits for ever helps nobody, and a kubelet
that gives up ends the container in the middle of its work.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

_NOT_YET = ("starting", "restoring")
_LOOK_EVERY_S = 0.2

Ask = Callable[[], Mapping[str, Any] | None]
"""The status document; None where nobody answers."""


def wait_until_ready(ask: Ask, *, wait_s: float, within_s: float, age_s: Callable[[], float]) -> str:
    """Empty once the notebook can start; after ``wait_s`` what is still going on, in one line for people.

    ``age_s`` is how long the container has been running: from ``within_s`` on nothing is waited for.
    """
    give_up_s = time.monotonic() + wait_s
    while True:
        status = ask()
        state = status.get("state") if status is not None else None
        if age_s() >= within_s or (isinstance(state, str) and state not in _NOT_YET):
            return ""
        if time.monotonic() >= give_up_s:
            return _in_words(state, status or {})
        time.sleep(_LOOK_EVERY_S)


def _in_words(state: object, status: Mapping[str, Any]) -> str:
    if not isinstance(state, str):
        return "the sidecar does not answer yet"
    detail = status.get("detail")
    return f"{state}: {detail}" if detail else state


def container_age_s() -> float:
    """How long process 1 has been running."""
    with open("/proc/1/stat", "rb") as stat:
        started_ticks = int(stat.read().rpartition(b") ")[2].split()[19])  # proc(5): since the machine's start
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")
