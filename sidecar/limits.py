"""What the kernel lets one process have open."""

from __future__ import annotations

import resource

_WANTED = 65536


def raise_descriptor_limit() -> None:
    """A deep tree can be walked, which needs a descriptor for each level, and a batch saved: one for each directory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, _WANTED) if hard != resource.RLIM_INFINITY else _WANTED
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
