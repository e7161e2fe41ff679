"""One source becomes one whole file under a name of its own, or a value that says why not.

A batch shares its syncs. Either the whole file system is synced once all is staged, or ``stage`` lets the kernel begin
to write back, and ``harden`` waits until the disk or the server has it: by then most of a batch is there already.

A copy is whole when nothing touched the source while it was read. The kernel stamps a change with a clock that ticks
every few milliseconds, so an equal ctime proves that only if it is older than the reading by more than a tick: what
has just changed is not read before.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from sidecar import select
from sidecar.clock import Clock
from sidecar.entry import Entry, Kind, name_of
from sidecar.fsops import (
    CREATE_FLAGS,
    READ_FLAGS,
    DestinationError,
    FileSystem,
    copy_content,
    current_umask,
    destination,
    write_all,
)
from sidecar.outcome import ChangedWhileReading, Failed, Skipped, Vanished

TICK_NS = 20_000_000
"""Longer than the longest kernel tick (10 ms at HZ=100): the granularity of ctime."""

_TO_BE_SURE_NS = 100_000
"""So much longer than a tick is waited: a sleep is counted on another clock."""

_ATTEMPTS = 3

_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}

LOADED_BYTES = 8 << 10
"""A source so small may be in memory while it waits for its turn."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Persist cannot take this file; a smaller one may still fit."""


class Source(NamedTuple):
    """What to copy: ``path`` in the home, whose directory is open as ``directory_fd``."""

    path: bytes
    directory_fd: int
    entry: Entry
    """What it was when it was selected: orders the work, and tells a link from a file."""
    may_be_core: bool = False
    """If it turns out to be a core dump, it is left out."""
    mapped: bool = False
    """It may be written through a mapping: then only a sync of it makes the next write change its times."""


class Loaded(NamedTuple):
    """The whole content of a source, as it was when it was ``entry``."""

    path: bytes
    entry: Entry
    data: bytes


class Staged(NamedTuple):
    """``path`` lies whole as ``name`` where it was staged; ``entry`` is what was read."""

    path: bytes
    entry: Entry
    name: bytes
    fd: int
    """Open until ``harden``; -1 where somebody else syncs it: a link, and a batch that is synced as a whole."""
    beside: bool = False
    """It lies beside where it is to stand, and not in the staging directory."""


def does_not_fit(error: OSError) -> str:
    """The reason of a file that a full Persist, or a used-up quota, could not take."""
    return f"does not fit on Persist: {error.strerror}"


class Cancelled(Exception):
    """The caller asked to stop in the middle of a file; nothing was staged."""


