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
    command: Sequence[str], *, expected: int, environ: Mapping[str, str], longest_s: float = _LONGEST_S
) -> GpuVerdict:
    """What ``gpu-preflight``, asked for so many GPUs, says in this environment. A program that is missing, hangs or
    prints garbage has not checked anything: ``unknown``."""
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
        output = await asyncio.wait_for(_output(process), longest_s)
    except TimeoutError:
        return _unknown(f"gpu-preflight did not answer within {longest_s:g} s")
    finally:
        kill_session(process.pid)
        await process.wait()
    if process.returncode != 0 and len(output) <= _LONGEST_MESSAGE:
        return _unknown(f"gpu-preflight ended with exit code {process.returncode}")
    return read_message(output.decode("utf-8", "replace"), expected=expected)


async def _output(process: asyncio.subprocess.Process) -> bytes:
    """What it prints until it ends, or the beginning of what is too long for a report."""
    assert process.stdout is not None
    output = b""
    while len(output) <= _LONGEST_MESSAGE and (chunk := await process.stdout.read(_LONGEST_MESSAGE)):
        output += chunk
    if len(output) <= _LONGEST_MESSAGE:
        await process.wait()
    else:
        kill_session(process.pid)
    return output


def read_message(message: str | None, *, expected: int) -> GpuVerdict:
    """The verdict in the message that gpu-preflight left behind: on one machine on its standard output, in a pod as its
    container's termination message. No message, one that is no report, or one about another number of GPUs than
    ``expected`` is ``unknown``, never ``pass``."""
    if not message:
        return _unknown("gpu-preflight left no report")
    if len(message) > _LONGEST_MESSAGE:
        return _unknown("gpu-preflight left a report that is too long")
    try:
        report = json.loads(message)
    except (ValueError, RecursionError):
        return _unknown("gpu-preflight left no report that can be read")
    verdict = report.get("verdict") if isinstance(report, dict) and _is(report.get("schema"), _SCHEMA) else None
    if not isinstance(verdict, str) or verdict not in _VERDICTS:
        return _unknown("gpu-preflight left a report without a verdict")
    if verdict != "unknown" and not _is(report.get("expected"), expected):
        return _unknown(f"gpu-preflight did not check whether there are {expected} GPUs")
    summary = report.get("summary")
    line = visible(summary, limit=500) if isinstance(summary, str) and summary else f"{_OPENING}{verdict}"
    if not line.startswith(_OPENING):
        line = f"{_OPENING}{verdict} – {line}"
    return GpuVerdict(verdict, line, json.dumps(report))


def _is(value: object, number: int) -> bool:
    """In JSON, ``true`` is not 1."""
    return type(value) is int and value == number


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
