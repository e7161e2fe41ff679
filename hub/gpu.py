"""The GPU check at the start of a server, run as a program of its own: its verdict, or ``unknown``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hub.processes import kill_session
from hub.text import visible

MACHINE_GPU_VARIABLES = ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
"""Where this machine's driver is and which GPUs are to be used: on one machine that is for notebooks too."""

_LONGEST_S = 12.0  # gpu-check quick ends within 10 s by itself
_LONGEST_BYTES = 64 << 10
_EXIT_CODES = {"pass": 0, "warn": 0, "fail": 2, "unknown": 3}
_OPENING = "GPU check: "


@dataclass(frozen=True)
class GpuVerdict:
    """``verdict`` is ``pass``, ``warn``, ``fail`` or ``unknown``; ``line`` says it to a person, with the cause."""

    verdict: str
    line: str
    report: str = ""

    def __str__(self) -> str:
        return self.line


def _unknown(why: str) -> GpuVerdict:
    return GpuVerdict("unknown", f"{_OPENING}unknown – {why}")


async def check_gpus(
    command: Sequence[str], *, environ: Mapping[str, str], expected: int, longest_s: float = _LONGEST_S
) -> GpuVerdict:
    """What ``gpu-check quick`` says about ``expected`` GPUs. A program that is missing, hangs or prints garbage has
    not checked anything: ``unknown``."""
    arguments = [*command, "quick", "--expect", str(expected), "--json"]
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            env=dict(environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        return _unknown(f"gpu-check cannot be run: {error.strerror}")
    try:
        output, _ = await asyncio.wait_for(process.communicate(), longest_s)
    except TimeoutError:
        return _unknown(f"gpu-check did not answer within {longest_s:g} s")
    finally:
        kill_session(process.pid)
        await process.wait()
    return read_report(output, process.returncode)


def read_report(output: bytes, exit_code: int | None) -> GpuVerdict:
    """The verdict in the JSON that gpu-check printed. It passed only if its exit code says so too."""
    try:
        report = json.loads(output[:_LONGEST_BYTES].decode("utf-8"))
    except (ValueError, RecursionError):
        return _unknown(f"gpu-check gave no report (exit code {exit_code})")
    verdict = report.get("verdict") if isinstance(report, dict) else None
    if not isinstance(verdict, str) or verdict not in _EXIT_CODES:
        return _unknown(f"gpu-check gave a report without a verdict (exit code {exit_code})")
    if exit_code != _EXIT_CODES[verdict] and verdict in ("pass", "warn"):
        return _unknown(f"gpu-check says {verdict}, but ended with exit code {exit_code}")
    summary = report.get("summary")
    line = visible(summary, limit=500) if isinstance(summary, str) and summary else f"{_OPENING}{verdict}"
    if not line.startswith(_OPENING):
        line = f"{_OPENING}{verdict} – {line}"
    return GpuVerdict(verdict, line, json.dumps(report))
