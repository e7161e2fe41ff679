"""One request to SQLite, in a process that is started for it and gone afterwards.

What SQLite reads was written by somebody else: a crash, a hang or garbage is an answer like any other.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from sidecar.entry import visible

_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "helper.py")
_LOOK_MS = 50
_LONGEST_ANSWER = 1024
_END_S = 1.0


class Word(StrEnum):
    """What came of a request."""

    DONE = "done"
    BUSY = "busy"
    """Its writers were in the way, or it changed: worth another attempt."""
    DAMAGED = "damaged"
    """SQLite says that it is no database, or a broken one."""
    FULL = "full"
    """The staged file could not take more."""
    UNWRITABLE = "unwritable"
    """The staged file could not be written, for a reason that SQLite does not tell."""
    FAILED = "failed"
    CANCELLED = "cancelled"
    """The caller asked to stop."""


class Answer(NamedTuple):
    """``reason`` is printable, and a sentence's end for people."""

    word: Word
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """``backup`` of a live database, or ``recover`` of a staged one: what ``helper`` does.

    Names are single components in the directory before them; descriptors must stay open until the answer.
    """

    verb: str
    max_bytes: int
    deadline_s: int
    staging_fd: int
    target_fd: int
    target_name: bytes
    directory_fd: int
    source_fd: int
    source_name: bytes

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What the helper inherits."""
        return self.staging_fd, self.target_fd, self.directory_fd, self.source_fd

    @property
    def line(self) -> bytes:
        """What the helper reads."""
        numbers = map(str, (self.max_bytes, self.deadline_s, *self.descriptors))
        return " ".join((self.verb, *numbers, self.target_name.hex(), self.source_name.hex())).encode() + b"\n"


def ask(request: Request, cancelled: Callable[[], bool], *, program: str = _PROGRAM) -> Answer:
    """What came of ``request``, within its deadline and a second; no process of it is left but one in D state."""
    if cancelled():
        return Answer(Word.CANCELLED)
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=request.descriptors,
            process_group=0,
        )
    except OSError as error:
        return Answer(Word.FAILED, f"no process could be started for SQLite: {error.strerror}")
    try:
        return _hear(process, request, cancelled)
    finally:
        _end(process)


def _hear(process: subprocess.Popen[bytes], request: Request, cancelled: Callable[[], bool]) -> Answer:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):  # it ended already: what it said, or did not say, is the answer
        process.stdin.write(request.line)
        process.stdin.close()
    give_up_at = time.monotonic() + request.deadline_s
    fd = process.stdout.fileno()
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    said = b""
    while len(said) < _LONGEST_ANSWER:
        if poll.poll(_LOOK_MS):
            block = os.read(fd, _LONGEST_ANSWER)
            if not block:
                break
            said += block
        elif cancelled():
            return Answer(Word.CANCELLED)
        elif time.monotonic() > give_up_at:
            return Answer(Word.FAILED, f"SQLite needed more than {request.deadline_s} s for it")
    return _understood(said) or Answer(Word.FAILED, f"SQLite's process {_how_it_ended(process)}")


def _understood(said: bytes) -> Answer | None:
    """The answer in ``said``; None for anything but one whole line that the helper would write."""
    line, end, rest = said.decode("ascii", "replace").partition("\n")
    word, _, reason = line.partition(" ")
    if not end or rest or word not in Word._value2member_map_ or word == Word.CANCELLED:
        return None
    return Answer(Word(word), visible(reason))


def _how_it_ended(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(_END_S)
    except subprocess.TimeoutExpired:
        return "said nothing that makes sense"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}, and no answer"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Nothing of ``process`` is left. One that hangs in the kernel is reaped by ``subprocess`` at a later start."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with suppress(BrokenPipeError):
            pipe.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_S)
