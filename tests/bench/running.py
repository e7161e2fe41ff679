"""What a running sidecar costs, and how soon a change is safe."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.trees import make_tree

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@contextmanager
def running_sidecar(home: Path, persist: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[str]]]:
    """A sidecar that has saved everything; it is told to end on the way out, and must say that all is safe."""
    options = ["--home", str(home), "--persist", str(persist), "--no-require-mount"]
    process = subprocess.Popen([sys.executable, "-m", "sidecar", "run", *options], stderr=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + 300
        while time.monotonic() < deadline_s:
            status = _status(options)
            if status["state"] == "watching" and status["pending"]["files"] == 0:
                break
            time.sleep(0.2)
        else:
            raise TimeoutError("the first copy took more than 300 s")
        yield process, options
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    assert code == 0, f"the sidecar ended with {code}"


def _status(options: list[str]) -> dict[str, Any]:
    answer = subprocess.run(
        [sys.executable, "-m", "sidecar", "status", "--json", *options], stdout=subprocess.PIPE, check=True
    )
    document: dict[str, Any] = json.loads(answer.stdout)
    return document


def pss_bytes(pid: int) -> int:
    """The proportional set size of ``pid`` and all its children."""
    total = 0
    for each in [pid, *_children(pid)]:
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def _children(pid: int) -> list[int]:
    found = []
    for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(text), *_children(int(text))]
    return found


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def measure_cost(scratch: Path, *, files: int, idle_s: float) -> dict[str, Any]:
    """Memory (Pss, children included) and idle CPU of a sidecar that holds ``files`` files."""
    home, persist = scratch / "home", scratch / "persist"
    home.mkdir(parents=True)
    persist.mkdir()
    make_tree(home, files)
    try:
        with running_sidecar(home, persist) as (process, _):
            after_first_copy = pss_bytes(process.pid)
            before_s = _cpu_s(process.pid)
            time.sleep(idle_s)
            used_s = _cpu_s(process.pid) - before_s
            pss = pss_bytes(process.pid)
    finally:
        shutil.rmtree(scratch)
    return {
        "files": files,
        "pss_mb": round(max(pss, after_first_copy) / 1e6, 1),
        "idle_cpu_percent": round(100 * used_s / idle_s, 2),
        "idle_measured_s": idle_s,
    }


def measure_latency(scratch: Path, *, files: int, samples: int) -> dict[str, Any]:
    """Seconds from the end of a write until the mirror has the new content, on an otherwise idle machine."""
    home, persist = scratch / "home", scratch / "persist"
    home.mkdir(parents=True)
    persist.mkdir()
    paths = make_tree(home, files)
    rng = random.Random(samples)
    latencies = []
    try:
        with running_sidecar(home, persist):
            for number in range(samples):
                path = rng.choice(paths) if number % 2 else home / f"new{number}.txt"
                content = os.urandom(512).hex().encode()
                path.write_bytes(content)
                latencies.append(_until_safe(persist / "Backup/default" / path.relative_to(home), content))
                time.sleep(rng.uniform(0, 0.2))
    finally:
        shutil.rmtree(scratch)
    latencies.sort()
    return {
        "files": files,
        "samples": samples,
        "p50_s": round(statistics.median(latencies), 3),
        "p99_s": round(latencies[int(len(latencies) * 0.99) - 1], 3),
        "max_s": round(latencies[-1], 3),
    }


def _until_safe(mirrored: Path, content: bytes) -> float:
    started_s = time.perf_counter()
    while time.perf_counter() - started_s < 60:
        try:
            if mirrored.read_bytes() == content:
                return time.perf_counter() - started_s
        except FileNotFoundError:
            pass
        time.sleep(0.002)
    raise TimeoutError(f"{mirrored} was not saved within 60 s")
