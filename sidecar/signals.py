"""What the kubelet, the hub or a terminal tells the process. Imports nothing of ours: it is in place first."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType


class Signals:
    """SIGTERM (and SIGINT) means end, a second one end now; SIGUSR1 is the notice that an end may follow.

    Times are on the monotonic clock, in seconds; None until it happened.
    """

    def __init__(self) -> None:
        self.noticed_at: float | None = None
        self.ended_at: float | None = None
        self.cut_short = False
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def install(self) -> None:
        """From here on the signals are recorded instead of killing the process."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_end)
        signal.signal(signal.SIGUSR1, self._on_notice)
        # The interpreter's own handler wakes whoever waits: ours below run only after that wait, and a signal that
        # comes just before it begins would go unheard until it is over.
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def _on_end(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  the handler's signature
        if self.ended_at is None:
            self.ended_at = time.monotonic()
        else:
            self.cut_short = True
        self.wake()

    def _on_notice(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.noticed_at = time.monotonic()
        self.wake()

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
