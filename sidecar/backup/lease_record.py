"""What a lease says, and when a newcomer may take it: no file is touched here."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sidecar.backup.holder import Holder
from sidecar.errors import PersistForeign

FORMAT = 1
RECORD_BYTES = 1024
"""Every record has this size: a beat overwrites a part of it in place, in one page."""
MOST_BYTES = 4096
"""So much is read of what stands where a lease is to be: a later format may be larger."""

WORKING_S = 5.0
IDLE_S = 60.0
INTERVALS = 3
"""A lease that nobody has beaten for so many of its intervals is free."""
_SHORTEST_S, _LONGEST_S = 1.0, 600.0

_TOKEN = re.compile(r"[0-9a-f]{16}")
_HOST_CHARACTERS = 64
HEAD_BYTES = len('{"format": 1, "beat": ' + 20 * "0" + ', "interval_s": ' + 8 * "0" + ', "released": false,\n')
"""What changes while one holder has the lease; all behind it says who that is."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One holder's lease."""

    generation: int
    """Grows with each taking over."""
    token: str
    """Random: tells this taking from every other one."""
    holder: Holder
    beat: int = 0
    """Grows while the holder lives."""
    interval_s: float = WORKING_S
    """So often it promises to grow."""
    released: bool = False
    """The holder has ended, and knew it."""


@dataclass(frozen=True)
class Damaged:
    """Something stands there that cannot be read as a lease: held by nobody known."""

    interval_s: float = IDLE_S


class Reason(StrEnum):
    """Why a lease may be taken."""

    FREE = "there was none"
    RELEASED = "the one before had ended"
    OURS = "it was our own"
    GONE = "the process that held it is gone"
    STILL = "nobody had beaten it for three intervals"


def may_take(
    lease: Record | Damaged | None, ours: Holder, stood_still_s: float, *, process_is_gone: bool
) -> Reason | None:
    """Why ``ours`` may take ``lease``, of which we saw no change for ``stood_still_s``; None while it may not.

    ``process_is_gone``: nothing runs here that has pid and start time of its holder. That counts only where both
    are in one PID namespace of one boot.
    """
    if lease is None:
        return Reason.FREE
    if isinstance(lease, Record):
        if lease.released:
            return Reason.RELEASED
        holder = lease.holder
        if (ours.pod_uid and holder.pod_uid == ours.pod_uid) or holder.is_process(ours):
            return Reason.OURS
        if process_is_gone and holder.shares_pids(ours):
            return Reason.GONE
    return Reason.STILL if stood_still_s >= INTERVALS * lease.interval_s else None


def head(beat: int, interval_s: float, *, released: bool) -> bytes:
    """The first ``HEAD_BYTES`` of a record."""
    text = f'{{"format": {FORMAT}, "beat": {beat:20d}, "interval_s": {interval_s:8.3f}, '
    return (text + f'"released": {"true" if released else "false":>5},\n').encode()


def tail(record: Record) -> bytes:
    """All behind the head: no other lease ever has the same."""
    holder = record.holder
    rest = {
        "generation": record.generation,
        "token": record.token,
        "pod_uid": holder.pod_uid,
        "boot_id": holder.boot_id,
        "pid_namespace": holder.pid_namespace,
        "pid": holder.pid,
        "started_ticks": holder.started_ticks,
        "host": holder.host[:_HOST_CHARACTERS],
    }
    return json.dumps(rest).encode()[1:].ljust(RECORD_BYTES - HEAD_BYTES - 1) + b"\n"


def encode(record: Record) -> bytes:
    """The bytes that ``decode`` reads back."""
    return head(record.beat, record.interval_s, released=record.released) + tail(record)


def decode(data: bytes) -> Record | Damaged:
    """What ``data`` says. Raises ``PersistForeign`` where a later version wrote it."""
    try:
        found = json.loads(data)
        written_by = _number(found, "format")
        if written_by > FORMAT:
            raise PersistForeign(
                f"the lease on Persist has format {written_by}, this version writes format {FORMAT}",
                hint="use the later version",
            )
        return _record(found) if len(data) == RECORD_BYTES else Damaged()
    except (ValueError, TypeError, KeyError, RecursionError):
        return Damaged()


def _record(found: Any) -> Record:
    record = Record(
        generation=_number(found, "generation"),
        token=_text(found, "token"),
        holder=Holder(
            pod_uid=_text(found, "pod_uid"),
            boot_id=_text(found, "boot_id"),
            pid_namespace=_text(found, "pid_namespace"),
            pid=_number(found, "pid"),
            started_ticks=_number(found, "started_ticks"),
            host=_text(found, "host"),
        ),
        beat=_number(found, "beat"),
        interval_s=float(found["interval_s"]),
        released=found["released"] is True,
    )
    # The token is part of a file's name. kill(2) takes 0 and less for many processes.
    if not _TOKEN.fullmatch(record.token) or record.generation < 1 or not 0 < record.holder.pid < 1 << 31:
        raise ValueError("no lease of ours")
    if not _SHORTEST_S <= record.interval_s <= _LONGEST_S:
        raise ValueError("no interval of ours")
    return record


def _number(found: Any, key: str) -> int:
    value = found[key]
    if type(value) is not int:
        raise TypeError(key)
    return value


def _text(found: Any, key: str) -> str:
    value = found[key]
    if not isinstance(value, str):
        raise TypeError(key)
    return value
