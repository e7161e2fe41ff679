"""The ``short`` level: everything of ``quick``, and then the image's own frameworks on every GPU. Up to minutes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from . import frameworks, quick, report
from .framework_facts import SeenGpu, Situation
from .framework_verdict import CHECKED, NOT_INSTALLED, TITLES
from .frameworks import Checked
from .result import Check, Framework, Outcome, Report, Verdict, plain, worst
from .verdict import OPENINGS

LEVEL = "short"


def run(
    expected: int | None,
    environ: Mapping[str, str],
    *,
    started: float | None = None,
    before: Report | None = None,
) -> Report:
    """The report of one run: the driver-level checks, then the frameworks."""
    done = quick.run(expected, environ, started=started, before=before)
    return _frameworks_too(done, environ, after_start=False)


def after_start(expected: int | None, environ: Mapping[str, str], place: str) -> None:
    """The frameworks' part is in the report file ``place``, beside the driver-level checks that were made at the spawn.

    Those are not made again: by now the GPU's memory may be the user's. Where the file has none, they are made now.
    A file that a longer run has meanwhile replaced is newer, and left as it is. Raises OSError, ValueError.
    """
    before = report.stored(place)
    if before is None:
        done = _frameworks_too(quick.run(expected, environ), environ, after_start=True)
        report.write(place, report.bounded_json(done))
        return
    at = frameworks.notebook(environ, after_start=True)
    hidden = frameworks.VISIBLE_DEVICES in at.environ
    checked = frameworks.check(at, situation(before, expected, hidden=hidden))
    now = report.stored(place) or before
    if now.get("level") == quick.LEVEL:
        report.write(place, report.bounded(merged(now, checked)))


def _frameworks_too(done: Report, environ: Mapping[str, str], *, after_start: bool) -> Report:
    began = time.monotonic()
    at = frameworks.notebook(environ, after_start=after_start)
    variable = frameworks.VISIBLE_DEVICES
    hidden = variable in at.environ and at.environ[variable] != environ.get(variable)
    checked = frameworks.check(at, situation(report.as_data(done), done.expected, hidden=hidden))
    verdict, summary = combined(done.verdict, done.summary, checked)
    return dataclasses.replace(
        done,
        level=LEVEL,
        verdict=verdict,
        summary=summary,
        checks=(*done.checks, *checked.checks),
        duration_s=round(done.duration_s + time.monotonic() - began, 3),
        finished_at=checked.section.finished_at,
        quick=Outcome(done.verdict.value, done.summary, done.finished_at),
        frameworks=checked.section,
    )


def situation(data: Mapping[str, Any], expected: int | None, *, hidden: bool) -> Situation:
    """What a stored report says about the GPUs. It is the user's file, so each value is what it should be or left out.

    ``hidden``: the frameworks run under a CUDA_VISIBLE_DEVICES that these checks did not have.
    One process sees at most one MIG instance; those that CUDA does not show have no index.
    """
    entries = [entry for entry in _list(data.get("gpus")) if isinstance(entry, dict)]
    seen = tuple(
        SeenGpu(entry["index"], str(entry.get("uuid", "")), str(entry.get("compute_capability", "")))
        for entry in entries
        if type(entry.get("index")) is int
    )
    counted = data.get("found")
    versions = data.get("versions")
    return Situation(
        expected=expected,
        visible=len(seen) if entries else counted if type(counted) is int and counted > 0 else 0,
        gpus=seen,
        driver_cuda=str(versions.get("cuda", "")) if isinstance(versions, dict) else "",
        hidden=hidden,
    )


def merged(data: Mapping[str, Any], checked: Checked) -> dict[str, Any]:
    """The stored report of ``quick`` with the frameworks' part in it; its own verdict stays under ``quick``."""
    before = Verdict(data["verdict"])
    summary = str(data.get("summary", ""))
    verdict, now = combined(before, summary, checked)
    duration_s = data.get("duration_s")
    made = [{**dataclasses.asdict(check), "verdict": check.verdict.value} for check in checked.checks]
    return {
        **data,
        "level": LEVEL,
        "verdict": verdict.value,
        "summary": now,
        "checks": [*_list(data.get("checks")), *made],
        "duration_s": round(
            (duration_s if isinstance(duration_s, (int, float)) else 0) + checked.section.duration_s, 3
        ),
        "finished_at": checked.section.finished_at,
        "quick": dataclasses.asdict(Outcome(before.value, summary, str(data.get("finished_at", "")))),
        "frameworks": dataclasses.asdict(checked.section),
    }


def combined(before: Verdict, summary: str, checked: Checked) -> tuple[Verdict, str]:
    """The verdict on both parts, and the line that says it: the worse part's, the driver's where they are equal."""
    part = worst((Verdict.PASS, *(check.verdict for check in checked.checks)))
    if before is Verdict.PASS and part is Verdict.PASS:
        return before, plain(f"{summary} {_passed(checked.section.found)}", 400)
    if before.severity >= part.severity:
        return before, summary
    reason: Check = next(check for check in checked.checks if check.verdict is part)
    return part, plain(f"{OPENINGS[part]} – {reason.cause}. {reason.user_action}", 400)


def _passed(found: tuple[Framework, ...]) -> str:
    told = [f"{TITLES[each.name]} {each.version}" for each in found if each.state == CHECKED]
    if told:
        return f"{' and '.join(told)} computed right."
    missing = " or ".join(TITLES[each.name] for each in found if each.state == NOT_INSTALLED)
    return f"No {missing} is installed." if missing else ""


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []
