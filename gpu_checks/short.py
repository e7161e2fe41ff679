"""The ``short`` level: everything of ``quick``, and then the image's own frameworks on every GPU. Up to minutes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from . import frameworks, last, quick, report
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
    at = frameworks.notebook(environ, after_start=False)
    hidden = _differs(at.environ, environ)
    return joined(done, frameworks.check(at, situation(done, expected, hidden=hidden)))


def after_start(expected: int | None, environ: Mapping[str, str], place: str) -> None:
    """The frameworks' part is in the report file ``place``, beside the driver-level checks that were made at the spawn.

    Those are not made again: by now the GPU's memory may be the user's. Where the file has none, they are made now.
    A file that a longer run has meanwhile replaced is newer, and left as it is. Raises OSError, ValueError.
    """
    at = frameworks.notebook(environ, after_start=True)
    before = _stored(place)
    hidden = frameworks.VISIBLE_DEVICES in at.environ
    if before is None:
        before = quick.run(expected, environ)
        hidden = _differs(at.environ, environ)
    checked = frameworks.check(at, situation(before, expected, hidden=hidden))
    now = _stored(place) or before
    if now.level == quick.LEVEL:
        report.write(place, report.bounded_json(joined(now, checked)))


def _stored(place: str) -> Report | None:
    try:
        return last.last_report(place)
    except last.NoReport:
        return None


def _differs(environ: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether the frameworks see a CUDA_VISIBLE_DEVICES that the driver-level checks did not."""
    variable = frameworks.VISIBLE_DEVICES
    return variable in environ and environ[variable] != other.get(variable)


def situation(done: Report, expected: int | None, *, hidden: bool) -> Situation:
    """What a report says about the GPUs. ``hidden``: the frameworks run under another CUDA_VISIBLE_DEVICES.

    One process sees at most one MIG instance; those that CUDA does not show have no index. A report that was too long
    for its place has no list of GPUs.
    """
    seen = tuple(SeenGpu(gpu.index, gpu.uuid, gpu.compute_capability) for gpu in done.gpus if gpu.index is not None)
    visible = len(seen) if done.gpus else max(done.found or 0, 0)
    return Situation(expected, visible, seen, done.versions.cuda, hidden)


def joined(done: Report, checked: Checked) -> Report:
    """The report of ``quick`` with the frameworks' part in it; its own verdict stays under ``quick``."""
    verdict, summary = combined(done.verdict, done.summary, checked)
    return dataclasses.replace(
        done,
        level=LEVEL,
        verdict=verdict,
        summary=summary,
        checks=(*done.checks, *checked.checks),
        duration_s=round(done.duration_s + checked.section.duration_s, 3),
        finished_at=checked.section.finished_at,
        quick=Outcome(done.verdict.value, done.summary, done.finished_at),
        frameworks=checked.section,
    )


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
