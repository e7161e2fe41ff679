"""``python -m tests.bench [NAME…]``: all benchmarks or those named. JSON on stdout, progress on a terminal."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from tests.bench.burst import measure_burst
from tests.bench.figures import Figure
from tests.bench.first_copy import measure_first_copy
from tests.bench.flush import measure_flush
from tests.bench.idle import measure_idle_cpu, measure_ready
from tests.bench.large_file import measure_large_file
from tests.bench.latency import measure_latency
from tests.bench.machine import machine
from tests.bench.memory import measure_memory
from tests.bench.operations import BlindTraceError, measure_persist_operations
from tests.bench.peers import Peers, find_peers
from tests.bench.progress import Progress
from tests.bench.scratch import Scratch, scratch_below
from tests.bench.sidecars import SidecarFailedError
from tests.bench.sizes import FULL, QUICK, Sizes
from tests.bench.trees import IncompleteCopyError

SCHEMA = 1

# In this order: the later ones use the trees of the earlier ones.
BENCHMARKS: dict[str, Callable[[Scratch, Peers, Sizes, Progress], Figure]] = {
    "flush": measure_flush,
    "first_copy": measure_first_copy,
    "large_file": measure_large_file,
    "latency": measure_latency,
    "burst": measure_burst,
    "persist_operations": measure_persist_operations,
    "memory": measure_memory,
    "idle_cpu": measure_idle_cpu,
    "ready": measure_ready,
}

_EPILOG = f"""\b
Benchmarks: {", ".join(BENCHMARKS)}.
Exit codes:
  0    measured; whether a target was met is in the JSON
  1    a copy of ours was incomplete, or a sidecar failed: its benchmark has an "error" in place of figures
  2    usage
  130  interrupted; the JSON has what was measured before
"""


def measure(
    names: Sequence[str], sizes: Sizes, scratch: Scratch, peers: Peers, progress: Progress
) -> tuple[dict[str, Any], int]:
    """The figures of the benchmarks ``names``, and the exit code."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "machine": machine(scratch.top),
        "peers": {
            peer.name: {"version": peer.version, "command": peer.command, "durable": peer.durable}
            for peer in peers.everyone
        },
        "promised_sizes": sizes == FULL,
    }
    code = 0
    for number, name in enumerate(names, 1):
        progress.say(f"[{number}/{len(names)}] {name}")
        try:
            document[name] = BENCHMARKS[name](scratch, peers, sizes, progress)
        except (IncompleteCopyError, SidecarFailedError, BlindTraceError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            document[name] = {"error": str(error)}
            code = 1
        except KeyboardInterrupt:
            document[name] = {"error": "interrupted"}
            return document, 130
    return document, code


@click.command(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHMARKS)), metavar="[NAME]...")
@click.option("--quick", is_flag=True, help="Small sizes: some minutes, and no figure at the size it is promised for.")
@click.option(
    "--scratch",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    default="/var/tmp",
    show_default=True,
    help="A directory on the disk that is to be measured, with room for 40 GB and 6 million inodes.",
)
def main(names: tuple[str, ...], quick: bool, scratch: Path) -> None:
    """Measure all benchmarks or those named, beside their peers, and print the figures as JSON."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # nothing that was started may stay
    logging.basicConfig(level=logging.ERROR)
    progress = Progress(sys.stderr)
    sizes = QUICK if quick else FULL
    if not names:
        _check_room(scratch, sizes)
    chosen = [name for name in BENCHMARKS if name in names] or list(BENCHMARKS)
    with scratch_below(scratch) as place:
        document, code = measure(chosen, sizes, place, find_peers(), progress)
        print(json.dumps(document, indent=2, ensure_ascii=False), flush=True)
        progress.say("removing what was made")
    sys.exit(code)


def _check_room(scratch: Path, sizes: Sizes) -> None:
    free = os.statvfs(scratch)
    room = free.f_bavail * free.f_frsize >= sizes.scratch_bytes
    # Some file systems make inodes as they need them, and say that they have none.
    inodes = free.f_files == 0 or free.f_favail >= sizes.scratch_inodes
    if not (room and inodes):
        needed = f"{sizes.scratch_bytes // 10**9} GB and {sizes.scratch_inodes:,} inodes"
        raise click.UsageError(f"no room in {scratch} for all benchmarks: {needed}. See --scratch and --quick.")


if __name__ == "__main__":
    main()
