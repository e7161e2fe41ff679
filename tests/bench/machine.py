"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from tests.bench.commands import smallest_peak_bytes
from tests.bench.figures import rounded


def machine(scratch: Path) -> dict[str, Any]:
    """The facts that figures depend on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "kernel": platform.release(),
        "file_system": file_system(scratch),
        "python": platform.python_version(),
        "smallest_measurable_rss_mb": rounded(smallest_peak_bytes() / 1e6),
        "load_before": round(os.getloadavg()[0], 2),
    }


def file_system(path: Path) -> str:
    """The type of the file system that holds ``path``: of the mounts above it the nearest, and the last one there."""
    best, found = "", "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, rest = line.partition(" - ")
        top = mount.split()[4].encode().decode("unicode_escape")
        if os.path.commonpath([top, str(path)]) == top and len(top) >= len(best):
            best, found = top, rest.split()[0]
    return found
