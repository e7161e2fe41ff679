"""Which earlier versions may go. Pure, and it never gives up the newest one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.backup.versions import Span

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400


@dataclass(frozen=True, slots=True)
class Rung:
    """Versions superseded at most ``age_s`` ago: one is kept for every ``spacing_s``; 0 keeps each."""

    age_s: int
    spacing_s: int


# A mistake is noticed within minutes, a wrong turn within a day, a lost result within months.
LADDER = (
    Rung(age_s=10 * MINUTE_S, spacing_s=0),
    Rung(age_s=HOUR_S, spacing_s=MINUTE_S),
    Rung(age_s=DAY_S, spacing_s=10 * MINUTE_S),
    Rung(age_s=30 * DAY_S, spacing_s=DAY_S),
    Rung(age_s=365 * DAY_S, spacing_s=7 * DAY_S),
)


def ladder(days: int) -> tuple[Rung, ...]:
    """``LADDER`` for versions that stay at most ``days``: it ends there, sooner or later."""
    kept = [rung for rung in LADDER if rung.age_s < days * DAY_S]
    last = LADDER[min(len(kept), len(LADDER) - 1)]
    return (*kept[: len(LADDER) - 1], Rung(age_s=days * DAY_S, spacing_s=last.spacing_s))


def pressed(rungs: Sequence[Rung]) -> Sequence[Rung]:
    """On a full Persist, for the one path that needs the room: of a minute no more than its last state."""
    return rungs[1:]


def expired(spans: Sequence[Span], now_ns: int, ladder: Sequence[Rung] = LADDER) -> list[int]:
    """The positions in ``spans`` of the versions that the ladder lets go.

    In every slot of a rung the version that was superseded last stays: it is the state at the end of the slot.
    The newest of all stays however old it is: of a deleted file it is the last good one.
    """
    newest_first = sorted(range(len(spans)), key=lambda position: spans[position].until_ns, reverse=True)
    gone, taken = [], set()
    for rank, position in enumerate(newest_first):
        until_s = spans[position].until_ns // 1_000_000_000
        age_s = now_ns // 1_000_000_000 - until_s
        rung = next((rung for rung in ladder if age_s <= rung.age_s), None)
        if rank == 0 or (rung is not None and rung.spacing_s == 0):
            continue
        slot = None if rung is None else (rung.spacing_s, until_s // rung.spacing_s)
        if slot is None or slot in taken:
            gone.append(position)
        else:
            taken.add(slot)
    return sorted(gone)
