"""Every file-system call the sidecar makes, and the walk by descriptors that no planted link can divert.

Names are bytes, relative to a directory descriptor; no call follows a symbolic link. ``FileSystem`` is the seam at
which fault tests fail each call in turn.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO that was swapped in for a file must not wait for a writer.
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_LIBC = ctypes.CDLL(None, use_errno=True)
_STATFS_BYTES = 256
"""More than struct statfs has on any architecture."""

_BLOCK_BYTES = 1 << 20
_SMALL_BYTES = 64 << 10
"""So much is read and written in one go sooner than the kernel can be asked to copy it."""
_QUIETLY = suppress(OSError)
_CHUNK_BYTES = 16 << 20
"""Between two looks at whether a copy should stop; a few milliseconds on a local disk."""


def current_umask() -> int:
    """What the kernel takes from the mode of a new file. Not to be asked while another thread makes one."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


class FileSystem:
    """The calls, one method each. Raises what the kernel says, as ``OSError``."""

    def open(self, name: bytes, flags: int, mode: int = 0o600, *, at: int | None = None) -> int:
        return os.open(name, flags, mode, dir_fd=at)

    def close(self, fd: int) -> None:
        os.close(fd)

    def duplicate(self, fd: int) -> int:
        return os.dup(fd)

    def read(self, fd: int, count: int) -> bytes:
        return os.read(fd, count)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return os.write(fd, data)

    def copy_range(self, source: int, target: int, count: int, source_offset: int, target_offset: int) -> int:
        return os.copy_file_range(source, target, count, source_offset, target_offset)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def sync_file_system(self, fd: int) -> None:
        """All that was written to the file system of ``fd`` is durable, names included: syncfs(2)."""
        if _LIBC.syncfs(fd):
            raise _last_error()

    def file_system_type(self, fd: int) -> int:
        """The magic number of the file system of ``fd``: statfs(2), ``f_type``."""
        status = ctypes.create_string_buffer(_STATFS_BYTES)
        if _LIBC.fstatfs(fd, status):
            raise _last_error()
        return int.from_bytes(status.raw[: ctypes.sizeof(ctypes.c_long)], sys.byteorder)

    def begin_write_back(self, fd: int, offset: int, count: int) -> None:
        """The kernel starts to write this part of ``fd`` out, and keeps no cache of what nobody will read soon."""
        os.posix_fadvise(fd, offset, count, os.POSIX_FADV_DONTNEED)

    def fstat(self, fd: int) -> os.stat_result:
        return os.fstat(fd)

    def lstat(self, name: bytes, *, at: int) -> os.stat_result:
        return os.stat(name, dir_fd=at, follow_symlinks=False)

    def fchmod(self, fd: int, mode: int) -> None:
        os.fchmod(fd, mode)

    def set_times(self, fd: int, mtime_ns: int) -> None:
        os.utime(fd, ns=(mtime_ns, mtime_ns))

    def set_link_times(self, name: bytes, mtime_ns: int, *, at: int) -> None:
        os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=at, follow_symlinks=False)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def rename(self, source: bytes, target: bytes, *, source_at: int, target_at: int) -> None:
        os.rename(source, target, src_dir_fd=source_at, dst_dir_fd=target_at)

    def link(self, source: bytes, target: bytes, *, source_at: int, target_at: int) -> None:
        os.link(source, target, src_dir_fd=source_at, dst_dir_fd=target_at, follow_symlinks=False)

    def open_unnamed(self, mode: int, *, at: int) -> int:
        """A file without a name in the directory ``at``: a kill leaves nothing of it. Not every file system can."""
        return os.open(b".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=at)

    def link_unnamed(self, fd: int, name: bytes, *, at: int) -> None:
        """The file that ``open_unnamed`` made gets its name; EEXIST where the name is taken."""
        os.link(b"/proc/self/fd/%d" % fd, name, dst_dir_fd=at, follow_symlinks=True)

    def unlink(self, name: bytes, *, at: int) -> None:
        os.unlink(name, dir_fd=at)

    def mkdir(self, name: bytes, mode: int, *, at: int) -> None:
        os.mkdir(name, mode, dir_fd=at)

    def rmdir(self, name: bytes, *, at: int) -> None:
        os.rmdir(name, dir_fd=at)

    def symlink(self, target: bytes, name: bytes, *, at: int) -> None:
        os.symlink(target, name, dir_fd=at)

    def readlink(self, name: bytes, *, at: int) -> bytes:
        return os.readlink(name, dir_fd=at)

    def names(self, fd: int) -> list[bytes]:
        """The names in an open directory, unordered."""
        return [os.fsencode(name) for name in os.listdir(fd)]

    def entries(self, fd: int) -> Iterator[tuple[bytes, os.stat_result]]:
        """The names in an open directory with their status; what vanishes meanwhile is left out."""
        with os.scandir(fd) as listing:
            for entry in listing:
                try:
                    yield os.fsencode(entry.name), entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue

    def chosen(
        self, fd: int, choose: Callable[[Collection[bytes]], Iterable[bytes]]
    ) -> Iterator[tuple[bytes, os.stat_result]]:
        """The same of some names: ``choose`` is given all of them, and says which.

        Nothing else is touched: a look at the mount point of a server that hangs would hang us.
        """
        found = _listed(fd)
        for name in choose(found.keys()):
            try:
                yield name, found[name].stat(follow_symlinks=False)
            except FileNotFoundError:
                continue

    def chosen_by_kind(
        self, fd: int, choose: Callable[[Collection[bytes]], Iterable[bytes]]
    ) -> tuple[list[bytes], list[bytes]]:
        """The same without a status: the names of files and links, and those of directories; special files are neither.

        The directory itself tells the kind on nearly every file system; then no file is touched at all.
        """
        found = _listed(fd)
        files: list[bytes] = []
        directories: list[bytes] = []
        for name in choose(found.keys()):
            entry = found[name]
            if entry.is_file(follow_symlinks=False) or entry.is_symlink():
                files.append(name)
            elif entry.is_dir(follow_symlinks=False):
                directories.append(name)
        return files, directories

    def free_bytes(self, fd: int) -> int:
        """What an ordinary user can still write to the file system of ``fd``."""
        status = os.fstatvfs(fd)
        return status.f_bavail * status.f_frsize


def _listed(fd: int) -> dict[bytes, os.DirEntry[str]]:
    with os.scandir(fd) as listing:
        entries = list(listing)
    if not entries:
        return {}
    # All at once: a name holds no NUL.
    names = os.fsencode("\0".join([entry.name for entry in entries])).split(b"\0")
    return dict(zip(names, entries, strict=True))


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def sync_directory(fs: FileSystem, fd: int) -> None:
    """What was renamed or created in the directory ``fd`` survives a power cut, where the file system can promise it.

    Some file systems cannot sync a directory and say so (FACTS: EINVAL, ENOTSUP); that is no failure.
    """
    try:
        fs.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def write_all(fs: FileSystem, fd: int, data: bytes) -> None:
    """All of ``data`` is written to ``fd``, however short the single writes are."""
    view = memoryview(data)
    while view:
        view = view[fs.write(fd, view) :]


def write_file(fs: FileSystem, at: int, name: bytes, data: bytes, *, temporary: bytes = b"") -> None:
    """``name`` in ``at`` is durably exactly ``data``, in one step, by way of ``temporary`` or of ``name``.new."""
    temporary = temporary or name + b".new"
    with suppress(FileNotFoundError):
        fs.unlink(temporary, at=at)
    fd = fs.open(temporary, CREATE_FLAGS, at=at)
    try:
        write_all(fs, fd, data)
        fs.fsync(fd)
    finally:
        fs.close(fd)
    fs.rename(temporary, name, source_at=at, target_at=at)
    sync_directory(fs, at)


def read_file(fs: FileSystem, at: int, name: bytes, max_bytes: int) -> bytes:
    """At most ``max_bytes`` of the beginning of ``name`` in ``at``. Raises ``OSError``; ELOOP for a link."""
    fd = fs.open(name, READ_FLAGS, at=at)
    try:
        return read_all(fs, fd, max_bytes)
    finally:
        fs.close(fd)


def read_all(fs: FileSystem, fd: int, max_bytes: int) -> bytes:
    """What ``fd`` still gives, at most ``max_bytes``, however short the single reads are."""
    blocks, left = [], max_bytes
    while left and (block := fs.read(fd, left)):
        blocks.append(block)
        left -= len(block)
    return b"".join(blocks)


class DestinationError(OSError):
    """Persist could not take what was written; the source is not to blame."""


class _Destination:
    """A class of its own, for it is entered several times for every file."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError) and not isinstance(error, DestinationError):
            raise DestinationError(error.errno, error.strerror) from error


_DESTINATION = _Destination()


def destination() -> _Destination:
    """Inside, an ``OSError`` comes from Persist and leaves as ``DestinationError`` with the same number."""
    return _DESTINATION


def copy_extent(fs: FileSystem, source: int, target: int, offset: int, count: int) -> int:
    """At most ``count`` bytes of ``source`` stand at the same ``offset`` of ``target``; how many: 0 at the end.

    The kernel copies where it can (on NFS 4.2 without moving the bytes), else they pass through memory, which also
    tells whose fault an error is: ``DestinationError`` where writing failed, plain ``OSError`` where reading did.
    """
    with suppress(OSError):
        return fs.copy_range(source, target, count, offset, offset)
    os.lseek(source, offset, os.SEEK_SET)
    data = fs.read(source, min(count, _BLOCK_BYTES))
    with destination():
        os.lseek(target, offset, os.SEEK_SET)
        write_all(fs, target, data)
    return len(data)


def copy_content(fs: FileSystem, source: int, target: int, status: os.stat_result, pause: Callable[[], None]) -> int:
    """The content of ``source``, which has ``status``, stands in the empty ``target``, and holes stay holes.

    How many bytes: less than the size where the source ended early. ``pause`` is called every few milliseconds, and
    may raise. ``DestinationError`` where writing failed, plain ``OSError`` where reading did.
    """
    if status.st_size <= _SMALL_BYTES:
        data = fs.read(source, status.st_size)  # a hole in so little is nothing worth keeping
        with destination():
            write_all(fs, target, data)
        return len(data)
    if status.st_blocks * 512 >= status.st_size:
        return _copy_part(fs, source, target, 0, status.st_size, pause)
    with destination():
        fs.truncate(target, status.st_size)
    for start, end in _data_extents(source, status.st_size):
        reached = _copy_part(fs, source, target, start, end, pause)
        if reached != end:
            return reached
    return status.st_size


def _copy_part(fs: FileSystem, source: int, target: int, offset: int, end: int, pause: Callable[[], None]) -> int:
    while offset < end:
        pause()
        count = copy_extent(fs, source, target, offset, min(_CHUNK_BYTES, end - offset))
        if count == 0:
            break
        if count >= _BLOCK_BYTES:
            # While the next part is copied this one is written out, and the sync at the end finds little left.
            with destination():
                fs.begin_write_back(target, offset, count)
        offset += count
    return offset


def _data_extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a sparse file that are no holes."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, end


_MOST_PASSED = 8


class Tree:
    """Directories below one root, opened component by component without following links.

    Descriptors are kept until ``forget``: the caller does so between batches. Not for use by several threads.
    """

    def __init__(self, fs: FileSystem, root_fd: int) -> None:
        self._fs = fs
        self._root_fd = root_fd
        self._open: dict[bytes, int] = {b"": root_fd}
        self._passed: dict[bytes, int] = {}
        """What was only gone through, the oldest first: the next directory is most often below one of these."""

    @classmethod
    def at(cls, fs: FileSystem, path: str) -> Self:
        """The tree below ``path``. A link in ``path`` itself is the administrator's, and is followed."""
        return cls(fs, fs.open(os.fsencode(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def directory(self, path: bytes) -> int:
        """A descriptor of the directory ``path``, valid until ``forget``.

        Raises ``OSError``: ENOENT where nothing is there, ENOTDIR or ELOOP where it is no directory (any more).
        """
        fd = self._open.get(path)
        if fd is None:
            fd = self._passed.pop(path) if path in self._passed else self._go_to(path)
            self._open[path] = fd
        return fd

    def _go_to(self, path: bytes) -> int:
        reached = path
        while reached not in self._open and reached not in self._passed:
            reached = reached.rpartition(b"/")[0]
        fd = self._passed[reached] if reached in self._passed else self._open[reached]
        *above, last = (path[len(reached) + 1 :] if reached else path).split(b"/")
        for name in above:
            fd = self._fs.open(name, DIRECTORY_FLAGS, at=fd)
            reached = reached + b"/" + name if reached else name
            self._pass(reached, fd)
        return self._fs.open(last, DIRECTORY_FLAGS, at=fd)

    def _pass(self, path: bytes, fd: int) -> None:
        if len(self._passed) == _MOST_PASSED:
            self._let_go(self._passed.pop(next(iter(self._passed))))
        self._passed[path] = fd

    def keep_below(self, most: int) -> None:
        """Not more than ``most`` directories are open. Only for when nobody holds a descriptor."""
        if len(self) > most:
            self.forget()

    def release(self, path: bytes) -> None:
        """Close the descriptor of ``path`` alone, where it is open and not the root's."""
        fd = self._open.pop(path, -1) if path else -1
        if fd >= 0:
            self._let_go(fd)

    def forget(self, path: bytes | None = None) -> None:
        """Close the descriptors of ``path`` and below, or all but the root's."""
        inside = path + b"/" if path else b""
        for known in [p for p in self._open if p and (path is None or p == path or p.startswith(inside))]:
            self._let_go(self._open.pop(known))
        # All of them: nobody holds one, and nobody can say which of them are still what they were.
        while self._passed:
            self._let_go(self._passed.popitem()[1])

    def __len__(self) -> int:
        """How many directories are open."""
        return len(self._open) + len(self._passed)

    def close(self) -> None:
        """All descriptors, the root's too."""
        self.forget()
        self._let_go(self._open.pop(b""))

    def _let_go(self, fd: int) -> None:
        with _QUIETLY:  # nothing was written through it, and it is closed all the same: close(2)
            self._fs.close(fd)
