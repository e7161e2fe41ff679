"""What surrounds the GPUs in a container: shared memory, limits, search paths. Read without the driver, judged purely.

None of this is evidence against a GPU, so the worst is a warning. A limit that cannot be read is no finding.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from . import faults
from .facts import Surroundings
from .faults import Fault
from .result import Check, Verdict, plain

MIB = 1024 * 1024
LEAST_SHM_BYTES = 60 * MIB  # below the 64 MiB that container runtimes give by themselves
COMFORTABLE_SHM_BYTES = 1024 * MIB
LEAST_MEMORY_BYTES = 2048 * MIB  # a framework with a CUDA context alone takes 1 to 2 GB of host memory
LEAST_PIDS = 64  # a framework starts a thread per core, and each data loader is a process
NO_LIMIT_BYTES = 1 << 60  # cgroup v1 says "no limit" as a number just below 2**63

DRIVER_LIBRARY = "libcuda.so.1"


def look(environ: Mapping[str, str], root: str = "/") -> Surroundings:
    """What this process is surrounded by; ``root`` is where /proc, /sys and /dev are."""
    return Surroundings(
        shm_bytes=_size(os.path.join(root, "dev/shm")),
        memory_limit_bytes=min(_memory_limits(root), default=None),
        cpu_limit=min(_cores(root), default=None),
        pids_left=min(_pids_left(root), default=None),
        visible_devices=environ.get("CUDA_VISIBLE_DEVICES"),
        library_directories=tuple(
            directory
            for directory in environ.get("LD_LIBRARY_PATH", "").split(":")
            if directory and os.path.lexists(os.path.join(directory, DRIVER_LIBRARY))
        ),
        image_cuda=environ.get("CUDA_VERSION", ""),
        mps="CUDA_MPS_PIPE_DIRECTORY" in environ,
    )


def _size(directory: str) -> int | None:
    try:
        shown = os.statvfs(directory)
    except OSError:
        return None
    return shown.f_blocks * shown.f_frsize


# The tightest limit of all groups above this process counts. "max" and -1 are no limit.


def _memory_limits(root: str) -> Iterator[int]:
    for group in _groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _number(_read(os.path.join(group, name)))
            if limit is not None and limit < NO_LIMIT_BYTES:
                yield limit


def _pids_left(root: str) -> Iterator[int]:
    for group in _groups(root, "pids"):
        limit = _number(_read(os.path.join(group, "pids.max")))
        used = _number(_read(os.path.join(group, "pids.current")))
        if limit is not None:
            yield limit - (used or 0)


def _cores(root: str) -> Iterator[float]:
    """Version 2 has quota and period in one file, version 1 in two."""
    for group in _groups(root, "cpu"):
        one = _read(os.path.join(group, "cpu.max"))
        two = (_read(os.path.join(group, f"cpu.cfs_{name}_us")).strip() for name in ("quota", "period"))
        quota, _, period = (one or " ".join(two)).partition(" ")
        cores, per = _number(quota), _number(period)
        if cores is not None and per:
            yield cores / per


def _groups(root: str, controller: str) -> Iterator[str]:
    """The directory of this process's group for a controller, and of each group above it: cgroups(7), both versions."""
    top = os.path.join(root, "sys/fs/cgroup")
    for line in _read(os.path.join(root, "proc/self/cgroup")).splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if not controllers or controller in controllers.split(","):
            parts = [part for part in path.split("/") if part not in ("", "..")]
            for depth in range(len(parts), -1, -1):
                yield os.path.join(top, controllers, *parts[:depth])


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isdecimal() and text.isascii() else None


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def checks_of(seen: Surroundings, *, gpus: int, cuda_driver: int) -> tuple[Check, ...]:
    """A check for each thing that is known. ``gpus`` is how many are to be used; ``cuda_driver`` is the driver's CUDA,
    1000 × major + 10 × minor, or 0."""
    checks: list[Check] = []
    if seen.shm_bytes is not None:
        advice = "" if seen.shm_bytes >= COMFORTABLE_SHM_BYTES else "; data loaders with many workers may need more"
        detail = f"{seen.shm_bytes // MIB} MiB{advice}"
        checks.append(_check("shared memory", seen.shm_bytes >= LEAST_SHM_BYTES, faults.SMALL_SHM, detail))
    if seen.memory_limit_bytes is not None:
        detail = f"{seen.memory_limit_bytes // MIB} MiB"
        enough = seen.memory_limit_bytes >= LEAST_MEMORY_BYTES
        checks.append(_check("memory limit", enough, faults.SMALL_MEMORY, detail))
    if seen.cpu_limit is not None:
        detail = f"{seen.cpu_limit:g} cores"
        checks.append(_check("cpu limit", seen.cpu_limit >= max(gpus, 1), faults.SMALL_CPU, detail))
    if seen.pids_left is not None:
        detail = f"{max(seen.pids_left, 0)} left"
        checks.append(_check("process limit", seen.pids_left >= LEAST_PIDS, faults.FEW_PIDS, detail))
    if seen.visible_devices is not None:
        detail = f"CUDA_VISIBLE_DEVICES={seen.visible_devices}"
        checks.append(Check("visible devices", Verdict.PASS, plain(detail)))
    if seen.mps:
        checks.append(Check("sharing", Verdict.PASS, "an MPS server shares the GPU"))
    checks += _libraries(seen)
    image = re.fullmatch(r"([0-9]{1,3})(\.[0-9]+)*", seen.image_cuda)
    if image and cuda_driver:
        detail = f"image {plain(seen.image_cuda, 20)}, driver {cuda_driver // 1000}.{cuda_driver % 1000 // 10}"
        checks.append(_check("image", int(image[1]) <= cuda_driver // 1000, faults.IMAGE_TOO_NEW, detail))
    return tuple(checks)


def _libraries(seen: Surroundings) -> Iterator[Check]:
    """What LD_LIBRARY_PATH puts in front of the node's driver library."""
    for directory in seen.library_directories:
        parts = directory.split("/")
        if "stubs" in parts:
            yield _check("library path", False, faults.STUBS_IN_PATH, directory)
        elif "compat" in parts:
            detail = f"the image's CUDA compatibility library is used: {directory}"
            yield Check("library path", Verdict.PASS, plain(detail))


def _check(name: str, well: bool, fault: Fault, detail: str) -> Check:
    if well:
        return Check(name, Verdict.PASS, plain(detail))
    return Check(
        name,
        Verdict.WARN,
        plain(detail),
        cause=fault.cause,
        user_action=fault.user,
        admin_action=fault.admin,
        audience=fault.audience,
    )
