"""Contents that are staged beside where they are to stand, and the record of where that may be.

One rename within a directory is the cheapest way to put a content in place where every call is a round trip: the kernel
has a single lock for all renames of a file system from one directory to another, on NFS and FUSE too. But it means that
a kill leaves names in the mirror. They begin in a way that no name of the user's does, and before anything is staged it
is durably written down in which directories: the next start sweeps those. So does whoever takes over the lease, and a
sidecar that wakes up after that finds nothing to put in place.

``staging-in`` is a file of frames as in the journal, each a directory of the mirror. It may name more than it must.
Whoever does not know it misreads nothing: what is staged is in no journal.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterable, Set
from contextlib import suppress

from sidecar.backup.frames import framed, payloads
from sidecar.crew import Crew
from sidecar.entry import legible
from sidecar.fsops import FileSystem, Tree, read_file, write_all, write_file
from sidecar.select import BESIDE_PREFIX

log = logging.getLogger(__name__)

NAME = b"staging-in"
_TAG = b"\x01"
_TAGS = frozenset(_TAG)
_MOST_RECORDED = 1024
"""Directories in the record, besides those that must be: a start after a kill looks into each."""
_MOST_BYTES = 64 << 20
_CHANCE_BYTES = 8
"""In a name."""
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_CLOSED_TO_US = {errno.EACCES, errno.EPERM}


class Beside:
    """The record in the open state directory ``state_fd``, and what it tells of in the mirror ``mirror_fd``.

    For one thread, which waits for the crew; all paths are relative to the mirror. All methods raise ``OSError``.
    """

    def __init__(self, fs: FileSystem, crew: Crew, mirror_fd: int, state_fd: int) -> None:
        self._fs, self._crew, self._mirror_fd, self._state_fd = fs, crew, mirror_fd, state_fd
        self._fd = -1
        self._end = 0
        self._recorded: set[bytes] = set()
        """What stands in the record that is open as ``_fd``."""
        self._current: set[bytes] = set()
        """Where the batch is staged."""
        self._doubtful: set[bytes] = set()
        """Where something may have stayed."""

    @staticmethod
    def new_names(count: int) -> list[bytes]:
        """So many names that nothing else has, and that nobody can guess."""
        chance = os.urandom(_CHANCE_BYTES * count).hex().encode()
        return [BESIDE_PREFIX + chance[at : at + 2 * _CHANCE_BYTES] for at in range(0, len(chance), 2 * _CHANCE_BYTES)]

    def sweep(self) -> None:
        """Nothing that was staged before stays, wherever the record says; what cannot be removed is kept in mind."""
        self._let_go()
        self._doubtful |= self._current
        self._current = set()
        directories = sorted(self._read() | self._doubtful)
        swept = self._crew.map(self._sweep_one, directories)
        self._doubtful |= {directory for directory, is_clean in zip(directories, swept, strict=True) if not is_clean}

    def distrust(self) -> None:
        """Somebody who was here before may still be staging where he was: the next start sweeps that once more."""
        self._doubtful |= self._read()

    def begin(self, directories: Set[bytes]) -> None:
        """It is durably written down that something may be staged in ``directories``."""
        self._doubtful |= self._current
        self._current = set(directories)
        self._record(directories)

    def settle(self, unsure: Set[bytes]) -> None:
        """All of the batch is durably in place, but for what was staged in vain in the directories ``unsure``."""
        self._doubtful |= unsure
        self._current = set()

    def follow(self, old: bytes, new: bytes) -> None:
        """The directory ``old`` is about to be renamed to ``new``, with what may have stayed in it."""
        inside = {each for each in self._doubtful if each == old or each.startswith(old + b"/")}
        moved = {new + each[len(old) :] for each in inside}
        self._record(moved)
        self._doubtful |= moved

    def close(self) -> None:
        """If nothing has stayed, the next start need not look."""
        if self._fd >= 0 and not self._doubtful and not self._current:
            with suppress(OSError):  # then it looks in vain
                self._fs.truncate(self._fd, 0)
        self._let_go()

    def _let_go(self) -> None:
        fd, self._fd, self._recorded = self._fd, -1, set()
        if fd >= 0:
            with suppress(OSError):  # what was written was synced
                self._fs.close(fd)

    # The record.

    def _record(self, directories: Iterable[bytes]) -> None:
        fresh = sorted(set(directories) - self._recorded)
        if not fresh:
            return
        if self._fd < 0 or len(self._recorded) + len(fresh) > _MOST_RECORDED:
            self._rewrite(sorted({*self._doubtful, *self._current, *fresh}))
            return
        data = b"".join(framed(_TAG + each) for each in fresh)
        try:
            os.lseek(self._fd, self._end, os.SEEK_SET)
            write_all(self._fs, self._fd, data)
            self._fs.fsync(self._fd)
        except OSError:
            self._let_go()  # nobody knows how it ends: the next one is another file
            raise
        self._end += len(data)
        self._recorded.update(fresh)

    def _rewrite(self, directories: list[bytes]) -> None:
        """The record is another file, so that one who is not the writer any more does not write into it."""
        self._let_go()
        data = b"".join(framed(_TAG + each) for each in directories)
        write_file(self._fs, self._state_fd, NAME, data)
        self._fd = self._fs.open(NAME, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, at=self._state_fd)
        self._end, self._recorded = len(data), set(directories)

    def _read(self) -> set[bytes]:
        try:
            data = read_file(self._fs, self._state_fd, NAME, _MOST_BYTES)
        except FileNotFoundError:
            return set()
        found: set[bytes] = set()
        try:
            for some, _ in payloads(iter([data]), _TAGS):
                found.update(payload[1:] for payload in some)
        except ValueError as error:
            log.warning("the record of what was being saved is %s: something of it may stay in the backup", error)
        return {each for each in found if each == b"" or not {b"", b".", b".."}.intersection(each.split(b"/"))}

    # Sweeping.

    def _sweep_one(self, directory: bytes) -> bool:
        """Whether nothing that was staged is in ``directory`` any more."""
        with Tree(self._fs, self._fs.duplicate(self._mirror_fd)) as mirror:
            try:
                fd = mirror.directory(directory)
                names = [name for name in self._fs.names(fd) if name.startswith(BESIDE_PREFIX)]
            except OSError as error:
                if error.errno not in _NOT_THERE | _CLOSED_TO_US:
                    raise
                return error.errno in _NOT_THERE
            return sum(self._remove(name, fd, directory) for name in names) == len(names)

    def _remove(self, name: bytes, at: int, directory: bytes) -> bool:
        try:
            if stat.S_IFMT(self._fs.lstat(name, at=at).st_mode) in (stat.S_IFREG, stat.S_IFLNK):
                self._fs.unlink(name, at=at)
        except FileNotFoundError:
            return True
        except OSError as error:
            log.warning("%s in %s cannot be removed from the backup: %s", legible(name), legible(directory), error)
            return False
        return True
