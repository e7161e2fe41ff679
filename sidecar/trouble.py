"""What Persist answers when it cannot be written to, and when it is tried again."""

from __future__ import annotations

import errno
import logging

from sidecar.backup.persist import explain
from sidecar.clock import Clock
from sidecar.copy import FULL
from sidecar.errors import PersistForeign
from sidecar.saving.retry import delay_s

log = logging.getLogger(__name__)

_STATES = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EROFS: "read-only",
    errno.ESTALE: "stale",
}


def state_of_errno(number: int) -> str:
    """The state of a mount that says ``number``, in the words of the status document."""
    return _STATES.get(number, "missing")


class Trouble:
    """With the directory ``persist``: false while there is none."""

    def __init__(self, clock: Clock, persist: str) -> None:
        self._clock, self._persist = clock, persist
        self._error: OSError | PersistForeign | None = None
        self._count = 0
        self._since_s = 0.0
        self.not_before_s = 0.0
        """When Persist may be tried again, on the monotonic clock."""

    def __bool__(self) -> bool:
        return self._error is not None

    @property
    def is_full(self) -> bool:
        """Whether a smaller file might still fit, and waiting makes no room."""
        return isinstance(self._error, OSError) and self._error.errno in FULL

    @property
    def delay_s(self) -> float:
        """How long to wait before the next attempt: ever longer."""
        return delay_s(self._count)

    @property
    def state(self) -> str:
        """Of Persist, in the words of the status document."""
        return "ok" if self._error is None else _state_of(self._error)

    @property
    def since_s(self) -> float | None:
        """Since when Persist has not worked, on the monotonic clock."""
        return None if self._error is None else self._since_s

    @property
    def lasted_s(self) -> float:
        """For how long Persist has not worked."""
        return 0.0 if self._error is None else self._clock.monotonic() - self._since_s

    def begin(self, error: OSError | PersistForeign) -> None:
        """Persist said ``error``."""
        reason = self._reason(error)
        if self._error is None or self._reason(self._error) != reason:
            log.error("%s; what changed is kept in mind and tried again", reason)
        if self._error is None:
            self._since_s = self._clock.monotonic()
        self._error = error
        self._count += 1
        self.not_before_s = self._clock.monotonic() + self.delay_s

    def _reason(self, error: OSError | PersistForeign) -> str:
        return str(error) if isinstance(error, PersistForeign) else explain(self._persist, error)

    def end(self) -> None:
        """Persist works."""
        if self._error is not None:
            log.info("Persist works again")
        self._error, self._count = None, 0


def _state_of(error: OSError | PersistForeign) -> str:
    return "foreign" if isinstance(error, PersistForeign) else state_of_errno(error.errno or 0)
