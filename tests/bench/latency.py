"""How soon a change is safe in a running sidecar."""

from __future__ import annotations

import math
import os
import random
import statistics
import time

from tests.bench import targets
from tests.bench.figures import Figure, goal, rounded
from tests.bench.peers import Peers
from tests.bench.progress import Progress
from tests.bench.scratch import Scratch
from tests.bench.sidecars import Sidecar
from tests.bench.sizes import Sizes
from tests.bench.trees import make_tree

WHAT = (
    "seconds from the end of a write until the mirror has the new content under its name (it is fsynced before it gets "
    "the name), one change at a time, new files and changed ones in turn, in a sidecar that has nothing else to do"
)


def measure_latency(scratch: Scratch, peers: Peers, sizes: Sizes, progress: Progress) -> Figure:
    """Median, 99th percentile (nearest rank) and maximum."""
    files, samples = sizes.latency_files, sizes.latency_samples
    tree = make_tree(scratch.directory("home"), files)
    rng = random.Random(samples)
    latencies = []
    with Sidecar(tree.root, scratch.directory("persist")) as sidecar:
        sidecar.wait_until_safe(files)
        for number in range(samples):
            progress.say(f"latency: {number + 1} of {samples}")
            name = tree.name(rng.randrange(files)) if number % 2 else f"new{number}.txt"
            content = os.urandom(512).hex().encode()
            (tree.root / name).write_bytes(content)
            latencies.append(sidecar.wait_for(name, content))
            time.sleep(rng.uniform(0, 0.2))  # no beat of ours in step with one of theirs
    latencies.sort()
    return {
        "what": WHAT,
        "files": files,
        "samples": samples,
        "p50_s": goal(statistics.median(latencies), targets.LATENCY_P50_S),
        "p99_s": goal(latencies[math.ceil(0.99 * samples) - 1], targets.LATENCY_P99_S),
        "max_s": rounded(latencies[-1]),
    }
