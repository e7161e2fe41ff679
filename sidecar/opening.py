"""What keeps Persist from being opened, attempt after attempt, and when it is tried again."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from sidecar.clock import Clock
from sidecar.errors import LeaseHeld, PersistError, PersistForeign, PersistMissing, PersistUnwell
from sidecar.trouble import Trouble

_FIRST_LOOK_S, _LOOK_EVERY_S = 0.1, 3.0
"""Between two looks at the lease that somebody else holds: he may just be ending."""


@dataclass(frozen=True)
class Obstacle:
    """Nothing can be saved until the next attempt, and this is why."""

    persist_state: str
    """In the words of the status document."""
    since_s: float | None
    """On the monotonic clock."""
    detail: str
    retry_s: float
    """When the next attempt is due, on the monotonic clock."""


class Opening:
    """All attempts of one start. Touches nothing.

    A Persist that is full, read-only or failing is a state, and not the end of the pod. So is one that is not there,
    or is somebody else's, if it was usable once.
    """

    def __init__(self, clock: Clock, persist: str, *, was_usable: bool) -> None:
        self._clock = clock
        self._trouble = Trouble(clock, persist)
        self._may_be_lost = was_usable
        self._began_s = clock.monotonic()
        self._look_s = _FIRST_LOOK_S
        self.is_held = False
        """Whether all that was in the way of the last attempt is that somebody else has the lease."""

    def failed(self, error: PersistError) -> Obstacle:
        """The attempt that has just ended with ``error``. Raises ``error`` where it is no state that can pass."""
        may_be_lost, self._may_be_lost = self._may_be_lost, True
        wait_s, self._look_s = self._look_s, min(2 * self._look_s, _LOOK_EVERY_S)
        self.is_held = isinstance(error, LeaseHeld)
        match error:
            case LeaseHeld():
                self._trouble.end()
                return Obstacle("fenced", self._began_s, str(error), self._clock.monotonic() + wait_s)
            case PersistUnwell():
                return self._in_trouble(error.cause)
            case PersistForeign() if may_be_lost:
                return self._in_trouble(error)
            case PersistMissing() if may_be_lost:
                return self._in_trouble(OSError(errno.ENOENT, str(error)))
            case _:
                raise error

    def _in_trouble(self, cause: OSError | PersistForeign) -> Obstacle:
        self._trouble.begin(cause)
        trouble = self._trouble
        return Obstacle(trouble.state, trouble.since_s, "nothing can be saved", trouble.not_before_s)
