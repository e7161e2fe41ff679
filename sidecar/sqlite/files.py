"""What belongs to a SQLite database, by SQLite's own rules: the file formats at sqlite.org/fileformat2.html.

A database with a log beside it, a ``-wal`` or a ``-journal``, is two files that are right only together: it is copied
by ``copy`` and becomes one file. Without a log it is copied like any other file.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable

from sidecar.entry import Entry, Kind, legible, name_of
from sidecar.fsops import READ_FLAGS, FileSystem

LOG_SUFFIXES = (b"-wal", b"-journal")
"""They hold content that the main file lacks, or still has to lose."""

_SHARED_MEMORY_SUFFIX = b"-shm"
COMPANION_SUFFIXES = (*LOG_SUFFIXES, _SHARED_MEMORY_SUFFIX)

_MAGIC = b"SQLite format 3\0"
ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
"""What opening a log says where none stands beside the database."""


def companion_of(path: bytes) -> bytes | None:
    """The database that ``path`` would belong to, by its name alone; None for any other name."""
    for suffix in COMPANION_SUFFIXES:
        if path.endswith(suffix) and len(name_of(path)) > len(suffix):
            return path[: -len(suffix)]
    return None


def changed_with(path: bytes) -> bytes | None:
    """The database whose content may have changed when ``path``, by its name, is one of its logs.

    None for the shared memory: readers write it, so that each copy would cause the next one.
    """
    return None if path.endswith(_SHARED_MEMORY_SUFFIX) else companion_of(path)


def companions_of(path: bytes) -> tuple[bytes, ...]:
    """What may stand beside the database ``path``: each is skipped with ``part_of`` as the reason."""
    return tuple(path + suffix for suffix in COMPANION_SUFFIXES)


def part_of(database: bytes) -> str:
    """Why a companion of ``database`` is not saved as a file of its own."""
    return f"part of the database {legible(name_of(database))}, which is saved as a whole"


def is_header(head: bytes) -> bool:
    """Whether a file that begins with ``head`` (at least 16 bytes) is a SQLite database."""
    return head.startswith(_MAGIC)


def with_logs(entry: Entry, logs: Iterable[Entry]) -> Entry:
    """The database ``entry``, as new as the newest of its ``logs``: a commit may change the log alone.

    A checkpoint, or a log that goes away, makes another entry again: one more copy, with the same content.
    """
    for log in logs:
        if log.kind is Kind.FILE and log.size > 0:
            entry = entry._replace(
                mtime_ns=max(entry.mtime_ns, log.mtime_ns),
                ctime_ns=max(entry.ctime_ns, log.ctime_ns),
                since_ns=max(entry.since_ns, log.since_ns),
            )
    return entry


def fold(found: dict[bytes, Entry], owns: Callable[[bytes], bool]) -> dict[bytes, bytes]:
    """What a directory holds, by name, with every database and its companions as one: it ``owns`` them.

    The companions are no longer in ``found``; returned with the database that each is part of.
    """
    folded: dict[bytes, bytes] = {}
    for name in [name for name in found if name.endswith(COMPANION_SUFFIXES)]:
        database = companion_of(name)
        if database in found and owns(database):
            folded[name] = database
            log = found.pop(name)
            if name.endswith(LOG_SUFFIXES):
                found[database] = with_logs(found[database], [log])
    return folded


def is_database(fs: FileSystem, directory_fd: int, name: bytes) -> bool:
    """Whether ``name`` in the directory is a SQLite database; not where it is absent, a link or unreadable."""
    try:
        fd = fs.open(name, READ_FLAGS, at=directory_fd)
    except OSError:
        return False
    try:
        return stat.S_ISREG(fs.fstat(fd).st_mode) and is_header(fs.read(fd, len(_MAGIC)))
    except OSError:
        return False
    finally:
        fs.close(fd)


def owns_companions(fs: FileSystem, directory_fd: int, name: bytes) -> bool:
    """Whether what has the name of a companion of ``name`` is one: of a database, or of a file that becomes one."""
    try:
        status = fs.lstat(name, at=directory_fd)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and (status.st_size == 0 or is_database(fs, directory_fd, name))


def logs_of(fs: FileSystem, directory_fd: int, name: bytes) -> dict[bytes, os.stat_result]:
    """The logs that stand beside ``name`` and are not empty, by suffix. Raises ``OSError`` where nobody can tell.

    None at all means that copying the file alone is right, whether it is a database or not.
    """
    found = {}
    for suffix in LOG_SUFFIXES:
        try:
            status = fs.lstat(name + suffix, at=directory_fd)
        except OSError as error:
            if error.errno not in ABSENT:
                raise
            continue
        if stat.S_ISREG(status.st_mode) and status.st_size > 0:
            found[suffix] = status
    return found
