"""``python -m tests.bench.table FILE.json…`` prints the figures as Markdown.

Where several files have the same benchmark, the last one counts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

Document = dict[str, Any]
_TOOLS = ("rsync", "rclone", "restic")
_NOTHING = "–"


def read(paths: tuple[Path, ...]) -> Document:
    """The benchmarks of all files together; the machine is that of the last."""
    document: Document = {}
    for path in paths:
        document |= json.loads(path.read_text(encoding="utf-8"))
    return document


def markdown(document: Document) -> Iterator[str]:
    """The lines: the machine, the flushes, everything else."""
    machine = document["machine"]
    versions = ", ".join(document["peers"][tool]["version"] or f"no {tool}" for tool in _TOOLS)
    yield f"{machine['cores']} cores, {machine['file_system']}, Linux {machine['kernel']}; {versions}."
    if _measured(document, "flush"):
        yield ""
        yield "| files | changed | ours | `rsync` | `rclone` | `restic` | ours : rsync | goal |"
        yield "|--:|--:|--:|--:|--:|--:|--:|---|"
        for run in document["flush"]["runs"]:
            yield _flush(run)
    yield ""
    yield "| what | figure | beside it | goal |"
    yield "|---|---|---|---|"
    for name, rows in _ROWS.items():
        if _measured(document, name):
            yield from (_row(*row) for row in rows(document[name]))
        elif name in document:
            yield _row(name, f"failed: {document[name]['error']}")


def _measured(document: Document, name: str) -> bool:
    return name in document and "error" not in document[name]


def _row(what: str, figure: str, beside: str = "", goal: str = "") -> str:
    return f"| {what} | {figure} | {beside} | {goal} |"


def _flush(run: Document) -> str:
    ratio = run["ours_to_rsync_ratio"]
    goals = [text for text in (_goal(run["ours"], " s"), _goal(ratio, " × rsync")) if text]
    cells = [f"{run['files']:,}", f"{run['changed']:,}", *(_seconds(run[tool]) for tool in ("ours", *_TOOLS))]
    cells += [_NOTHING if ratio is None else f"{ratio['value']:.2g}", "; ".join(goals)]
    return "| " + " | ".join(cells) + " |"


def _seconds(series: Document | None) -> str:
    return _NOTHING if series is None else f"{series['median_s']:.2g} s"


def _goal(figure: Document | None, unit: str) -> str:
    if figure is None or "target" not in figure:
        return ""
    return f"≤ {figure['target']:g}{unit}: {'met' if figure['met'] else 'NOT MET'}"


def _growth(flush: Document) -> Iterator[tuple[str, ...]]:
    for growth in flush["growth"]:
        what = f"flush of {growth['changed']:,} files: {growth['to_files']:,} files over {growth['from_files']:,}"
        yield what, f"{growth['ours_ratio']['value']:.2g} ×", "", _goal(growth["ours_ratio"], " ×")


def _first_copy(first: Document) -> Iterator[tuple[str, ...]]:
    names = [("`cp -a`", "cp"), ("`rsync -a`", "rsync"), ("`rsync -a --fsync`", "rsync_fsync")]
    names += [("`rclone`", "rclone"), ("`restic`", "restic")]
    beside = ", ".join(f"{shown} {_seconds(first[key])}{_durable(first[key])}" for shown, key in names)
    ratio = first["ours_to_rsync_fsync_ratio"]
    yield f"durable first copy of {first['files']:,} files", _seconds(first["ours"]), beside, _goal(ratio, " × --fsync")
    ratio = first["ours_process_to_rsync_fsync_ratio"]
    yield "the same by `sidecar backup`", _seconds(first["ours_process"]), "", _goal(ratio, " × --fsync")


def _durable(series: Document | None) -> str:
    return " (durable)" if series is not None and series["durable"] else ""


def _large_file(large: Document) -> Iterator[tuple[str, ...]]:
    beside = f"`cp` {_seconds(large['cp_file'])}, `cp` and fsync {_seconds(large['cp_file_fsync'])}"
    what = f"one file of {large['bytes'] / 2**30:.2g} GiB, durable"
    yield what, _seconds(large["ours"]), beside, _goal(large["ours_to_cp_ratio"], " × `cp`")


def _latency(latency: Document) -> Iterator[tuple[str, ...]]:
    figure = " / ".join(f"{value:.2g} s" for value in (latency["p50_s"]["value"], latency["p99_s"]["value"]))
    goal = " / ".join(_goal(latency[key], " s") for key in ("p50_s", "p99_s"))
    yield (
        f"a change is safe after (p50 / p99 of {latency['samples']})",
        figure,
        f"at most {latency['max_s']:.2g} s",
        goal,
    )


def _burst(burst: Document) -> Iterator[tuple[str, ...]]:
    new, idle = burst["new_file_safe_s"], burst["idle_cpu_percent"]
    what = f"{burst['files']:,} files at once"
    yield f"{what}; then a new file is safe after", f"{new['value']:.2g} s", "", _goal(new, " s")
    yield f"{what}; when all is safe, idle CPU", f"{idle['value']:.2g} %", "", _goal(idle, " %")


def _memory(memory: Document) -> Iterator[tuple[str, ...]]:
    for run in memory["runs"]:
        peaks = [(tool, run[f"{tool}_peak_rss_mb"]) for tool in _TOOLS]
        beside = ", ".join(f"`{tool}` {peak:.0f} MB" for tool, peak in peaks if peak is not None)
        idle, after = run["pss_idle_mb"], run["pss_after_first_copy_mb"]
        figure = f"{idle['value']:.0f} MB ({after['value']:.0f} after the first copy)"
        yield f"memory at {run['files']:,} files (Pss)", figure, beside and f"{beside} (peak Rss)", _goal(idle, " MB")


def _idle_cpu(idle: Document) -> Iterator[tuple[str, ...]]:
    figure = idle["idle_cpu_percent"]
    what = f"idle CPU at {idle['directories']:,} directories, of a core"
    yield what, f"{figure['value']:.2g} %", f"over {idle['window_s']:.0f} s", _goal(figure, " %")


def _ready(ready: Document) -> Iterator[tuple[str, ...]]:
    for kind in ("warm", "cold"):
        figure = ready[f"{kind}_s"]
        what = f"watching {ready['directories']:,} directories after a {kind} start"
        yield what, f"{figure['value']:.2g} s", "", _goal(figure, " s")


def _persist_operations(operations: Document) -> Iterator[tuple[str, ...]]:
    figure, lease = operations["operations_but_lease"], operations["lease_writes_per_minute"]
    what = f"calls on Persist while idle for {operations['idle_s']:.0f} s, but for the lease"
    if figure is None:
        yield what, _NOTHING, "; ".join(operations["reasons"].values()), ""
    else:
        yield what, f"{figure['value']:.0f}", "", _goal(figure, "")
        yield "writes of the lease", f"{lease['value']:.2g} a minute", "", _goal(lease, " a minute")


_ROWS = {
    "flush": _growth,
    "first_copy": _first_copy,
    "large_file": _large_file,
    "latency": _latency,
    "burst": _burst,
    "memory": _memory,
    "idle_cpu": _idle_cpu,
    "ready": _ready,
    "persist_operations": _persist_operations,
}


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(files: tuple[Path, ...]) -> None:
    """Print the figures in FILES as Markdown."""
    sys.stdout.writelines(f"{line}\n" for line in markdown(read(files)))


if __name__ == "__main__":
    main()
