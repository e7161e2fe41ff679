"""One command as a process of its own, timed from its start to its end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import TypeVar

Turn = TypeVar("Turn")

_LAUNCH = Path(__file__).with_name("launch.py")


@dataclass(frozen=True)
class Ran:
    """A command that ended with 0."""

    seconds: float
    peak_rss_bytes: int
    """Of its largest process, or what ``smallest_peak_bytes`` says, whichever is more."""


@dataclass(frozen=True)
class Refused:
    """A command that is not here, or that failed."""

    reason: str


def run_timed(command: Sequence[str], environ: Mapping[str, str]) -> Ran | Refused:
    """How ``command`` went, with ``environ`` on top of ours."""
    program = shutil.which(command[0])
    if program is None:
        return Refused(f"{command[0]} is not installed")
    launcher = subprocess.Popen(
        [sys.executable, "-I", "-S", str(_LAUNCH), program, *command[1:]],
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,
    )
    try:
        said, complaints = launcher.communicate()
    except BaseException:  # an interrupt: nothing may go on writing behind our back
        os.killpg(launcher.pid, signal.SIGKILL)
        launcher.wait()
        raise
    code, seconds, peak_rss_bytes = said.split()
    if code != "0":
        return Refused(f"{command[0]} ended with {code}: {complaints.strip()[-300:]}")
    return Ran(float(seconds), int(peak_rss_bytes))


def smallest_peak_bytes() -> int:
    """Whatever needs less memory than this is measured as this much. Raises ``OSError`` where nothing can be run."""
    outcome = run_timed(["true"], {})
    if isinstance(outcome, Refused):
        raise OSError(outcome.reason)
    return outcome.peak_rss_bytes


def rest(rest_s: float) -> None:
    """What others wrote is on the disk, and does not slow down what is timed next."""
    os.sync()
    sleep(rest_s)


def in_turn(turns: Sequence[Turn], round_: int) -> list[Turn]:
    """All of ``turns``, another one first in each round: nobody gets the warm cache always."""
    first = round_ % len(turns)
    return [*turns[first:], *turns[:first]]
