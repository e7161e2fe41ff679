"""What has changed on a GPU since the last report here. Counters of errors say little by themselves; their growth does.

The last report is the user's own file: what it says can warn, never fail, and is no evidence against a node.
"""

from __future__ import annotations

from . import faults
from .facts import Health
from .gpus import found
from .result import Check, Verdict

# Growth of these means data were lost, or nearly. Single corrected errors and replays happen on healthy boards.
SERIOUS = {
    "ecc_uncorrected": "uncorrectable errors",
    "ecc_uncorrected_lifetime": "uncorrectable errors in its life",
    "remapped_rows_uncorrected": "rows remapped after uncorrectable errors",
    "retired_pages": "retired pages",
}
USUAL = {
    "ecc_corrected_lifetime": "corrected errors in its life",
    "remapped_rows_corrected": "rows remapped after corrected errors",
    "pcie_replays": "PCIe replays",
}


def counter_check(gpu: str, before: Health, now: Health, *, before_at: str) -> Check:
    """Which counters of this GPU are higher than they were. One that is lower was reset with the driver."""
    serious, usual = _grown(SERIOUS, before, now), _grown(USUAL, before, now)
    detail = ", ".join(serious + usual)
    if detail:
        detail += f" since {before_at}"
    if serious:
        return found("counters", Verdict.WARN, faults.ERRORS_GREW, detail=detail, gpu=gpu)
    return Check("counters", Verdict.PASS, detail or "no higher than in the last report", gpu=gpu)


def _grown(names: dict[str, str], before: Health, now: Health) -> list[str]:
    grown = []
    for name, words in names.items():
        old, new = getattr(before, name), getattr(now, name)
        if old is not None and new is not None and new > old:
            grown.append(f"{words} {old} → {new}")
    return grown
