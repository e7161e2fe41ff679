"""Time as the sidecar sees it: durations by the monotonic clock, stored times in UTC."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from functools import lru_cache

from sidecar.errors import UsageError

_STAMP = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z")


class Clock:
    """The real clocks. Tests pass one that they move."""

    def monotonic(self) -> float:
        """Seconds on a clock that never steps."""
        return time.monotonic()

    def now_ns(self) -> int:
        """Nanoseconds since 1970 in UTC, as the kernel stamps files."""
        return time.time_ns()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def stamp(at_ns: int) -> str:
    """``at_ns`` as text that sorts like time and fits in a file name: microseconds, rounded down."""
    return f"{_second(at_ns // 1_000_000_000)}.{_micros(at_ns)}Z"


@lru_cache(64)
def _second(at_s: int) -> str:
    # What is saved together changed together: most of it in one of few seconds.
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y%m%dT%H%M%S")


def iso(at_ns: int) -> str:
    """``at_ns`` as ISO 8601 in UTC with microseconds, rounded down: what ``parse_time`` reads back."""
    return datetime.fromtimestamp(at_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + _micros(at_ns) + "Z"


def _micros(at_ns: int) -> str:
    return f"{at_ns % 1_000_000_000 // 1000:06d}"


def parse_stamp(text: str) -> int | None:
    """The nanoseconds that ``stamp`` wrote as ``text``; None where it did not."""
    if not _STAMP.fullmatch(text):
        return None
    try:
        return _to_ns(datetime.fromisoformat(text))
    except ValueError:
        return None


def parse_time(text: str) -> int:
    """ISO 8601 as nanoseconds since 1970; without an offset it is UTC. Raises ``UsageError``."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a time", hint="ISO 8601, for example 2026-05-04T10:30:00Z") from error
    return _to_ns(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _to_ns(moment: datetime) -> int:
    return int(moment.replace(microsecond=0).timestamp()) * 1_000_000_000 + moment.microsecond * 1000
