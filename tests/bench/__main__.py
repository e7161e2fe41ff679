"""All benchmarks, or those named: ``python -m tests.bench [flush] [memory] [latency]``. JSON on stdout."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from tests.bench.flush import measure_flush
from tests.bench.running import measure_cost, measure_latency

BENCHMARKS = {
    "flush": lambda scratch: measure_flush(scratch, files=50_000, changed=100),
    "memory": lambda scratch: measure_cost(scratch, files=100_000, idle_s=30.0),
    "latency": lambda scratch: measure_latency(scratch, files=5_000, samples=200),
}


def main() -> int:
    """Run the benchmarks that the arguments name, or all."""
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    if shutil.which("rsync") is None and "flush" in names:
        print("rsync is not installed: the flush has no peer to stand beside", file=sys.stderr)
        return 2
    results: dict[str, object] = {"machine": {"cores": os.cpu_count(), "kernel": platform.release()}}
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        for name in names:
            print(f"{name} …", file=sys.stderr)
            results[name] = BENCHMARKS[name](Path(scratch) / name)
    print(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
