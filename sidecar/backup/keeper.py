"""Earlier contents: what is replaced or deleted in the mirror gets a name among the versions first."""

from __future__ import annotations

import errno
import itertools
import stat
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from sidecar.backup import retention
from sidecar.backup.persist import state_of
from sidecar.backup.place import Place
from sidecar.backup.retention import LADDER, Rung, pressed
from sidecar.backup.versions import Span, version_name, versions_in
from sidecar.clock import Clock
from sidecar.copy import FULL
from sidecar.entry import ancestors, join, name_of, parent
from sidecar.fsops import CREATE_FLAGS, DIRECTORY_FLAGS, READ_FLAGS, FileSystem, copy_extent, sync_directory

_THIN_EVERY = 16
"""New versions of one path between two looks at what the retention rule lets go."""

_MOST_COUNTED = 4096
"""Paths of which new versions are counted; one that is forgotten is looked at when it has another one."""

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


class Keeper:
    """Keeps contents of the mirror as versions.

    ``move`` and ``keep`` may run on several threads at once, each for a path of its own, with descriptors that the
    caller opened: ``above`` is the directory of the path in the mirror, ``beside`` what ``directories_of`` gave for it.
    All methods raise ``OSError``.
    """

    def __init__(self, fs: FileSystem, clock: Clock, place: Place, ladder: Sequence[Rung] = LADDER) -> None:
        self._fs, self._clock, self._place, self._ladder = fs, clock, place, ladder
        self._versions = state_of(place.layout.server) + b"/versions"
        self._new_versions: dict[bytes, int] = {}
        """How many versions each path has got since it was looked at, or since it had none."""
        self._many: dict[bytes, None] = {}
        """What is to be looked at."""
        self._lock = threading.Lock()

    def make_directories(self, paths: Iterable[bytes], changed: set[bytes]) -> None:
        """Where ``directories_of`` looks there is a directory for each of ``paths``; for one thread.

        They and those above them are added to ``changed``, relative to Persist, for the caller to sync. What was open
        before may be closed.
        """
        directories = {parent(self.where(path)) for path in paths}
        self._place.make_all(sorted(directories))
        for directory in directories:
            # All of them: one that is there may be from an attempt that failed, or died, before it was durable.
            changed.update((*ancestors(directory)[self._versions.count(b"/") :], directory))

    def directories_of(self, paths: Sequence[bytes]) -> list[int]:
        """Of each path the directory that holds its versions and those of its siblings, open; for one thread."""
        above = [parent(self.where(path)) for path in paths]
        return self._place.open_all(above)

    def where(self, path: bytes) -> bytes:
        """The directory of the versions of ``path``, relative to Persist."""
        return join(self._versions, path)

    def prepare(self, path: bytes, beside: int) -> bool:
        """The directory of the versions of ``path`` is there; whether it had to be made. On any thread, as ``move``."""
        try:
            self._fs.mkdir(name_of(path), 0o700, at=beside)
        except FileExistsError:
            return False
        self._begin_count(path)
        return True

    def move(self, path: bytes, above: int, beside: int, *, span: Span, durably: bool) -> None:
        """The content of ``path``, valid for ``span``, has left the mirror and is a version."""
        self._add(path, beside, lambda target: self._rename(path, above, target, span), durably=durably)

    def keep(self, path: bytes, above: int, beside: int, *, span: Span, durably: bool) -> None:
        """The content of ``path``, valid for ``span``, has a second name among the versions, and may be replaced."""
        self._add(path, beside, lambda target: self._link_or_copy(path, above, target, span), durably=durably)

    def _add(self, path: bytes, beside: int, put_into: Callable[[int], None], *, durably: bool) -> None:
        """``put_into`` has put a version into the directory of those of ``path``, which ``durably`` syncs."""
        fd = self._open(path, beside)
        try:
            self._with_room(path, fd, put_into)
            if durably:
                sync_directory(self._fs, fd)
            self._count(path, fd)
        finally:
            self._fs.close(fd)

    def _open(self, path: bytes, beside: int) -> int:
        """The directory of the versions of ``path``, made if need be."""
        name = name_of(path)
        if path not in self._new_versions:
            # Most often there is none: to try to make it costs less than to look in vain.
            self.prepare(path, beside)
        try:
            return self._fs.open(name, DIRECTORY_FLAGS, at=beside)
        except FileNotFoundError:
            pass  # removed, by somebody else, meanwhile
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            with self._lock:  # the tree of open directories is for one thread
                self._place.layout.move_aside(self.where(path))
        self.prepare(path, beside)
        return self._fs.open(name, DIRECTORY_FLAGS, at=beside)

    def _with_room(self, path: bytes, target: int, put_into: Callable[[int], None]) -> None:
        """It is put into ``target``; where Persist is full, without versions of ``path`` that it can do without."""
        try:
            put_into(target)
        except OSError as error:
            if error.errno not in FULL or not self._let_go(path, target, pressed(self._ladder)):
                raise
            put_into(target)

    def _rename(self, path: bytes, above: int, target: int, span: Span) -> None:
        self._fs.rename(name_of(path), self._free_name(target, span), source_at=above, target_at=target)

    def _link_or_copy(self, path: bytes, above: int, target: int, span: Span) -> None:
        try:
            self._link(path, above, target, span)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._copy(path, above, self._free_name(target, span), target)

    def _link(self, path: bytes, above: int, target_at: int, span: Span) -> None:
        for attempt in itertools.count():
            try:
                self._fs.link(name_of(path), version_name(span, attempt), source_at=above, target_at=target_at)
            except FileExistsError:
                continue
            return

    def _copy(self, path: bytes, above: int, name: bytes, target_at: int) -> None:
        """As a hard link, where the file system has none: by a copy, whole before it has its name."""
        temporary = self._place.staging_name()
        try:
            self._stage(path, above, temporary)
            self._fs.rename(temporary, name, source_at=self._place.staging_fd, target_at=target_at)
        except OSError:
            with suppress(OSError):  # it is swept at the next start
                self._fs.unlink(temporary, at=self._place.staging_fd)
            raise

    def _stage(self, path: bytes, above: int, temporary: bytes) -> None:
        status = self._fs.lstat(name_of(path), at=above)
        if stat.S_ISLNK(status.st_mode):
            self._fs.symlink(self._fs.readlink(name_of(path), at=above), temporary, at=self._place.staging_fd)
        else:
            source = self._fs.open(name_of(path), READ_FLAGS, at=above)
            copy = self._fs.open(temporary, CREATE_FLAGS, at=self._place.staging_fd)
            try:
                offset = 0
                while count := copy_extent(self._fs, source, copy, offset, 1 << 24):
                    offset += count
                self._fs.set_times(copy, status.st_mtime_ns)
                self._fs.fchmod(copy, stat.S_IMODE(status.st_mode))
                self._fs.fsync(copy)
            finally:
                self._fs.close(source)
                self._fs.close(copy)

    def _free_name(self, directory_fd: int, span: Span) -> bytes:
        for attempt in itertools.count():
            name = version_name(span, attempt)
            try:
                self._fs.lstat(name, at=directory_fd)
            except FileNotFoundError:
                return name
        raise AssertionError("unreachable: the count has no end")

    # What may go.

    def _begin_count(self, path: bytes) -> None:
        """``path`` has no version yet."""
        with self._lock:
            self._new_versions[path] = 0

    def _count(self, path: bytes, directory: int) -> None:
        """``path`` has one version more, in the open ``directory``: where they were not counted yet, they are now."""
        with self._lock:
            earlier = self._new_versions.pop(path, None)
        count = len(self._fs.names(directory)) if earlier is None else earlier + 1
        with self._lock:
            if count >= _THIN_EVERY:
                self._many[path] = None
                count = 0
            self._new_versions[path] = count
            if len(self._new_versions) > _MOST_COUNTED:
                del self._new_versions[next(iter(self._new_versions))]

    def thin(self) -> None:
        """What the retention rule lets go is gone, of the paths that may have many versions; for one thread.

        Not every time that one gets a version: the look costs as much as a version does.
        """
        while self._many:
            path, _ = self._many.popitem()
            self._place.layout.root.make_room()
            with suppress(FileNotFoundError, NotADirectoryError):  # removed, by somebody else, meanwhile
                self._let_go(path, self._place.layout.root.directory(self.where(path)), self._ladder)

    def _let_go(self, path: bytes, directory: int, ladder: Sequence[Rung]) -> int:
        """How many versions of ``path``, in the open ``directory`` of its versions, are gone by the rule ``ladder``."""
        found = versions_in(self._fs, directory, path)
        expired = retention.expired([version.span for version in found], self._clock.now_ns(), ladder)
        for position in expired:
            self._fs.unlink(found[position].name, at=directory)
        return len(expired)
