"""The GPU check at the start of a server, run as programs of their own: its verdict, or ``unknown``.

The same two steps as in a pod: ``gpu-preflight`` before the notebook starts, which leaves its report as a message,
and after the start the check of the notebook's own frameworks.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hub.processes import kill_session
from hub.text import visible

MACHINE_GPU_VARIABLES = ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
"""Where this machine's driver is and which GPUs are to be used: on one machine that is for notebooks too."""

_LONGEST_S = 12.0  # gpu-preflight ends within 10 s by itself
_LONGEST_MESSAGE = 64 << 10
_SCHEMA = 1
_VERDICTS = ("pass", "warn", "fail", "unknown")
_OPENING = "GPU check: "


@dataclass(frozen=True)
class GpuVerdict:
    """``verdict`` is ``pass``, ``warn``, ``fail`` or ``unknown``; ``line`` says it to a person, with the cause."""

    verdict: str
    line: str
    report: str
    """The whole message, or what stands for one: never empty, so that no earlier report is read for this one."""

    def __str__(self) -> str:
        return self.line


def _unknown(why: str) -> GpuVerdict:
    line = f"{_OPENING}unknown – {why}"
    return GpuVerdict(
        "unknown", line, json.dumps({"schema": _SCHEMA, "verdict": "unknown", "summary": line, "checks": []})
    )


async def check_gpus(
    command: Sequence[str], *, environ: Mapping[str, str], longest_s: float = _LONGEST_S
) -> GpuVerdict:
    """What ``gpu-preflight`` says in this environment. A program that is missing, hangs or prints garbage has not
    checked anything: ``unknown``."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=dict(environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        return _unknown(f"gpu-preflight cannot be run: {error.strerror}")
    try:
        output, _ = await asyncio.wait_for(process.communicate(), longest_s)
    except TimeoutError:
        return _unknown(f"gpu-preflight did not answer within {longest_s:g} s")
    finally:
        kill_session(process.pid)
        await process.wait()
    if process.returncode != 0:
        return _unknown(f"gpu-preflight ended with exit code {process.returncode}")
    return read_message(output.decode("utf-8", "replace"))


def read_message(message: str | None) -> GpuVerdict:
    """The verdict in the message that gpu-preflight left behind: on one machine on its standard output, in a pod as its
    container's termination message. No message, or one that is no report, is ``unknown``, never ``pass``."""
    if not message:
        return _unknown("gpu-preflight left no report")
    try:
        report = json.loads(message[:_LONGEST_MESSAGE])
    except (ValueError, RecursionError):
        return _unknown("gpu-preflight left no report that can be read")
    verdict = report.get("verdict") if isinstance(report, dict) and report.get("schema") == _SCHEMA else None
    if not isinstance(verdict, str) or verdict not in _VERDICTS:
        return _unknown("gpu-preflight left a report without a verdict")
    summary = report.get("summary")
    line = visible(summary, limit=500) if isinstance(summary, str) and summary else f"{_OPENING}{verdict}"
    if not line.startswith(_OPENING):
        line = f"{_OPENING}{verdict} – {line}"
    return GpuVerdict(verdict, line, json.dumps(report))


async def follow_up(command: Sequence[str], *, environ: Mapping[str, str], longest_s: float = _LONGEST_S) -> str:
    """``gpu-check short --background`` was started in the notebook's environment; it goes on by itself, and adds its
    result to the report. Why it could not be started, or nothing."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            "short",
            "--background",
            env=dict(environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        return str(error.strerror)
    try:
        code = await asyncio.wait_for(process.wait(), longest_s)
    except TimeoutError:
        kill_session(process.pid)
        await process.wait()
        return f"it did not detach within {longest_s:g} s"
    return "" if code == 0 else f"exit code {code}"
