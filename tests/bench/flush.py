"""How long k changed files among N take to be safe, beside ``rsync -a`` on the same tree."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.engine import Engine
from sidecar.fsops import FileSystem
from tests.bench.trees import change, make_tree

ROUNDS = 5


def measure_flush(scratch: Path, *, files: int, changed: int) -> dict[str, Any]:
    """Seconds, medians of ``ROUNDS``: our flush (durable, old contents kept as versions) against ``rsync -a``.

    Ours is timed in a running engine, from the moment the last change was made: events, selection, copy with fsync,
    versions, journal. rsync is timed as the whole process that a cron job would start. Both see the same changes.
    """
    home, persist, peer = scratch / "home", scratch / "persist", scratch / "rsync"
    for directory in (home, persist, peer):
        directory.mkdir(parents=True)
    paths = make_tree(home, files)
    settings = Settings(home=str(home), persist=str(persist), require_mount=False)
    engine = Engine(FileSystem(), Clock(), settings, wake=lambda: None)
    try:
        engine.finder.start_watching()
        first_s = _timed(lambda: engine.flush(catch_up_s=1.0, out_of_time=lambda: False))
        rsync_first_s = _timed(lambda: _rsync(home, peer))
        ours, rsync, idle = [], [], []
        for round_ in range(ROUNDS):
            chosen = change(paths, changed, seed=round_)
            assert engine.finder.watch is not None
            ours.append(_timed(lambda: _flush(engine)))
            assert not engine.unsaved(), "the flush left something unsaved"
            assert all(
                (persist / "Backup/default" / p.relative_to(home)).read_bytes() == p.read_bytes() for p in chosen
            )
            rsync.append(_timed(lambda: _rsync(home, peer)))
            idle.append(_timed(lambda: _rsync(home, peer)))
    finally:
        engine.close()
        shutil.rmtree(scratch)
    return {
        "files": files,
        "changed": changed,
        "flush_s": round(statistics.median(ours), 4),
        "rsync_s": round(statistics.median(rsync), 4),
        "ratio": round(statistics.median(a / b for a, b in zip(ours, rsync, strict=True)), 3),
        "rsync_nothing_changed_s": round(statistics.median(idle), 4),
        "first_copy_s": round(first_s, 2),
        "rsync_first_copy_not_durable_s": round(rsync_first_s, 2),
    }


def _flush(engine: Engine) -> None:
    assert engine.finder.watch is not None
    engine.finder.watch.catch_up(5.0)
    engine.flush_now(lambda: False)


def _rsync(source: Path, target: Path) -> None:
    subprocess.run(["rsync", "-a", "--delete", f"{source}/", str(target)], check=True)


def _timed(work: Any) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s
