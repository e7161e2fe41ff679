"""The line between the supervisor and its engine: words in both directions, one message a line.

Imports little: the supervisor, which is there for as long as the pod, stays small.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from sidecar.signals import Signals

_BLOCK_BYTES = 65536


class Line:
    """One end. ``send`` is safe from any thread; ``receive`` is for one."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader, self._writer = reader, writer
        self._rest = b""
        self._sending = threading.Lock()
        self.is_cut = False
        """Whether the other side is gone."""

    def send(self, *words: object) -> None:
        """The other side gets ``words``, unless it is gone, or has read nothing for thousands of messages."""
        message = " ".join(map(str, words)).encode("ascii") + b"\n"
        with self._sending, suppress(BrokenPipeError, BlockingIOError):
            os.write(self._writer, message)

    def receive(self) -> list[list[str]]:
        """The messages that have come in, as words; waits for nothing but the first byte."""
        try:
            block = os.read(self.reader, _BLOCK_BYTES)
        except BlockingIOError:
            return []
        self.is_cut = not block
        *messages, self._rest = (self._rest + block).split(b"\n")
        return [message.decode("ascii").split(" ") for message in messages]

    def close(self) -> None:
        os.close(self.reader)
        os.close(self._writer)


class Supervised:
    """What an engine gets from its supervisor."""

    def __init__(self, signals: Signals, line: Line, *, is_first: bool) -> None:
        self.signals, self.line = signals, line
        self.is_first = is_first
        """Whether nothing ran before: what makes a start fail is for whoever started us, and later it is a state."""


def line_pair() -> tuple[Line, Line]:
    """The two ends of a new line. A message to one that does not read is dropped in the end, and nobody waits."""
    first, second = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK), os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    return Line(first[0], second[1]), Line(second[0], first[1])


def encoded(path: str | bytes) -> str:
    """``path`` as one word."""
    return os.fsencode(path).hex() or "-"


def decoded(word: str) -> bytes:
    """The path that ``encoded`` made ``word`` of. Raises ``ValueError``."""
    return b"" if word == "-" else bytes.fromhex(word)
