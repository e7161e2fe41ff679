"""What a process and everything that it started use, as ``/proc`` tells it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Memory:
    """Sums over all processes. Of a page that several share, Pss counts a part for each and Rss the whole."""

    pss_bytes: int
    rss_bytes: int
    processes: int


def family(pid: int) -> list[int]:
    """``pid`` and all its descendants that are alive."""
    found = [pid]
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                found += family(int(child))
    return found


def memory_of(pid: int) -> Memory:
    """The memory of the whole family now."""
    sums = {"Pss:": 0, "Rss:": 0}
    processes = 0
    for member in family(pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # a helper that ended meanwhile
            for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
                name, value = line.split()[:2]
                if name in sums:
                    sums[name] += int(value) * 1024
            processes += 1
    return Memory(sums["Pss:"], sums["Rss:"], processes)


def cpu_s(pid: int) -> float:
    """Seconds of processor time that the family has used, children that have ended included."""
    total = 0
    for member in family(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime: proc(5)
    return total / _TICKS_PER_S
