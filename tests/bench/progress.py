"""What is going on, for somebody who waits at a terminal."""

from __future__ import annotations

from typing import TextIO


class Progress:
    """Lines on ``stream`` where it is a terminal, and nothing at all where it is not."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream if stream.isatty() else None

    def say(self, what: str) -> None:
        """``what`` is what is going on now."""
        if self._stream is not None:
            print(what, file=self._stream, flush=True)
