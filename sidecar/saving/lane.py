"""Where large files and databases are copied: beside the batches of small ones, a few at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass

from sidecar.clock import Clock
from sidecar.copy import Cancelled, Copier, Source, Staged
from sidecar.entry import Entry, name_of
from sidecar.fsops import DestinationError, FileSystem
from sidecar.outcome import ChangedWhileReading, Failed, Skipped, Vanished
from sidecar.saving.jobs import Wanted
from sidecar.sqlite import copy as database_copy
from sidecar.sqlite.copy import DatabaseCopier
from sidecar.sqlite.files import ABSENT

WIDTH = 2
"""One very large file must not keep all others from being saved; more would only share the same bandwidth."""

Copied = Staged | Vanished | ChangedWhileReading | Skipped | Failed


@dataclass(frozen=True, slots=True)
class Arrived:
    """One large file whose copy has ended: durable in the staging directory, or not."""

    path: bytes
    wanted: Wanted
    result: Copied | DestinationError | Cancelled
    replaced: Entry | None
    """What the mirror had there when the copy began."""
    began_s: float
    ended_s: float


class Lane:
    """Copies with ``copier``; ``wake`` is called, on another thread, when a copy has ended. For one thread."""

    def __init__(
        self, fs: FileSystem, clock: Clock, copier: Copier, databases: DatabaseCopier, wake: Callable[[], None]
    ) -> None:
        self._fs, self._clock, self._copier, self._databases, self._wake = fs, clock, copier, databases, wake
        self._pool = ThreadPoolExecutor(WIDTH, thread_name_prefix="large")
        self._running: dict[bytes, tuple[Wanted, Future[Arrived]]] = {}

    @property
    def is_free(self) -> bool:
        """Whether another file can be begun."""
        return len(self._running) < WIDTH

    def __contains__(self, path: object) -> bool:
        return path in self._running

    def __len__(self) -> int:
        return len(self._running)

    def paths(self) -> list[bytes]:
        """What is being copied."""
        return list(self._running)

    def carries(self, path: bytes, entry: Entry) -> bool:
        """Whether ``path`` is being copied, and has not changed since."""
        running = self._running.get(path)
        return running is not None and running[0].entry.same_as(entry)

    @property
    def total_bytes(self) -> int:
        """The size of what is being copied."""
        return sum(wanted.entry.size for wanted, _ in self._running.values())

    def begin(self, path: bytes, wanted: Wanted, directory_fd: int, name: bytes, *, replaced: Entry | None) -> None:
        """``path``, whose directory is open as ``directory_fd``, is being copied under the staging ``name``."""
        source = Source(path, self._fs.duplicate(directory_fd), wanted.entry, wanted.may_be_core, wanted.mapped)
        future = self._pool.submit(self._copy, source, wanted, name, replaced)
        self._running[path] = (wanted, future)
        future.add_done_callback(lambda _: self._wake())

    def _copy(self, source: Source, wanted: Wanted, name: bytes, replaced: Entry | None) -> Arrived:
        began_s = self._clock.monotonic()
        result: Copied | DestinationError | Cancelled
        try:
            result = self._stage(source, wanted, name)
            if isinstance(result, Staged):
                result = self._copier.harden(result)
        except (DestinationError, Cancelled) as error:
            result = error
        finally:
            with suppress(OSError):  # nothing was written through it, and it is closed all the same: close(2)
                self._fs.close(source.directory_fd)
        return Arrived(source.path, wanted, result, replaced, began_s, self._clock.monotonic())

    @property
    def has_arrived(self) -> bool:
        """Whether ``take_arrived`` has something."""
        return any(future.done() for _, future in self._running.values())

    def _stage(self, source: Source, wanted: Wanted, name: bytes) -> Copied:
        result = self._stage_database(source, name) if wanted.is_database else None
        if result is None:
            # Once: to copy gigabytes three times because somebody writes to them helps nobody.
            result = self._copier.stage(source, name, harden_later=True, attempts=1)
        if wanted.is_database and isinstance(result, ChangedWhileReading):
            return self._stage_database(source, name, changing=True) or result
        return result

    def _stage_database(self, source: Source, name: bytes, *, changing: bool = False) -> Copied | None:
        """None where it is to be copied like any other file."""
        try:
            result = self._databases.stage(source.directory_fd, name_of(source.path), name, changing=changing)
        except DestinationError:
            raise
        except OSError as error:
            return None if error.errno in ABSENT else Failed(source.path, f"cannot be read: {error.strerror}")
        match result:
            case database_copy.Copied():
                return Staged(source.path, result.entry, name, result.fd)
            case database_copy.Busy():
                return ChangedWhileReading(source.path)
            case database_copy.TooLarge():
                return Skipped(source.path, result.reason)
            case database_copy.Uncopied():
                return Failed(source.path, result.reason)
            case _:
                return None

    def take_arrived(self) -> list[Arrived]:
        """What has ended since the last time."""
        ended = [path for path, (_, future) in self._running.items() if future.done()]
        return [self._running.pop(path)[1].result() for path in ended]

    def wait(self, seconds: float) -> None:
        """Waits until a copy has ended, at most that long."""
        wait([future for _, future in self._running.values()], timeout=seconds, return_when=FIRST_COMPLETED)

    def close(self) -> None:
        """The threads end with what they are doing."""
        self._pool.shutdown(wait=False, cancel_futures=True)
