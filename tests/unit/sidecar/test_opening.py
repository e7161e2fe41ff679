"""What keeps Persist from being opened is a state where it can pass, and else an error for whoever started us."""

from __future__ import annotations

import errno

import pytest

from sidecar.errors import (
    Fenced,
    LeaseHeld,
    PersistError,
    PersistForeign,
    PersistMissing,
    PersistUnwell,
    WriterActive,
)
from sidecar.opening import Opening
from tests.unit.sidecar.stores import SetClock


def _unwell(number: int) -> PersistUnwell:
    return PersistUnwell("Persist does not work", OSError(number, "it says why"))


_STATES: list[tuple[PersistError, str]] = [
    (_unwell(errno.ENOSPC), "full"),
    (_unwell(errno.EROFS), "read-only"),
    (_unwell(errno.ESTALE), "stale"),
    (_unwell(errno.EIO), "missing"),
    (LeaseHeld("held by somebody"), "fenced"),
]
_STATES_OF_ONE_THAT_WAS_USABLE: list[tuple[PersistError, str]] = [
    (PersistMissing("not mounted"), "missing"),
    (PersistForeign("of somebody else"), "foreign"),
]


@pytest.mark.parametrize("was_usable", [False, True])
@pytest.mark.parametrize(("error", "state"), _STATES)
def test_what_can_pass_is_a_state_from_the_first_attempt(error: PersistError, state: str, *, was_usable: bool) -> None:
    assert Opening(SetClock(), "/persist", was_usable=was_usable).failed(error).persist_state == state


@pytest.mark.parametrize(("error", "state"), _STATES_OF_ONE_THAT_WAS_USABLE)
def test_one_that_is_not_ours_or_not_there_ends_a_first_start_and_no_later_one(error: PersistError, state: str) -> None:
    with pytest.raises(type(error)):
        Opening(SetClock(), "/persist", was_usable=False).failed(error)
    assert Opening(SetClock(), "/persist", was_usable=True).failed(error).persist_state == state


@pytest.mark.parametrize(("error", "state"), _STATES_OF_ONE_THAT_WAS_USABLE)
def test_what_goes_while_a_first_start_waits_is_a_state(error: PersistError, state: str) -> None:
    opening = Opening(SetClock(), "/persist", was_usable=False)
    opening.failed(LeaseHeld("held by somebody"))
    assert opening.failed(error).persist_state == state


@pytest.mark.parametrize("error", [PersistError("no"), WriterActive("no"), Fenced("no")])
def test_what_cannot_pass_is_raised_at_every_attempt(error: PersistError) -> None:
    opening = Opening(SetClock(), "/persist", was_usable=True)
    for _ in range(2):
        with pytest.raises(type(error)):
            opening.failed(error)


def test_it_is_tried_again_ever_more_rarely_and_a_held_lease_is_soon_looked_at() -> None:
    clock = SetClock()
    held, unwell = Opening(clock, "/persist", was_usable=True), Opening(clock, "/persist", was_usable=True)
    assert [held.failed(LeaseHeld("held")).retry_s for _ in range(7)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0]
    assert [unwell.failed(_unwell(errno.EIO)).retry_s for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_state_lasts_since_it_began_and_only_a_held_lease_is_asked_for_by_itself() -> None:
    clock = SetClock()
    opening = Opening(clock, "/persist", was_usable=True)
    seen = []
    for error in (LeaseHeld("held"), _unwell(errno.EIO), _unwell(errno.ENOSPC), LeaseHeld("held"), _unwell(errno.EIO)):
        clock.passed_s += 10
        obstacle = opening.failed(error)
        seen.append((obstacle.persist_state, obstacle.since_s, opening.is_held))
    assert seen == [
        ("fenced", 0, True),
        ("missing", 20, False),
        ("full", 20, False),
        ("fenced", 0, True),
        ("missing", 50, False),
    ]
