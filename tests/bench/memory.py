"""How much memory a sidecar needs that holds many files."""

from __future__ import annotations

import time

from tests.bench import targets
from tests.bench.family import Memory, memory_of
from tests.bench.figures import Figure, Series, goal, rounded
from tests.bench.peers import Peers
from tests.bench.progress import Progress
from tests.bench.scratch import Scratch
from tests.bench.sidecars import Sidecar
from tests.bench.sizes import Sizes
from tests.bench.trees import make_tree

WHAT = (
    "megabytes of 10⁶ bytes. Ours: the sum over the running sidecar and its helpers, Pss (target) and Rss; the peak is "
    "the highest of two looks a second during the first copy. Peers, which run and end: the highest Rss of their "
    "largest process, in a first copy and with nothing changed."
)


def measure_memory(scratch: Scratch, peers: Peers, sizes: Sizes, progress: Progress) -> Figure:
    """Ours after the first copy and when idle, for each number of files; the peers beside it for the smaller ones."""
    return {"what": WHAT, "runs": [_measure(scratch, peers, sizes, progress, files) for files in sizes.memory_files]}


def _measure(scratch: Scratch, peers: Peers, sizes: Sizes, progress: Progress, files: int) -> Figure:
    progress.say(f"memory: making {files} files")
    per_directory = None
    if files == sizes.idle_files:  # the same pair serves where an idle sidecar is measured
        per_directory = sizes.idle_files_per_directory
        home = scratch.directory("home")
        make_tree(home, files, per_directory)
    else:
        home = scratch.home(files)
    persist = scratch.directory("persist")
    seen: list[Memory] = []
    progress.say(f"memory: first copy of {files} files")
    with Sidecar(home, persist) as sidecar:
        sidecar.wait_until_safe(files, lambda: seen.append(memory_of(sidecar.pid)))
        after = memory_of(sidecar.pid)
        time.sleep(sizes.memory_idle_s)
        idle = memory_of(sidecar.pid)
    scratch.keep(files, home, persist)
    target = targets.PSS_MB.get(files)
    figure: Figure = {
        "files": files,
        "files_per_directory": per_directory or 100,
        "pss_after_first_copy_mb": goal(after.pss_bytes / 1e6, target),
        "pss_idle_mb": goal(idle.pss_bytes / 1e6, target),
        "pss_peak_mb": rounded(max(each.pss_bytes for each in [*seen, after, idle]) / 1e6),
        "rss_idle_mb": rounded(idle.rss_bytes / 1e6),
        "processes": idle.processes,
    }
    reasons = {}
    for peer in peers.backups:
        progress.say(f"memory: {peer.name} on {files} files")
        series = Series(peer.durable)
        if files > sizes.memory_peer_files:
            series.reason = f"not run on more than {sizes.memory_peer_files} files; flush has it at its largest home"
        copy = scratch.directory("copies") / peer.name
        peer.ready(copy)
        for _ in ("first", "nothing changed"):
            peer.measure(series, home, copy)
        if series.reason is not None:
            reasons[peer.name] = series.reason
            figure[f"{peer.name}_peak_rss_mb"] = None
        else:
            figure[f"{peer.name}_peak_rss_mb"] = rounded(max(series.peak_rss_bytes) / 1e6)
    return {**figure, "reasons": reasons}
