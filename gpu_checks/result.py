"""The values a check ends in, and how several verdicts become one.

Report
├── verdict, summary     the worst of the checks, and one plain line about it
├── gpus: Gpu …          each GPU by UUID, with what the driver reports about it
└── checks: Check …      what was looked at, with cause, audience and action where it did not pass

Annotations are evaluated at run time on Python 3.9, when a stored report is read: hence ``Optional``.
"""

import enum
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Optional

from .facts import Health

EXIT_OK = 0
EXIT_WARN_STRICT = 1
EXIT_FAIL = 2
EXIT_UNKNOWN = 3
EXIT_USAGE = 64  # EX_USAGE of sysexits.h

TEXT_LIMIT = 300  # characters of any one text in a report: it travels in a 4 KiB termination message


class Verdict(enum.Enum):
    """What a check found. ``fail`` beats ``unknown`` beats ``warn`` beats ``pass``."""

    PASS = "pass"  # noqa: S105  a verdict, not a password
    WARN = "warn"
    UNKNOWN = "unknown"
    FAIL = "fail"

    @property
    def severity(self) -> int:
        """Larger is worse."""
        return _SEVERITY[self]


_SEVERITY = {Verdict.PASS: 0, Verdict.WARN: 1, Verdict.UNKNOWN: 2, Verdict.FAIL: 3}


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict that beats all others; nothing checked at all is ``unknown``, never ``pass``."""
    return max(verdicts, key=lambda verdict: verdict.severity, default=Verdict.UNKNOWN)


def exit_code(verdict: Verdict, *, strict: bool) -> int:
    """The process's exit code for this verdict."""
    if verdict is Verdict.PASS:
        return EXIT_OK
    if verdict is Verdict.WARN:
        return EXIT_WARN_STRICT if strict else EXIT_OK
    return EXIT_UNKNOWN if verdict is Verdict.UNKNOWN else EXIT_FAIL


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. ``verdict`` is its severity, ``audience`` who can mend it: user or administrator.

    ``cause``, the actions and the audience are empty where it passed.
    """

    name: str
    verdict: Verdict
    detail: str = ""
    cause: str = ""
    user_action: str = ""
    admin_action: str = ""
    gpu: str = ""  # the UUID, for a check of one GPU
    audience: str = ""


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one MIG instance, that can be seen here."""

    uuid: str
    name: str
    index: Optional[int]  # CUDA's, or None where only NVML sees it
    mig: bool = False
    memory_bytes: Optional[int] = None
    free_bytes: Optional[int] = None  # before the check took any
    compute_capability: str = ""
    multiprocessors: Optional[int] = None
    tested_bytes: int = 0
    health: Health = field(default_factory=Health)


@dataclass(frozen=True)
class Versions:
    """What took part; empty where it could not be asked."""

    gpu_check: str
    python: str
    driver: str = ""
    cuda: str = ""


@dataclass(frozen=True)
class Framework:
    """A framework of the notebook's Python. ``state`` is ``checked``, ``not checked``, ``cpu build`` or
    ``not installed``."""

    name: str
    state: str
    version: str = ""
    build: str = ""


@dataclass(frozen=True)
class Frameworks:
    """Which frameworks were found, in which Python."""

    python: str
    python_version: str
    found: tuple[Framework, ...]
    duration_s: float
    finished_at: str


@dataclass(frozen=True)
class Outcome:
    """How the driver-level part of a longer run ended."""

    verdict: str
    summary: str
    finished_at: str


@dataclass(frozen=True)
class Report:
    """A whole run: what is shown, stored and exited with."""

    verdict: Verdict
    summary: str
    level: str
    expected: Optional[int]
    found: Optional[int]
    gpus: tuple[Gpu, ...]
    checks: tuple[Check, ...]
    duration_s: float
    finished_at: str
    versions: Versions
    quick: Optional[Outcome] = None  # from ``short`` on
    frameworks: Optional[Frameworks] = None


def plain(text: str, limit: int = TEXT_LIMIT) -> str:
    """The text on one line without control, bidirectional or unassigned characters: those appear as ``\\xNN``.

    Names come from a driver that the image may have brought along, so they are as hostile as any text from a pod.
    """
    shown = "".join(_visible(character) for character in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _visible(character: str) -> str:
    # C: control, format (the bidirectional marks are here), surrogate, private, unassigned; Zl, Zp: line breaks.
    category = unicodedata.category(character)
    if category.startswith("C") or category in ("Zl", "Zp"):
        return character.encode("unicode_escape").decode("ascii")
    return character
