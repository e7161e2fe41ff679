"""A SQLite database and its log become one whole file in the staging directory, or a value that says why not.

Two ways. Where nothing touches the two files while they are read, they are copied as they are, and SQLite makes one of
the copies, as it does after a crash: no lock is taken, and nothing in the home is opened by SQLite. A database that is
written all the time is read by SQLite's backup call, which takes part in its locks.
"""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from sidecar.clock import Clock
from sidecar.copy import Cancelled, untouched
from sidecar.entry import Entry
from sidecar.fsops import CREATE_FLAGS, READ_FLAGS, DestinationError, FileSystem, copy_content, destination, write_all
from sidecar.sqlite.files import ABSENT, COMPANION_SUFFIXES, is_header, logs_of, with_logs
from sidecar.sqlite.process import Answer, Request, Word, ask

_PATIENCE_S = 10
_SLOWEST_BYTES_S = 20e6
"""SQLite has so long, and as much longer as a slow Persist needs for the bytes."""

_MAGIC_BYTES = 16
_PROBE_BYTES = 4096
_LARGEST_PAGE_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Copied:
    """The copy lies whole under its name in the staging directory, with the mode and the time of ``entry``."""

    entry: Entry
    """The database as it was before it was read, its logs included: a later change makes another one."""
    fd: int
    """The copy, open for writing; the caller syncs and closes it."""


@dataclass(frozen=True, slots=True)
class Ordinary:
    """Copying it like any other file is right: no log stands beside it, or SQLite has no use for it.

    In the latter case what stands beside it is copied like any other file as well: ``on_unreadable`` was told.
    """


@dataclass(frozen=True, slots=True)
class Busy:
    """It changed, or was locked, under this attempt: the next one may succeed."""

    reason: str


@dataclass(frozen=True, slots=True)
class TooLarge:
    """It, or one of its logs, is larger than the cap."""

    reason: str


