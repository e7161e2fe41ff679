"""What a sidecar costs that has nothing to do, and how soon one that starts is watching."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from tests.bench import targets
from tests.bench.commands import rest
from tests.bench.family import cpu_s
from tests.bench.figures import Figure, goal, rounded
from tests.bench.peers import Peers
from tests.bench.progress import Progress
from tests.bench.scratch import Scratch
from tests.bench.sidecars import Sidecar
from tests.bench.sizes import Sizes
from tests.bench.trees import make_tree

IDLE_WHAT = (
    "processor time of the idle sidecar and its helpers, in percent of one core; the window is long enough for a whole "
    "periodic scan, where longest_s allows it"
)
READY_WHAT = (
    "seconds from the start of the process until its status says watching. warm: everything is saved and journalled "
    "already; cold: Persist is empty"
)


def idle_cpu_percent(sidecar: Sidecar, sizes: Sizes) -> tuple[float, float]:
    """Percent of a core, and the seconds over which it was measured."""
    interval_s = sidecar.status()["watch"]["scan_interval_s"]
    window_s = min(max(sizes.idle_s, interval_s), sizes.idle_longest_s)
    before_s, started_s = cpu_s(sidecar.pid), time.monotonic()
    time.sleep(window_s)
    return 100 * (cpu_s(sidecar.pid) - before_s) / (time.monotonic() - started_s), window_s


def measure_idle_cpu(scratch: Scratch, peers: Peers, sizes: Sizes, progress: Progress) -> Figure:
    """Percent of a core, of a sidecar that was started on a home that was saved before."""
    home, persist = _saved_pair(scratch, sizes, progress)
    progress.say("idle_cpu: measuring")
    with Sidecar(home, persist) as sidecar:
        sidecar.wait_until_safe(sizes.idle_files)
        time.sleep(min(10.0, sizes.idle_s))  # the start is not idleness
        percent, window_s = idle_cpu_percent(sidecar, sizes)
        status = sidecar.status()
    directories = sizes.idle_files // sizes.idle_files_per_directory
    return {
        "what": IDLE_WHAT,
        "files": sizes.idle_files,
        "directories": directories,
        "window_s": window_s,
        "longest_s": sizes.idle_longest_s,
        "watches": status["watch"]["watches"],
        "scan_interval_s": status["watch"]["scan_interval_s"],
        "idle_cpu_percent": goal(percent, _at_promised_size(directories, targets.IDLE_CPU_PERCENT)),
    }


def measure_ready(scratch: Scratch, peers: Peers, sizes: Sizes, progress: Progress) -> Figure:
    """Medians of both starts."""
    home, persist = _saved_pair(scratch, sizes, progress)
    warm, cold = [], []
    for round_ in range(sizes.ready_rounds):
        progress.say(f"ready: round {round_ + 1}")
        rest(sizes.rest_s)
        with Sidecar(home, persist) as sidecar:
            warm.append(sidecar.wait_until_watching())
            sidecar.wait_until_safe(sizes.idle_files)
        rest(sizes.rest_s)
        with Sidecar(home, scratch.directory("persist")) as sidecar:
            cold.append(sidecar.wait_until_watching())
            sidecar.kill()  # the first copy is measured elsewhere
    directories = sizes.idle_files // sizes.idle_files_per_directory
    target = _at_promised_size(directories, targets.READY_S)
    return {
        "what": READY_WHAT,
        "files": sizes.idle_files,
        "directories": directories,
        "rounds": sizes.ready_rounds,
        "warm_s": {**goal(statistics.median(warm), target), "min": rounded(min(warm)), "max": rounded(max(warm))},
        "cold_s": {**goal(statistics.median(cold), target), "min": rounded(min(cold)), "max": rounded(max(cold))},
    }


def _at_promised_size(directories: int, target: float) -> float | None:
    return target if directories == targets.IDLE_DIRECTORIES else None


def _saved_pair(scratch: Scratch, sizes: Sizes, progress: Progress) -> tuple[Path, Path]:
    """A home of many directories and its Persist, all saved: what ``memory`` left, or a new one."""
    kept = scratch.kept(sizes.idle_files)
    if kept is not None:
        return kept
    progress.say(f"making and saving {sizes.idle_files} files")
    home, persist = scratch.directory("home"), scratch.directory("persist")
    make_tree(home, sizes.idle_files, sizes.idle_files_per_directory)
    with Sidecar(home, persist) as sidecar:
        sidecar.wait_until_safe(sizes.idle_files)
    scratch.keep(sizes.idle_files, home, persist)
    return home, persist
