"""Everything that changed is safe or accounted for, in a few rounds: for whoever waits for it, and for the end."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.clock import Clock
from sidecar.gate import Gate
from sidecar.home.finder import Finder
from sidecar.intake import Intake
from sidecar.saving.saver import Saver

_ROUNDS = 4
_RETRY_S = 0.5
"""Persist in trouble is tried again so often when somebody waits for it."""
_PAUSE_S = 0.1
"""The longest wait that nothing interrupts: the end is to be in time."""


class Flush:
    """``out_of_time`` is asked in every round, and ends it. All raise ``Fenced``. For the thread of the engine."""

    def __init__(self, clock: Clock, finder: Finder, *, saver: Saver, intake: Intake, gate: Gate) -> None:
        self._clock, self._finder, self._saver = clock, finder, saver
        self._intake, self._gate = intake, gate

    def all(self, *, catch_up_s: float, out_of_time: Callable[[], bool], accept_deletions: bool = False) -> bool:
        """Everything that changed before the call is safe or accounted for; False where time ran out.

        The scan is the truth: it is part of this, where it is no part of the end.
        """
        self._finder.catch_up(catch_up_s)
        self._gate.doubt_mirror()
        self._finder.begin_walk()
        self.walk(out_of_time)
        self.waiting(out_of_time)
        if not self._gate.is_still_ours():
            self.waiting(out_of_time)
        if accept_deletions and self._saver.braked:
            self._gate.accept_deletions()
        return self._finder.scanned and not out_of_time()

    def walk(self, out_of_time: Callable[[], bool]) -> None:
        """The walk that has begun has ended, unless time runs out; what differs waits, or is saved already."""
        while self._finder.is_walking and not out_of_time():
            self._finder.walk()
            self._intake.plan_backlog()
            if self._saver.can_step:
                if not self._gate.step():
                    if self._gate.trouble.is_full:
                        self._finder.finish_walk()
                        return
                    self._wait_for_persist(out_of_time)
            elif not self._intake.has_room:
                self._saver.wait(_PAUSE_S)

    def waiting(self, out_of_time: Callable[[], bool]) -> None:
        """What was found so far is safe or accounted for, settled or not.

        Rounds, because a copy can meet a change; few, because the end must not chase its own tail. What failed before
        is tried once more, and what then fails has failed.
        """
        saver = self._saver
        again = [*saver.books.retry.take_all(), *saver.pace.take_all(), *self._finder.mapped()]
        saver.pace.is_off = True
        try:
            for _ in range(_ROUNDS):
                self._intake.take_changes()
                self._intake.plan_waiting([*saver.books.busy, *again])
                again = []
                if not self._planned(out_of_time) or not self._intake.has_waiting:
                    return
        finally:
            saver.pace.is_off = False

    def _planned(self, out_of_time: Callable[[], bool]) -> bool:
        """Everything planned is safe or accounted for; False where time ran out, or there is no room for more."""
        while not out_of_time():
            if not self._gate.step():
                if self._gate.trouble.is_full:
                    return False  # waiting makes no room; a full Persist is no reason to use up the grace
                self._wait_for_persist(out_of_time)
            elif not len(self._saver):
                self._finder.take_changes()
                return True
            elif not self._saver.can_step:
                self._saver.wait(_PAUSE_S)
        return False

    def _wait_for_persist(self, out_of_time: Callable[[], bool]) -> None:
        until_s = self._clock.monotonic() + min(_RETRY_S, self._gate.trouble.delay_s)
        while self._clock.monotonic() < until_s and not out_of_time():
            self._clock.sleep(_PAUSE_S)
