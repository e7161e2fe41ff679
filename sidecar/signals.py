"""What the kubelet, the hub or a terminal tells the process. Imports nothing of ours: it is in place first."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

MARGIN_S = 1.0
"""The process is gone this long before the grace ends: the kubelet's own clock started a little earlier."""


_FLOOR_S = 1.0
"""A notebook that ignores its SIGTERM uses up the grace; but a kubelet gives every container two seconds (FACTS 1)."""
_CUT_S = 1.0
"""What is under way when the drain is cut short has so long to be written down."""


class Signals:
    """SIGTERM (and SIGINT) means end, a second one end now; SIGUSR1 is the notice that an end may follow.

    Times are on the monotonic clock, in seconds; None until it happened.
    """

    def __init__(self) -> None:
        self.noticed_at: float | None = None
        self.ended_at: float | None = None
        self.cut_at: float | None = None
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def install(self) -> None:
        """From here on the signals are recorded instead of killing the process."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_end)
        signal.signal(signal.SIGUSR1, self._on_notice)
        # The interpreter's own handler wakes whoever waits: ours below run only after that wait, and a signal that
        # comes just before it begins would go unheard until it is over.
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def adopt(self) -> None:
        """For the child of a fork: what was told before holds, and it waits on wakes of its own.

        A terminal, or whoever signals the whole group, tells us what our parent tells us too: that is no second time.
        """
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_end_of_group)
        for number in (signal.SIGCHLD, signal.SIGCONT):
            signal.signal(number, signal.SIG_DFL)

    def _on_end_of_group(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  the handler's signature
        self.told(time.monotonic(), self.noticed_at, self.cut_at)

    def told(self, ended_at: float | None, noticed_at: float | None, cut_at: float | None) -> None:
        """What somebody else heard. The first end counts, and the last notice."""
        if self.ended_at is None:
            self.ended_at = ended_at
            self.noticed_at = noticed_at if self.noticed_at is None else max(self.noticed_at, noticed_at or 0.0)
        self.cut_at = cut_at if self.cut_at is None else self.cut_at
        self.wake()

    def deadline_s(self, grace_s: float) -> float:
        """When the process must be gone, with ``grace_s`` from the first word of the end; infinite before any.

        A notice older than the grace was void: no end followed in time. After the end there is at least the second that
        every container has.
        """
        if self.ended_at is None:
            return float("inf")
        start_s = self.ended_at
        if self.noticed_at is not None and self.ended_at - grace_s < self.noticed_at < self.ended_at:
            start_s = self.noticed_at
        own_s = max(grace_s - MARGIN_S, grace_s / 2)
        deadline_s = max(start_s + own_s, self.ended_at + min(own_s, _FLOOR_S))
        return deadline_s if self.cut_at is None else min(deadline_s, self.cut_at + _CUT_S)

    def _on_end(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  the handler's signature
        if self.ended_at is None:
            self.ended_at = time.monotonic()
        else:
            self.cut_at = time.monotonic()
        self.wake()

    def _on_notice(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.ended_at is None:  # after the end it tells nothing new
            self.noticed_at = time.monotonic()
        self.wake()

    @property
    def cut_short(self) -> bool:
        """Whether nothing more is to be saved."""
        return self.cut_at is not None

    @property
    def ended(self) -> bool:
        """Whether the process was told to end."""
        return self.ended_at is not None

    def wake(self) -> None:
        """``wait_fd`` becomes readable. Safe in signal handlers and from any thread."""
        try:
            os.write(self._writer, b"!")
        except BlockingIOError:
            return  # full of wakes: it is readable

    @property
    def wait_fd(self) -> int:
        return self._reader

    def clear_wakes(self) -> None:
        """``wait_fd`` is readable again only after the next wake."""
        try:
            while os.read(self._reader, 4096):
                pass
        except BlockingIOError:
            return
