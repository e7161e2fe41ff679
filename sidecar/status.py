"""What the sidecar says about itself: the document of DESIGN, "Status", for the socket, people and the hub."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from sidecar.entry import shown, visible
from sidecar.fsops import FileSystem, read_file

SCHEMA = 1
_SHOWN = 1000
"""Of each list of paths: the status must stay small enough to be asked for all the time."""
_LONGEST_LINE = 500
_REPORT_MAX_BYTES = 65536
_REPORT_MAX_LEVELS = 16
_REPORT_SCHEMA = 1
_VERDICTS = ("pass", "warn", "fail", "unknown")


@dataclass(frozen=True)
class Status:
    """A moment of one sidecar. Replaced as a whole, so that any thread can read it at any time."""

    state: str = "starting"
    server: str = ""
    detail: str = ""
    """What is going on, in plain words; empty when there is nothing to tell."""
    protected_files: int = 0
    protected_bytes: int = 0
    pending_files: int = 0
    pending_bytes: int = 0
    pending_since: float | None = None
    """When the longest waiting file changed, on the monotonic clock in seconds."""
    held_back: Mapping[bytes, str] = field(default_factory=dict)
    """What waits longer than the rest, with why."""
    restored_files: int = 0
    skipped: Mapping[bytes, str] = field(default_factory=dict)
    skipped_count: int = 0
    failed: Mapping[bytes, str] = field(default_factory=dict)
    last_saved_at: str | None = None
    persist_state: str = "ok"
    persist_since: float | None = None
    """Since when Persist has this state, on the monotonic clock in seconds; None where it is ``ok``."""
    free_bytes: int | None = None
    watches: int = 0
    overflows: int = 0
    limit_reached: bool = False
    scan_interval_s: float = 0.0
    left_behind: Any = None
    brake: Any = None
    shared: Sequence[Mapping[str, Any]] = ()

    def document(self, now_s: float, gpu: object = None) -> dict[str, Any]:
        """The status as plain data, with ``now_s`` on the monotonic clock."""
        return {
            "schema": SCHEMA,
            "state": self.state,
            "server": self.server,
            "detail": self.detail,
            "protected": {"files": self.protected_files, "bytes": self.protected_bytes},
            "pending": {
                "files": self.pending_files,
                "bytes": self.pending_bytes,
                "oldest_s": _age_s(self.pending_since, now_s),
                "held_back": _with_reasons(self.held_back),
            },
            "restored": {"files": self.restored_files},
            "skipped": _with_reasons(self.skipped),
            "skipped_count": self.skipped_count,
            "failed": _with_reasons(self.failed),
            "failed_count": len(self.failed),
            "last_saved_at": self.last_saved_at,
            "persist": {
                "state": self.persist_state,
                "for_s": _age_s(self.persist_since, now_s),
                "free_bytes": self.free_bytes,
            },
            "watch": {
                "watches": self.watches,
                "overflows": self.overflows,
                "limit_reached": self.limit_reached,
                "scan_interval_s": self.scan_interval_s,
            },
            "left_behind": self.left_behind,
            "brake": self.brake,
            "shared": list(self.shared),
            "gpu": gpu,
        }


def _age_s(since_s: float | None, now_s: float) -> float | None:
    return None if since_s is None else round(max(0.0, now_s - since_s), 3)


def _with_reasons(paths: Mapping[bytes, str]) -> list[dict[str, str]]:
    return [{**path_fields(path), "reason": reason} for path, reason in islice(paths.items(), _SHOWN)]


def silent(server: str) -> dict[str, Any]:
    """The status where a sidecar runs and does not answer."""
    detail = "the sidecar runs, and does not answer"
    status = Status(server=server, state="degraded", detail=detail, persist_state="unknown")
    return status.document(0.0)


def stopped(server: str) -> dict[str, Any]:
    """The status where no sidecar runs."""
    return replace(Status(server=server), state="stopped").document(0.0)


def path_fields(path: bytes) -> dict[str, str]:
    """``path`` for JSON: readable always, exact in ``path_b64`` where UTF-8 cannot say it."""
    fields = {"path": shown(path)}
    try:
        path.decode("utf-8")
    except UnicodeDecodeError:
        fields["path_b64"] = base64.b64encode(path).decode("ascii")
    return fields


def read_report(fs: FileSystem, path: str) -> object:
    """The GPU report at ``path``, or None. It is the user's file: no link is followed, it is small and flat, and says
    one of the four verdicts in the schema that is known here."""
    if not path:
        return None
    try:
        at = fs.open(os.fsencode(os.path.dirname(path)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        report = json.loads(read_file(fs, at, os.fsencode(os.path.basename(path)), _REPORT_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    finally:
        fs.close(at)
    return report if _is_report(report) and _is_flat(report, _REPORT_MAX_LEVELS) else None


def _is_report(value: object) -> bool:
    if not isinstance(value, dict) or value.get("schema") != _REPORT_SCHEMA:
        return False
    verdict, said = value.get("verdict"), value.get("summary")
    return isinstance(verdict, str) and verdict in _VERDICTS and isinstance(said, str)


def _is_flat(value: object, levels: int) -> bool:
    """Whether ``value`` nests no deeper: writing JSON gives up at fewer levels than reading it."""
    if not isinstance(value, dict | list):
        return True
    inside = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_flat(each, levels - 1) for each in inside)


def summary(document: Mapping[str, Any]) -> str:
    """The status for people, a few lines."""
    protected, pending, persist = document["protected"], document["pending"], document["persist"]
    lines = [f"state      {document['state']}" + (f": {document['detail']}" if document["detail"] else "")]
    if document["state"] != "stopped":
        lines.append(f"protected  {protected['files']} files, {size_text(protected['bytes'])}")
        waiting = f"pending    {pending['files']} files, {size_text(pending['bytes'])}"
        lines.append(waiting + (f", the oldest for {pending['oldest_s']:.1f} s" if pending["oldest_s"] else ""))
        lines.append(f"saved      {document['last_saved_at'] or 'nothing yet'}")
        free = "" if persist["free_bytes"] is None else f", {size_text(persist['free_bytes'])} free"
        lasting = "" if persist["for_s"] is None else f" for {persist['for_s']:.0f} s"
        lines.append(f"Persist    {persist['state']}{lasting}{free}")
        lines.append(f"left out   {document['skipped_count']}")
    lines += [f"waits      {visible(item['path'])}: {item['reason']}" for item in document["pending"]["held_back"][:20]]
    lines += [f"NOT SAVED  {visible(item['path'])}: {item['reason']}" for item in document["failed"][:20]]
    if document["failed_count"] > 20:
        lines.append(f"NOT SAVED  {document['failed_count']} files in all")
    for share in document["shared"]:
        room = "" if share["free_bytes"] is None else f", {size_text(share['free_bytes'])} free"
        lines.append(f"Shared     {visible(share['name'])} ({share['access']}): {share['state']}{room}")
    if document["gpu"]:
        lines.append(f"GPU        {document['gpu']['verdict']}: {visible(document['gpu']['summary'])[:_LONGEST_LINE]}")
    if document["brake"]:
        lines.append(f"BRAKE      {document['brake']['reason']}")
    if document["left_behind"]:
        lines.append(f"LEFT       the last end could not save {document['left_behind'].get('count')} files")
    return "\n".join(lines)


def size_text(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
