"""When a lease is beaten: often while there is work, so that a dead holder is followed soon, and seldom when idle."""

from __future__ import annotations

from sidecar.backup.lease_record import IDLE_S, WORKING_S


class Rhythm:
    """The time of the next beat, in seconds of the monotonic clock."""

    def __init__(self, taken_s: float) -> None:
        """The lease was taken at ``taken_s``, and states the interval of one who works."""
        self._last_s = taken_s
        self._stated_s = WORKING_S

    def due_s(self, working_since_s: float | None) -> float:
        """When to beat next; ``working_since_s`` is None while there is no work.

        Never later than the lease states. A burst that is over sooner than ``WORKING_S`` costs no beat of its own.
        """
        promised_s = self._last_s + self._stated_s
        if working_since_s is None:
            return promised_s
        return min(promised_s, max(self._last_s, working_since_s) + WORKING_S)

    def interval_s(self, working_since_s: float | None) -> float:
        """What a beat states now."""
        return IDLE_S if working_since_s is None else WORKING_S

    def beaten(self, now_s: float, stated_s: float) -> None:
        """A beat that stated ``stated_s`` is done, and was begun at ``now_s``."""
        self._last_s, self._stated_s = now_s, stated_s
