"""The last gate before a verdict: what was required was carried out, or the run is not a pass.

It does not ask how the checks came about. So a check that is missing, for whatever reason, is found here.
"""

from __future__ import annotations

from . import faults
from .gpus import found
from .result import Check, Verdict

REQUIRED = ("driver", "count")
REQUIRED_OF_EACH_GPU = ("memory", "kernel")
HOLDS = (Verdict.PASS, Verdict.WARN)


def shortfall(checks: tuple[Check, ...], expected: int | None) -> tuple[Check, ...]:
    """Nothing, or one ``unknown`` check that names what was not carried out. Nobody who expects 0 GPUs requires any."""
    if expected == 0:
        return ()
    missing = [name for name in REQUIRED if not _holds(checks, name, "")]
    names = sorted({check.gpu for check in checks if check.name in REQUIRED_OF_EACH_GPU and check.gpu})
    covered = [gpu for gpu in names if all(_holds(checks, name, gpu) for name in REQUIRED_OF_EACH_GPU)]
    if len(covered) < max(expected or 0, len(names), 1):
        missing.append(f"the tests of {max(expected or 0, len(names), 1) - len(covered)} GPU")
    if not missing:
        return ()
    return (found("coverage", Verdict.UNKNOWN, faults.NOT_COVERED, detail="not carried out: " + ", ".join(missing)),)


def _holds(checks: tuple[Check, ...], name: str, gpu: str) -> bool:
    """Whether there is such a check, and each of that name passed or warned."""
    verdicts = [check.verdict for check in checks if (check.name, check.gpu) == (name, gpu)]
    return bool(verdicts) and all(verdict in HOLDS for verdict in verdicts)
