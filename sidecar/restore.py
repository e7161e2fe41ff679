"""Bringing contents back from Persist into a directory, without ever overwriting anything there."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sidecar.backup.directories import most_open
from sidecar.entry import Entry, Kind, ancestors, name_of, parent
from sidecar.fsops import (
    CREATE_FLAGS,
    READ_FLAGS,
    DestinationError,
    FileSystem,
    Tree,
    copy_content,
)
from sidecar.select import STUMP_PREFIX, class_of

_NO_UNNAMED = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS, errno.EXDEV}


@dataclass(frozen=True, slots=True)
class Wanted:
    """``path`` is to be as ``entry``; its content lies on Persist as ``name`` in ``directory``."""

    path: bytes
    entry: Entry
    directory: bytes
    name: bytes
    exact: bool = False
    """It is asked for as it was at a time: what has replaced it since is not it."""


@dataclass(frozen=True, slots=True)
class Restored:
    """``path`` is back; ``entry`` is what it is now, in its new place."""

    path: bytes
    entry: Entry


@dataclass(frozen=True, slots=True)
class Kept:
    """Something stands at ``path``, and was left as it is."""

    path: bytes


@dataclass(frozen=True, slots=True)
class Missing:
    """Persist does not hold the content that it should."""

    path: bytes


@dataclass(frozen=True, slots=True)
class NotRestored:
    """``path`` could not be put back."""

    path: bytes
    reason: str


Result = Restored | Kept | Missing | NotRestored


def in_order(wanted: Iterable[Wanted]) -> list[Wanted]:
    """Directories first, outermost first; then what matters most."""
    return sorted(
        wanted,
        key=lambda w: (
            w.entry.kind is not Kind.DIRECTORY,
            0 if w.entry.kind is Kind.DIRECTORY else class_of(w.path, w.entry.size),
            w.path,
        ),
    )


class _NotOnPersist(Exception):
    """Persist does not hold the content; a name that is missing in the home is another matter."""


@contextmanager
def _on_persist() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise _NotOnPersist from error


class Restorer:
    """Puts contents from Persist into the tree ``target``. Raises nothing for a single file: see ``Result``."""

    def __init__(self, fs: FileSystem, persist: Tree, target: Tree, cancelled: Callable[[], bool]) -> None:
        self._fs = fs
        self._persist = persist
        self._target = target
        self._cancelled = cancelled
        self._count = 0
        self._most_open = most_open()

    def restore(self, wanted: Wanted) -> Result:
        """What ``wanted`` names is back, unless something stands there."""
        self._persist.keep_below(self._most_open)
        self._target.keep_below(self._most_open)
        try:
            above = self._make_directories(parent(wanted.path))
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                return Kept(wanted.path)
            return NotRestored(wanted.path, error.strerror or "no directory for it")
        try:
            status = self._fs.lstat(name_of(wanted.path), at=above)
        except FileNotFoundError:
            pass
        except OSError as error:
            return NotRestored(wanted.path, error.strerror or "cannot be looked at")
        else:
            entry = Entry.of(status)
            if wanted.entry.kind is Kind.DIRECTORY and entry is not None and entry.kind is Kind.DIRECTORY:
                return Restored(wanted.path, entry)
            return Kept(wanted.path)
        try:
            return self._put(wanted, above)
        except FileExistsError:
            return Kept(wanted.path)
        except DestinationError as error:
            return NotRestored(wanted.path, f"the home could not take it: {error.strerror}")
        except _NotOnPersist:
            return Missing(wanted.path)
        except OSError as error:
            return NotRestored(wanted.path, error.strerror or "unknown error")

    def _put(self, wanted: Wanted, above: int) -> Result:
        name = name_of(wanted.path)
        if wanted.entry.kind is Kind.DIRECTORY:
            self._fs.mkdir(name, 0o700 | (wanted.entry.mode & 0o777), at=above)
            return Restored(wanted.path, wanted.entry)
        put = self._put_link if wanted.entry.kind is Kind.LINK else self._put_file
        expected = put(wanted, name, above)
        entry = Entry.of(self._fs.lstat(name, at=above))
        # Whoever works in the home already may have changed it in this very moment: then it is not what was saved.
        if entry is None or (entry.kind, entry.size, entry.mtime_ns) != expected:
            return Kept(wanted.path)
        return Restored(wanted.path, entry._replace(since_ns=wanted.entry.since_ns))

    def _put_link(self, wanted: Wanted, name: bytes, above: int) -> tuple[Kind, int, int]:
        with _on_persist():
            target = self._fs.readlink(wanted.name, at=self._persist.directory(wanted.directory))
        self._fs.symlink(target, name, at=above)
        self._fs.set_link_times(name, wanted.entry.mtime_ns, at=above)
        return Kind.LINK, len(target), wanted.entry.mtime_ns

    def _put_file(self, wanted: Wanted, name: bytes, above: int) -> tuple[Kind, int, int]:
        with _on_persist():
            source = self._fs.open(wanted.name, READ_FLAGS, at=self._persist.directory(wanted.directory))
        try:
            status = self._fs.fstat(source)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "what the backup holds there is no file")
            if wanted.exact and status.st_mtime_ns != wanted.entry.mtime_ns:
                raise OSError(errno.EBUSY, "it was replaced at this moment; ask again")
            self._put_content(source, status, wanted, name=name, above=above)
        finally:
            self._fs.close(source)
        return Kind.FILE, status.st_size, status.st_mtime_ns

    def _pause(self) -> None:
        if self._cancelled():
            raise InterruptedError(errno.EINTR, "cut short")

    def _put_content(self, source: int, status: os.stat_result, wanted: Wanted, *, name: bytes, above: int) -> None:
        temporary = b""
        try:
            target = self._fs.open_unnamed(0o600, at=above)
        except OSError as error:
            if error.errno not in _NO_UNNAMED:
                raise DestinationError(error.errno, error.strerror) from error
            self._count += 1
            temporary = STUMP_PREFIX + b"%d-%d" % (os.getpid(), self._count)
            target = self._fs.open(temporary, CREATE_FLAGS, at=above)
        try:
            if copy_content(self._fs, source, target, status, self._pause) != status.st_size:
                raise OSError(errno.EIO, "the backup became shorter while it was read")
            self._fs.fchmod(target, wanted.entry.mode & 0o7777)
            self._fs.set_times(target, status.st_mtime_ns)
            if temporary:
                self._fs.link(temporary, name, source_at=above, target_at=above)
            else:
                self._fs.link_unnamed(target, name, at=above)
        finally:
            self._fs.close(target)
            if temporary:
                self._fs.unlink(temporary, at=above)

    def _make_directories(self, path: bytes) -> int:
        try:
            return self._target.directory(path)
        except FileNotFoundError:
            pass
        for level in [*ancestors(path), path]:
            above = self._target.directory(parent(level))
            try:
                self._fs.mkdir(name_of(level), 0o755, at=above)
            except FileExistsError:
                continue
        return self._target.directory(path)

    def set_directory_mode(self, path: bytes, mode: int) -> None:
        """The directory ``path`` has ``mode``: set last, because a read-only one would refuse its own content."""
        try:
            self._fs.fchmod(self._target.directory(path), mode)
        except OSError:
            return  # the content is back; the mode of its directory is no reason to call that a failure

    def end_batch(self) -> None:
        """Descriptors that only the last batch needed are closed."""
        self._persist.forget()
        self._target.forget()
