"""Earlier contents: what is replaced or deleted in the mirror gets a name among the versions first."""

from __future__ import annotations

import errno
import itertools
import stat
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sidecar.backup import retention
from sidecar.backup.persist import state_of
from sidecar.backup.place import Place
from sidecar.backup.versions import Span, version_name, versions_in
from sidecar.clock import Clock
from sidecar.entry import ancestors, join, name_of, parent
from sidecar.fsops import CREATE_FLAGS, DIRECTORY_FLAGS, READ_FLAGS, FileSystem, copy_extent, sync_directory

_THIN_EVERY = 16
"""New versions of one path between two looks at what the retention rule lets go."""

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


class Keeper:
    """Keeps contents of the mirror as versions.

    ``move`` and ``keep`` may run on several threads at once, each for a path of its own, with descriptors that the
    caller opened: ``above`` is the directory of the path in the mirror, ``beside`` what ``directory_of`` gave for it.
    All methods raise ``OSError``.
    """

    def __init__(self, fs: FileSystem, clock: Clock, place: Place) -> None:
        self._fs, self._clock, self._place = fs, clock, place
        self._versions = state_of(place.layout.server) + b"/versions"
        self._new_versions: Counter[bytes] = Counter()
        self._lock = threading.Lock()

    def directory_of(self, path: bytes, changed: set[bytes]) -> int:
        """The directory that holds the versions of ``path`` and of its siblings, open; for one thread.

        It and those above it are added to ``changed``, relative to Persist, for the caller to sync.
        """
        directory = join(self._versions, parent(path)) if parent(path) else self._versions
        self._place.layout.make(directory)
        # All of them: one that is there may be from an attempt that failed, or died, before it was durable.
        changed.update((*ancestors(directory)[self._versions.count(b"/") :], directory))
        return self._place.layout.root.directory(directory)

    def where(self, path: bytes) -> bytes:
        """The directory of the versions of ``path``, relative to Persist."""
        return join(self._versions, path)

    def prepare(self, path: bytes, beside: int) -> bool:
        """The directory of the versions of ``path`` is there; whether it had to be made. On any thread, as ``move``."""
        try:
            self._fs.mkdir(name_of(path), 0o700, at=beside)
        except FileExistsError:
            return False
        return True

    def move(self, path: bytes, above: int, beside: int, *, span: Span, durably: bool) -> None:
        """The content of ``path``, valid for ``span``, has left the mirror and is a version."""
        with self._open(path, beside, durably=durably) as target:
            self._fs.rename(name_of(path), self._free_name(target, span), source_at=above, target_at=target)

    def keep(self, path: bytes, above: int, beside: int, *, span: Span, durably: bool) -> None:
        """The content of ``path``, valid for ``span``, has a second name among the versions, and may be replaced."""
        with self._open(path, beside, durably=durably) as target:
            try:
                self._link(path, above, target, span)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                self._copy(path, above, self._free_name(target, span), target)
        with self._lock:
            self._new_versions[path] += 1

    @contextmanager
    def _open(self, path: bytes, beside: int, *, durably: bool) -> Iterator[int]:
        """The directory of the versions of ``path``, made if need be; ``durably``: what is put into it is synced."""
        name = name_of(path)
        try:
            fd = self._fs.open(name, DIRECTORY_FLAGS, at=beside)
        except FileNotFoundError:
            fd = self._make(name, beside)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            with self._lock:  # the tree of open directories is for one thread
                self._place.layout.move_aside(join(self._versions, path))
            fd = self._make(name, beside)
        try:
            yield fd
            if durably:
                sync_directory(self._fs, fd)
        finally:
            self._fs.close(fd)

    def _make(self, name: bytes, beside: int) -> int:
        self._fs.mkdir(name, 0o700, at=beside)
        return self._fs.open(name, DIRECTORY_FLAGS, at=beside)

    def _link(self, path: bytes, above: int, target_at: int, span: Span) -> None:
        for attempt in itertools.count():
            with suppress(FileExistsError):
                self._fs.link(name_of(path), version_name(span, attempt), source_at=above, target_at=target_at)
                return

    def _copy(self, path: bytes, above: int, name: bytes, target_at: int) -> None:
        """As a hard link, where the file system has none: by a copy, whole before it has its name."""
        status = self._fs.lstat(name_of(path), at=above)
        temporary = self._place.staging_name()
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
        self._fs.rename(temporary, name, source_at=self._place.staging_fd, target_at=target_at)

    def _free_name(self, directory_fd: int, span: Span) -> bytes:
        for attempt in itertools.count():
            name = version_name(span, attempt)
            try:
                self._fs.lstat(name, at=directory_fd)
            except FileNotFoundError:
                return name
        raise AssertionError("unreachable: the count has no end")

    def thin(self) -> None:
        """What the retention rule lets go, of the paths that have many new versions, is gone."""
        for path in [path for path, count in self._new_versions.items() if count >= _THIN_EVERY]:
            del self._new_versions[path]
            directory = self._place.layout.root.directory(join(self._versions, path))
            found = versions_in(self._fs, directory, path)
            for position in retention.expired([version.span for version in found], self._clock.now_ns()):
                self._fs.unlink(found[position].name, at=directory)
