"""What our containers left behind, as the pod's status has it: termination messages, read as what they may be.

They were written by our programs, and carry names that a user chose. No message is *unknown*, never *safe*.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard, assert_never

from hub.gpu import GpuVerdict, read_message
from hub.pod import PREFLIGHT, PREPARE, STORAGE
from hub.text import visible

Pod = Mapping[str, Any]

_LONGEST_MESSAGE = 4096  # of one container; a kubelet cuts what is longer
_SCHEMA = 1
_SAFE = 0
_PERSIST_STATES = frozenset(
    {"ok", "missing", "full", "slow", "stale", "hung", "read-only", "foreign", "fenced", "unknown"}
)
_SHOWN_FILES = 5


@dataclass(frozen=True)
class Safe:
    """The end saved everything."""

    files: int


@dataclass(frozen=True)
class LeftBehind:
    """The end could not save ``count`` files; ``files`` names the first of them, made visible."""

    count: int
    files: tuple[str, ...]
    persist: str
    exit_code: int


@dataclass(frozen=True)
class UnknownEnd:
    """Nobody knows what is safe; ``why`` is one line, made visible."""

    why: str


End = Safe | LeftBehind | UnknownEnd


def container_statuses(pod: Pod) -> Iterator[Mapping[str, Any]]:
    """Of all containers, the native sidecar's among those of the init containers."""
    status = pod.get("status") or {}
    for key in ("initContainerStatuses", "containerStatuses"):
        yield from status.get(key) or []


def container_status(pod: Pod, name: str) -> Mapping[str, Any]:
    """Of the container ``name``; empty while there is none."""
    return next((each for each in container_statuses(pod) if each.get("name") == name), {})


def terminated(status: Mapping[str, Any], *, last: bool = False) -> Mapping[str, Any] | None:
    """How the container has ended; with ``last`` also how it ended before it was started again."""
    states = [status.get("state"), status.get("lastState")] if last else [status.get("state")]
    for state in states:
        ended = (state or {}).get("terminated")
        if isinstance(ended, dict):
            return ended
    return None


def storage_ran(pod: Pod) -> bool:
    """Whether our sidecar was part of the pod, and has ever been running: there is something to say about its end."""
    status = container_status(pod, STORAGE)
    return "running" in (status.get("state") or {}) or terminated(status, last=True) is not None


def gpu_verdict(pod: Pod, expected: int) -> GpuVerdict | None:
    """What gpu-preflight, asked for so many GPUs, found; ``None`` while it has not ended, or is not part of the pod."""
    ended = terminated(container_status(pod, PREFLIGHT))
    return None if ended is None else read_message(_message(ended), expected=expected)


@dataclass(frozen=True)
class Preparation:
    """What storage-prepare has done; the texts are made visible, and empty where all is well."""

    problem: str
    """Why the user has no directory on Persist."""

    tools: str
    """Why the notebook has not all of the tools."""


def preparation(pod: Pod) -> Preparation | None:
    """What storage-prepare says; ``None`` while it has not ended."""
    ended = terminated(container_status(pod, PREPARE))
    if ended is None:
        return None
    document = _document(ended)
    if document is None:
        return Preparation("storage-prepare left no report", "")
    state, detail, tools = document.get("persist"), document.get("detail"), document.get("tools_detail")
    problem = "" if state == "ok" else visible(f"{detail or state}", limit=600)
    return Preparation(problem, visible(tools, limit=600) if isinstance(tools, str) else "")


def end_of(pod: Pod) -> End:
    """What the sidecar of a pod that has ended says about its files."""
    ended = terminated(container_status(pod, STORAGE), last=True)
    if ended is None:
        return UnknownEnd("the sidecar's end was not seen")
    document = _document(ended)
    if document is None:
        code = ended.get("exitCode")
        text = last_line(_message(ended))
        return UnknownEnd(f"the sidecar left no report (exit code {code})" + (f": {text}" if text else ""))
    left, saved = document.get("left_behind"), document.get("protected")
    code, persist = document.get("exit_code"), document.get("persist")
    if not isinstance(left, dict) or not isinstance(saved, dict) or not _is_count(code):
        return UnknownEnd("the sidecar left a report that cannot be understood")
    count, files = left.get("count"), saved.get("files")
    if not _is_count(count) or not _is_count(files):
        return UnknownEnd("the sidecar left a report that cannot be understood")
    if code == _SAFE == ended.get("exitCode") and count == 0:
        return Safe(files)
    named = left.get("files")
    return LeftBehind(
        count=count,
        files=tuple(visible(each, limit=200) for each in named if isinstance(each, str)) if named else (),
        persist=persist if persist in _PERSIST_STATES else "unknown",
        exit_code=code,
    )


def describe(end: End) -> str:
    """``end`` for the log, in one line."""
    match end:
        case Safe(files):
            return f"everything is saved: {files:,} files"
        case LeftBehind(count, files, persist, code):
            names = ", ".join(files[:_SHOWN_FILES]) + (", …" if len(files) > _SHOWN_FILES or count > len(files) else "")
            which = f" ({names})" if files else ""
            return f"NOT SAVED: {count:,} files{which}; Persist is {persist}; exit code {code}"
        case UnknownEnd(why):
            return f"nobody knows whether everything is saved: {why}"
        case _:
            assert_never(end)


def last_line(text: str) -> str:
    """The last line of ``text``, made visible."""
    lines = [line for line in text.splitlines() if line.strip()]
    return visible(lines[-1], limit=400) if lines else ""


def _message(ended: Mapping[str, Any]) -> str:
    message = ended.get("message")
    return message[:_LONGEST_MESSAGE] if isinstance(message, str) else ""


def _document(ended: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        document = json.loads(_message(ended))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and document.get("schema") == _SCHEMA else None


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