@dataclass(frozen=True)
class Copier:
    """Copies into the directory ``staging_fd``. Safe to use from several threads, each with names of its own."""

    fs: FileSystem
    clock: Clock
    staging_fd: int
    max_file_bytes: int
    wait: Callable[[float], None]
    """Waits that many seconds, or less when the process is told to end."""
    cancelled: Callable[[], bool]
    umask: int = field(default_factory=current_umask)

    def load(self, source: Source) -> Loaded | None:
        """The content of a small source, if it can be had at once; else it is for ``stage`` to wait, or to say why not.

        To be asked by the one thread that hands out the work: were it for many threads to read what costs no waiting,
        each would wait for the interpreter's lock at each of its calls.
        """
        entry = source.entry
        if entry.kind is not Kind.FILE or entry.size > LOADED_BYTES or source.mapped or source.may_be_core:
            return None
        with suppress(OSError):
            fd = self.fs.open(name_of(source.path), READ_FLAGS, at=source.directory_fd)
            try:
                return self._load(source.path, fd)
            finally:
                self.fs.close(fd)
        return None

    def _load(self, path: bytes, fd: int) -> Loaded | None:
        before = self.fs.fstat(fd)
        started_ns = self.clock.now_ns()
        is_small = stat.S_ISREG(before.st_mode) and before.st_size <= min(LOADED_BYTES, self.max_file_bytes)
        if not is_small or 0 <= before.st_ctime_ns + TICK_NS - started_ns <= 2 * TICK_NS:
            return None
        data = self.fs.read(fd, before.st_size)
        after = self.fs.fstat(fd)
        whole = len(data) == before.st_size and untouched(before, after, started_ns, self.clock.now_ns())
        entry = Entry.of(after)
        return Loaded(path, entry, data) if whole and entry is not None else None

    def stage_beside(
        self, source: Source | Loaded, name: bytes, at: int
    ) -> Staged | Vanished | ChangedWhileReading | Skipped | Failed:
        """As ``stage`` and then ``harden``, in the directory ``at``, in which the source's copy is to stand."""
        there = replace(self, staging_fd=at)
        staged = (
            there._stage_loaded(source, name)
            if isinstance(source, Loaded)
            else there.stage(source, name, harden_later=True)
        )
        if not isinstance(staged, Staged):
            return staged
        hardened = there.harden(staged)
        return hardened._replace(fd=-1, beside=True) if isinstance(hardened, Staged) else hardened

    def stage(
        self, source: Source, name: bytes, *, harden_later: bool, attempts: int = _ATTEMPTS
    ) -> Staged | Vanished | ChangedWhileReading | Skipped | Failed:
        """The source's content is staged as ``name``, or nothing is.

        With ``harden_later`` its descriptor stays open for ``harden``; else the caller syncs the file system. Raises
        ``DestinationError`` where Persist is at fault in a way that the next file would meet too, and ``Cancelled``.
        """
        for attempt in range(attempts):
            if attempt:
                self.wait(TICK_NS / 1e9)
            try:
                staged = self._attempt(source, name, harden_later=harden_later)
            except OSError as error:
                self._discard(name)
                return self._failure(source.path, error)
            except Cancelled:
                self._discard(name)
                raise
            if staged is not None:
                return staged
            self._discard(name)
        return ChangedWhileReading(source.path)

    def harden(self, staged: Staged) -> Staged | Failed:
        """The staged content is durable, and its descriptor closed; or it is gone. Raises ``DestinationError``."""
        if staged.fd < 0:
            return staged
        try:
            with destination():
                try:
                    self.fs.fsync(staged.fd)
                finally:
                    # NFS reports a full quota at close: a copy whose close failed is no copy.
                    self.fs.close(staged.fd)
        except DestinationError as error:
            self._discard(staged.name)
            failure = self._failure(staged.path, error)
            assert isinstance(failure, Failed)
            return failure
        return staged

    def abandon(self, staged: Staged) -> None:
        """The staged content will not be used: nothing of it stays."""
        if staged.fd >= 0:
            with suppress(OSError):
                self.fs.close(staged.fd)
        self._discard(staged.name)

    def _stage_loaded(self, loaded: Loaded, name: bytes) -> Staged | Vanished | Failed:
        path, entry, data = loaded
        try:
            with destination():
                target, mode = self._create(name, entry.mode)
                try:
                    write_all(self.fs, target, data)
                    self._finish(target, entry, mode)
                except OSError:
                    self.fs.close(target)
                    raise
        except DestinationError as error:
            self._discard(name)
            return self._failure(path, error)
        return Staged(path, entry, name, target)

    def _create(self, name: bytes, mode: int) -> tuple[int, int]:
        """The new file ``name``, open, and its mode: that of the source, where the kernel gives it at once."""
        # A stump is no more secret than the file is, and this is one call less.
        wanted = mode & 0o777
        given = wanted if wanted & 0o600 == 0o600 and not wanted & self.umask else 0o600
        return self.fs.open(name, CREATE_FLAGS, given, at=self.staging_fd), given

    def _finish(self, target: int, entry: Entry, given: int) -> None:
        self.fs.set_times(target, entry.mtime_ns)
        if given != entry.mode & 0o777:
            self.fs.fchmod(target, entry.mode & 0o777)

    def _failure(self, path: bytes, error: OSError) -> Vanished | Failed:
        if isinstance(error, DestinationError):
            if error.errno in FULL:
                return Failed(path, does_not_fit(error))
            raise error
        if error.errno in _GONE:
            return Vanished(path)
        return Failed(path, f"cannot be read: {error.strerror}")

    def _discard(self, name: bytes) -> None:
        with suppress(OSError):  # what cannot be removed now is swept at the next start; it is in no one's way
            self.fs.unlink(name, at=self.staging_fd)

    def _attempt(self, source: Source, name: bytes, *, harden_later: bool) -> Staged | Skipped | None:
        if source.entry.kind is Kind.LINK:
            return self._stage_link(source, name)
        return self._stage_file(source, name, harden_later=harden_later)

    def _stage_link(self, source: Source, name: bytes) -> Staged | None:
        link = name_of(source.path)
        before = self.fs.lstat(link, at=source.directory_fd)
        if not stat.S_ISLNK(before.st_mode):
            return None
        target = self.fs.readlink(link, at=source.directory_fd)
        # A link cannot be changed in place: the same inode before and after means that this was its target.
        after = self.fs.lstat(link, at=source.directory_fd)
        entry = Entry.of(after)
        if entry is None or before.st_ino != after.st_ino or before.st_ctime_ns != after.st_ctime_ns:
            return None
        with destination():
            self.fs.symlink(target, name, at=self.staging_fd)
            self.fs.set_link_times(name, entry.mtime_ns, at=self.staging_fd)
        return Staged(source.path, entry, name, -1)

    def _stage_file(self, source: Source, name: bytes, *, harden_later: bool) -> Staged | Skipped | None:
        fd = self.fs.open(name_of(source.path), READ_FLAGS, at=source.directory_fd)
        try:
            if source.mapped:
                self.fs.fsync(fd)
            before = self.fs.fstat(fd)
            if stat.S_ISDIR(before.st_mode):
                return None
            reason = select.skip_status(before, self.max_file_bytes)
            if reason is None and source.may_be_core and select.is_core(os.pread(fd, 20, 0)):
                reason = "a core dump"
            if reason is not None:
                return Skipped(source.path, reason)
            young_for_ns = before.st_ctime_ns + TICK_NS - self.clock.now_ns()
            if 0 <= young_for_ns <= 2 * TICK_NS:
                self.wait((young_for_ns + _TO_BE_SURE_NS) / 1e9)
                before = self.fs.fstat(fd)
            return self._copy(source.path, fd, before, name, harden_later=harden_later)
        finally:
            self.fs.close(fd)

    def _copy(self, path: bytes, fd: int, before: os.stat_result, name: bytes, *, harden_later: bool) -> Staged | None:
        started_ns = self.clock.now_ns()
        with destination():
            target, given = self._create(name, before.st_mode)
        staged = None
        try:
            copied = copy_content(self.fs, fd, target, before, self._pause)
            after = self.fs.fstat(fd)
            whole = copied == before.st_size and untouched(before, after, started_ns, self.clock.now_ns())
            entry = Entry.of(after)
            if whole and entry is not None:
                with destination():
                    self._finish(target, entry, given)
                staged = Staged(path, entry, name, target if harden_later else -1)
        finally:
            if staged is None:
                self.fs.close(target)
        if not harden_later and staged is not None:
            with destination():
                self.fs.close(target)
        return staged

    def _pause(self) -> None:
        if self.cancelled():
            raise Cancelled


def untouched(before: os.stat_result, after: os.stat_result, started_ns: int, ended_ns: int) -> bool:
    """Whether nothing wrote to the source between ``before`` and ``after``, which stand around the reading.

    A ctime in the future, after the clock was set back, proves nothing by its age; then equality has to do.
    """
    if (before.st_size, before.st_mtime_ns, before.st_ctime_ns) != (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    ):
        return False
    return after.st_ctime_ns < started_ns - TICK_NS or after.st_ctime_ns > ended_ns + TICK_NS


def same_content(fs: FileSystem, one: int, other: int) -> bool:
    """Whether two open files hold the same bytes from their beginning."""
    while True:
        first, second = fs.read(one, 1 << 20), fs.read(other, 1 << 20)
        if first != second:
            return False
        if not first:
            return True
