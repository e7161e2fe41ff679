"""Earlier contents: what is replaced or deleted in the mirror gets a name among the versions first."""

from __future__ import annotations

import errno
import itertools
import stat
from collections import Counter
from collections.abc import Callable

from sidecar import retention
from sidecar.clock import Clock
from sidecar.entry import join, name_of
from sidecar.fsops import CREATE_FLAGS, READ_FLAGS, FileSystem, copy_extent
from sidecar.persist import Layout, state_of
from sidecar.versions import Span, version_name, versions_in

_THIN_EVERY = 16
"""New versions of one path between two looks at what the retention rule lets go."""

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


class Keeper:
    """Keeps contents of the mirror as versions. ``above`` is always the open directory of ``path`` in the mirror.

    The directories that change are added to ``changed``, relative to Persist, for the caller to sync. All methods raise
    ``OSError``.
    """

    def __init__(
        self, fs: FileSystem, clock: Clock, layout: Layout, *, staging_fd: int, staging_name: Callable[[], bytes]
    ) -> None:
        self._fs = fs
        self._clock = clock
        self.layout = layout
        self._staging_fd = staging_fd
        self._staging_name = staging_name
        self._versions = state_of(layout.server) + b"/versions"
        self._new_versions: Counter[bytes] = Counter()

    def move(self, path: bytes, above: int, span: Span, changed: set[bytes]) -> None:
        """The content of ``path``, valid for ``span``, has left the mirror and is a version."""
        target = self._directory(path, changed)
        self._fs.rename(name_of(path), self._free_name(target, span), source_at=above, target_at=target)

    def keep(self, path: bytes, above: int, span: Span, changed: set[bytes]) -> None:
        """The content of ``path``, valid for ``span``, has a second name among the versions, and may be replaced."""
        target = self._directory(path, changed)
        name = self._free_name(target, span)
        try:
            self._fs.link(name_of(path), name, source_at=above, target_at=target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._copy(path, above, name, target)
        self._new_versions[path] += 1

    def _directory(self, path: bytes, changed: set[bytes]) -> int:
        directory = join(self._versions, path)
        changed.update(self.layout.make(directory))
        changed.add(directory)
        return self.layout.root.directory(directory)

    def _copy(self, path: bytes, above: int, name: bytes, target_at: int) -> None:
        """As a hard link, where the file system has none: by a copy, whole before it has its name."""
        status = self._fs.lstat(name_of(path), at=above)
        temporary = self._staging_name()
        if stat.S_ISLNK(status.st_mode):
            self._fs.symlink(self._fs.readlink(name_of(path), at=above), temporary, at=self._staging_fd)
        else:
            source = self._fs.open(name_of(path), READ_FLAGS, at=above)
            copy = self._fs.open(temporary, CREATE_FLAGS, at=self._staging_fd)
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
        self._fs.rename(temporary, name, source_at=self._staging_fd, target_at=target_at)

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
            directory = self.layout.root.directory(join(self._versions, path))
            found = versions_in(self._fs, directory, path)
            for position in retention.expired([version.span for version in found], self._clock.now_ns()):
                self._fs.unlink(found[position].name, at=directory)
