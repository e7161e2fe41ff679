"""A second process that stages what comes in a mass, while this one looks, puts in place and writes the journal.

The interpreter runs one thread at a time, and a first backup is 120 µs of it for every file. With a second processor a
batch is staged while the one before is committed, and what is fresh need not wait for either. The porter is started
when there is a mass, and is gone some seconds after it: an idle sidecar is one process. Whatever happens to it, the
files of its batch are still owed.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass

from sidecar.clock import Clock
from sidecar.copy import Staged
from sidecar.entry import Entry
from sidecar.fsops import DestinationError
from sidecar.outcome import ChangedWhileReading, Failed, Skipped, Vanished
from sidecar.saving.jobs import Wanted
from sidecar.saving.porter_process import Reply, Task, read_frame, write_frame

log = logging.getLogger(__name__)

WORTHWHILE = 512
"""Fewer files than this are staged sooner than a process starts."""

_IDLE_S = 1.0

Copied = Staged | Vanished | ChangedWhileReading | Skipped | Failed
File = tuple[bytes, Wanted]


class PorterGone(Exception):
    """The porter ended, or said something that means nothing; its batch was not staged."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """One batch that the porter has ended with."""

    files: Sequence[File]
    results: list[Copied | DestinationError]


class Porter:
    """At most one batch is under way. ``wake`` is called, on another thread, when it has arrived. For one thread."""

    def __init__(
        self, clock: Clock, home_fd: int, staging_fd: int, *, max_file_bytes: int, wake: Callable[[], None]
    ) -> None:
        self._clock, self._wake = clock, wake
        self._descriptors = (home_fd, staging_fd)
        self._max_file_bytes = max_file_bytes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="porter")
        self._process: subprocess.Popen[bytes] | None = None
        self._running: tuple[Sequence[File], list[bytes], Future[list[Reply]]] | None = None
        self._entries: dict[bytes, Entry] = {}
        self._idle_since_s = 0.0
        self.is_usable = len(os.sched_getaffinity(0)) > 1
        """With one processor there is nothing to gain; nor after it has failed once."""

    def __len__(self) -> int:
        return 0 if self._running is None else len(self._running[0])

    @property
    def pid(self) -> int | None:
        """The second process, while there is one."""
        return None if self._process is None else self._process.pid

    @property
    def is_free(self) -> bool:
        """Whether a batch can be begun."""
        return self.is_usable and self._running is None

    @property
    def has_arrived(self) -> bool:
        """Whether ``take`` has something."""
        return self._running is not None and self._running[2].done()

    def files(self) -> Sequence[File]:
        """What is under way."""
        return () if self._running is None else self._running[0]

    def carries(self, path: bytes, entry: Entry) -> bool:
        """Whether ``path`` is under way, and has not changed since."""
        under_way = self._entries.get(path)
        return under_way is not None and under_way.same_as(entry)

    def begin(self, files: Sequence[File], names: list[bytes]) -> None:
        """``files`` are being staged under ``names``, not yet durable. Raises ``OSError``: then they are not."""
        if self._process is None:
            self._process = self._start()
        tasks: list[Task] = [
            (path, wanted.entry.pack(), name, wanted.may_be_core, wanted.mapped)
            for (path, wanted), name in zip(files, names, strict=True)
        ]
        future = self._thread.submit(self._exchange, self._process, pickle.dumps(tasks))
        self._running = (files, names, future)
        self._entries = {path: wanted.entry for path, wanted in files}
        future.add_done_callback(lambda _: self._wake())

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "sidecar.saving.porter_process",
                *map(str, (*self._descriptors, self._max_file_bytes)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=self._descriptors,
            start_new_session=True,  # what ends us by a signal must not end it in the middle of a batch
        )

    @staticmethod
    def _exchange(process: subprocess.Popen[bytes], request: bytes) -> list[Reply]:
        assert process.stdin is not None
        assert process.stdout is not None
        write_frame(process.stdin.fileno(), request)
        answer = read_frame(process.stdout.fileno())
        if not answer:
            raise EOFError("it ended")
        replies: list[Reply] = pickle.loads(answer)  # noqa: S301  from our own child
        return replies

    def take(self) -> Delivered:
        """The batch that has arrived. Raises ``PorterGone``; from then on ``is_usable`` is false."""
        assert self._running is not None
        files, names, future = self._running
        self._running, self._entries = None, {}
        self._idle_since_s = self._clock.monotonic()
        try:
            replies = future.result()
            results = [_result(*each) for each in zip(files, names, replies, strict=True)]
        except (OSError, EOFError, ValueError, pickle.PickleError) as error:
            self.is_usable = False
            self.stop()
            raise PorterGone(str(error)) from error
        return Delivered(files, results)

    def wait(self, seconds: float) -> None:
        """Waits until the batch has arrived, at most that long."""
        if self._running is not None:
            wait([self._running[2]], timeout=seconds)

    def rest(self) -> None:
        """Ends a process that has had nothing to do for a while."""
        due_s = self.next_due_s()
        if due_s is not None and self._clock.monotonic() >= due_s:
            self.stop()

    def next_due_s(self) -> float | None:
        """When ``rest`` will have something to do."""
        return None if self._process is None or self._running is not None else self._idle_since_s + _IDLE_S

    def drop(self) -> Sequence[File]:
        """What is under way was never begun, and the next batch is begun by another process."""
        files = self.files()
        self.stop()
        self._running, self._entries = None, {}
        return files

    def stop(self) -> None:
        """The process is gone, with what it is doing."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        with suppress(subprocess.TimeoutExpired):  # nothing ends one that hangs in the kernel
            process.wait(1.0)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def close(self) -> None:
        """The process and the thread end."""
        self.stop()
        self._thread.shutdown(wait=False, cancel_futures=True)


def _result(file: File, name: bytes, reply: Reply) -> Copied | DestinationError:
    path = file[0]
    if isinstance(reply, bytes):
        return Staged(path, Entry.unpack(reply), name, -1)
    if reply is None:
        return ChangedWhileReading(path)
    if isinstance(reply, int):
        return DestinationError(reply, os.strerror(reply))
    kind, reason = reply
    if kind == "vanished":
        return Vanished(path)
    return Skipped(path, reason) if kind == "skipped" else Failed(path, reason)