@dataclass(frozen=True, slots=True)
class Uncopied:
    """SQLite could not make a whole copy of it."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Opened:
    """A file of the home as it was when it was opened."""

    fd: int
    status: os.stat_result


@dataclass(frozen=True, slots=True)
class _Database:
    directory_fd: int
    name: bytes
    main: _Opened
    logs: dict[bytes, os.stat_result]

    @property
    def entry(self) -> Entry:
        entry = Entry.of(self.main.status)
        assert entry is not None  # it is a regular file
        return with_logs(entry, filter(None, map(Entry.of, self.logs.values())))

    @property
    def deadline_s(self) -> int:
        size = self.main.status.st_size + sum(log.st_size for log in self.logs.values())
        return _PATIENCE_S + math.ceil(size / _SLOWEST_BYTES_S)


class _Target:
    """An empty staged file. When its block ends it is gone, and what SQLite put beside it, unless it was ``kept``."""

    def __init__(self, fs: FileSystem, staging_fd: int, name: bytes) -> None:
        self._fs, self.staging_fd, self.name = fs, staging_fd, name
        self.kept = False
        with destination():
            self.fd = fs.open(name, CREATE_FLAGS, at=staging_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.kept:
            with suppress(OSError):  # nothing that was written to it will be used
                self._fs.close(self.fd)
            self._unlink(self.name)
        for suffix in COMPANION_SUFFIXES:
            self._unlink(self.name + suffix)

    def _unlink(self, name: bytes) -> None:
        with suppress(OSError):  # what cannot be removed now is swept at the next start; it is in no one's way
            self._fs.unlink(name, at=self.staging_fd)


@dataclass(frozen=True)
class DatabaseCopier:
    """Copies into the directory ``staging_fd``. Safe to use from several threads, each with names of its own."""

    fs: FileSystem
    clock: Clock
    staging_fd: int
    max_file_bytes: int
    cancelled: Callable[[], bool]
    on_unreadable: Callable[[Entry], None] = lambda _: None
    """Hears, on the thread of ``stage``, of a file with a log that SQLite has no use for, as it was then."""
    ask: Callable[[Request, Callable[[], bool]], Answer] = ask

    def stage(
        self, directory_fd: int, name: bytes, staged_name: bytes, *, changing: bool = False
    ) -> Copied | Ordinary | Busy | TooLarge | Uncopied:
        """The database ``name`` of the directory is staged as ``staged_name``, or nothing is.

        ``changing`` says that copying it like any other file failed because it changed: then it is no ``Ordinary``
        for want of a log, which in rollback mode comes and goes with each transaction. Raises ``OSError`` where it
        cannot be opened or read, ``DestinationError`` where Persist is at fault, and ``Cancelled``.
        """
        logs = logs_of(self.fs, directory_fd, name)
        if not logs and not changing:
            return Ordinary()
        fd = self.fs.open(name, READ_FLAGS, at=directory_fd)
        try:
            status = self.fs.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or not is_header(self.fs.read(fd, _MAGIC_BYTES)):
                return self._unreadable(status)
            if max(status.st_size, *(log.st_size for log in logs.values()), 0) > self.max_file_bytes:
                return self._too_large()
            return self._stage(_Database(directory_fd, name, _Opened(fd, status), logs), staged_name)
        finally:
            self._let_go(fd)

    def _unreadable(self, status: os.stat_result) -> Ordinary:
        entry = Entry.of(status)
        if entry is not None:
            self.on_unreadable(entry)
        return Ordinary()

    def _stage(self, database: _Database, staged_name: bytes) -> Copied | Ordinary | Busy | TooLarge | Uncopied:
        if database.logs:
            at_rest = self._stage_at_rest(database, staged_name)
            if at_rest is not None:
                return at_rest
        with _Target(self.fs, self.staging_fd, staged_name) as target:
            return self._concluded(self._ask("backup", database, target), database, target)

    def _stage_at_rest(
        self, database: _Database, staged_name: bytes
    ) -> Copied | Ordinary | Busy | TooLarge | Uncopied | None:
        """None where something touches the files; nothing is staged then."""
        with _Target(self.fs, self.staging_fd, staged_name) as target:
            if not self._copy_at_rest(database, target):
                return None
            answer = self._ask("recover", database, target)
            if answer.word is Word.DAMAGED:  # no log can mend it: the user's bytes are kept as they are
                return self._unreadable(database.main.status)
            return self._concluded(answer, database, target)

    def _copy_at_rest(self, database: _Database, target: _Target) -> bool:
        """Whether the copies, of the main file and its logs, are of one moment: nothing touched any of them.

        Neither while they were read nor for a tick before; then what lies there is what a crash would have left.
        """
        started_ns = self.clock.now_ns()
        with ExitStack() as closing:
            sources = {b"": database.main}
            for suffix in database.logs:
                try:
                    fd = self.fs.open(database.name + suffix, READ_FLAGS, at=database.directory_fd)
                except OSError as error:
                    if error.errno in ABSENT:
                        return False
                    raise
                closing.callback(self._let_go, fd)
                sources[suffix] = _Opened(fd, self.fs.fstat(fd))
            if not self._untouched(sources.values(), started_ns):
                return False
            for suffix, source in sources.items():
                if not self._copied(source, target, suffix):
                    return False
            return self._untouched(sources.values(), started_ns)

    def _untouched(self, sources: Iterable[_Opened], started_ns: int) -> bool:
        """Whether all ``sources`` are still the regular files that they were, and older than ``started_ns``."""
        return all(
            stat.S_ISREG(source.status.st_mode)
            and untouched(source.status, self.fs.fstat(source.fd), started_ns, self.clock.now_ns())
            for source in sources
        )

    def _copied(self, source: _Opened, target: _Target, suffix: bytes) -> bool:
        """Whether all bytes of ``source`` stand in the staged file with ``suffix``."""
        if not suffix:
            return self._copied_to(source, target.fd)
        with destination():
            fd = self.fs.open(target.name + suffix, CREATE_FLAGS, at=target.staging_fd)
        try:
            return self._copied_to(source, fd)
        finally:
            with destination():
                self.fs.close(fd)

    def _copied_to(self, source: _Opened, fd: int) -> bool:
        os.lseek(source.fd, 0, os.SEEK_SET)  # it may have been read before
        return copy_content(self.fs, source.fd, fd, source.status, self._pause) == source.status.st_size

    def _let_go(self, fd: int) -> None:
        with suppress(OSError):  # nothing was written through it, and it is closed all the same: close(2)
            self.fs.close(fd)

    def _pause(self) -> None:
        if self.cancelled():
            raise Cancelled

    def _ask(self, verb: str, database: _Database, target: _Target) -> Answer:
        answer = self.ask(
            Request(
                verb=verb,
                staging_fd=target.staging_fd,
                target_fd=target.fd,
                target_name=target.name,
                max_bytes=self.max_file_bytes,
                deadline_s=database.deadline_s,
                directory_fd=database.directory_fd,
                source_fd=database.main.fd,
                source_name=database.name,
            ),
            self.cancelled,
        )
        if answer.word is Word.CANCELLED:
            raise Cancelled
        return answer

    def _concluded(self, answer: Answer, database: _Database, target: _Target) -> Copied | Busy | TooLarge | Uncopied:
        """What ``answer`` means for the staged file. Raises ``DestinationError``."""
        match answer.word:
            case Word.DONE:
                return self._finished(database, target)
            case Word.BUSY:
                return Busy(answer.reason)
            case Word.FULL | Word.UNWRITABLE:
                return self._refused(answer, target)
            case _:
                return Uncopied(answer.reason)

    def _finished(self, database: _Database, target: _Target) -> Copied | Uncopied:
        entry = database.entry
        with destination():
            made, named = self.fs.fstat(target.fd), self.fs.lstat(target.name, at=target.staging_fd)
            if (made.st_dev, made.st_ino) != (named.st_dev, named.st_ino) or made.st_size > self.max_file_bytes:
                return Uncopied("its copy is not what SQLite was asked to make")
            self.fs.set_times(target.fd, entry.mtime_ns)
            # Set last: until the content is whole nobody but the owner can look at it.
            self.fs.fchmod(target.fd, entry.mode & 0o777)
        target.kept = True
        return Copied(entry, target.fd)

    def _refused(self, answer: Answer, target: _Target) -> TooLarge | Uncopied:
        """The copy is over the cap; or ``DestinationError``, with the number that a write of our own meets.

        SQLite does not tell the number. Where ours succeeds, only this copy is known to have a problem.
        """
        with destination():
            size = self.fs.fstat(target.fd).st_size
            os.lseek(target.fd, size, os.SEEK_SET)
            write_all(self.fs, target.fd, bytes(_PROBE_BYTES))
            self.fs.fsync(target.fd)
        if size + _LARGEST_PAGE_BYTES > self.max_file_bytes:
            return self._too_large()
        if answer.word is Word.FULL:  # our few bytes may have fitted all the same
            raise DestinationError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return Uncopied(f"SQLite could not write its copy: {answer.reason}")

    def _too_large(self) -> TooLarge:
        return TooLarge(f"larger than the cap of {self.max_file_bytes} bytes")
