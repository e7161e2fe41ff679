"""One server's directories on Persist, held open, and whether they still lie where everybody looks for them."""

from __future__ import annotations

import errno
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack

from sidecar.backup import beside, journal, left_behind, moves
from sidecar.backup.beside import Beside
from sidecar.backup.persist import Layout, check_mounted, mirror_of, state_of
from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.crew import Crew
from sidecar.entry import Entry, join, legible, name_of, parent
from sidecar.errors import Fenced, PersistError, PersistForeign
from sidecar.fsops import FileSystem

log = logging.getLogger(__name__)

NOTHING_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
"""What a look at a path says when nothing of ours stands there."""

_OUR_FILES = (journal.NAME, moves.NAME, left_behind.NAME, beside.NAME)
_NO_FILE = {errno.EISDIR, errno.EPERM}
"""What removing a directory as if it were a file says: Linux the first, POSIX the second."""


class Place:
    """Mirror, state and staging. Everything raises ``OSError``; opening also ``PersistError``. For one thread."""

    def __init__(
        self,
        fs: FileSystem,
        clock: Clock,
        settings: Settings,
        crew: Crew,
        admit: Callable[[int], None] = lambda _state_fd: None,
    ) -> None:
        """``admit`` is called with the directory of the state, before anything there is touched, and may raise."""
        self._fs, self._clock, self._settings, self._crew, self._admit = fs, clock, settings, crew, admit
        self.layout = Layout(fs, clock, settings)
        self._mirror, self._state = mirror_of(self.layout.server), state_of(self.layout.server)
        self._staging = self._state + b"/staging"
        # Never those of a sidecar before, a part of which may live on for a moment.
        self._names = itertools.count(clock.now_ns())
        self._held: dict[bytes, int] = {}
        with ExitStack() as on_failure:
            on_failure.callback(self.close)
            self.is_new = self.layout.prepare()
            """Whether there was no mirror before."""
            for path in (self._mirror, self._state, self._staging):
                self._held[path] = fs.duplicate(self.layout.root.directory(path))
            self.state_fd, self.staging_fd = self._held[self._state], self._held[self._staging]
            admit(self.state_fd)
            self.beside = Beside(fs, crew, self._held[self._mirror], self.state_fd)
            self.sweep()
            on_failure.pop_all()

    def sweep(self) -> None:
        """Nothing is staged any more, and where our files are to be nothing else stands."""
        for name in self._fs.names(self.staging_fd):
            try:
                self._fs.unlink(name, at=self.staging_fd)
            except OSError as error:
                self._sweep_other(name, error)
        self.clear_the_way()
        self.beside.sweep()

    def _sweep_other(self, name: bytes, error: OSError) -> None:
        """What cannot be unlinked is moved aside where it is not ours; else it stays, in no one's way."""
        try:
            if error.errno not in _NO_FILE:
                raise error
            self.layout.move_aside(join(self._staging, name))
        except OSError as another:
            log.warning("%s cannot be removed from the staging directory: %s", legible(name), another.strerror)

    def clear_the_way(self) -> None:
        """What stands where our files are to be, and is none, is moved aside: a link, a directory, a FIFO."""
        self.layout.clear_the_way(*itertools.chain.from_iterable((name, name + b".new") for name in _OUR_FILES))

    def staging_name(self) -> bytes:
        """A name in the staging directory that nothing else has."""
        return b"%d" % next(self._names)

    def in_mirror(self, path: bytes) -> bytes:
        """Where ``path`` lies, relative to Persist."""
        return join(self._mirror, path) if path else self._mirror

    def directory(self, path: bytes) -> int:
        """The mirror's directory ``path``, open until ``end_batch`` or the next of ``parts``."""
        return self.layout.root.directory(self.in_mirror(path))

    def directories(self, paths: Sequence[bytes]) -> list[int]:
        """The mirror's directory of each of ``paths``, one of the lists of ``parts``, as ``directory``."""
        return self.open_all([self.in_mirror(parent(path)) for path in paths])

    def open_all(self, directories: Sequence[bytes]) -> list[int]:
        """Each of the directories, relative to Persist, open as long as ``directory`` keeps them."""
        self.layout.root.open_all(directories, self._crew)
        return [self.layout.root.directory(path) for path in directories]

    def make_all(self, directories: Iterable[bytes]) -> set[bytes]:
        """As ``Layout.make_all``, by the crew."""
        return self.layout.make_all(directories, self._crew)

    def parts(self, paths: Iterable[bytes]) -> Iterator[list[bytes]]:
        """``paths`` in lists of which the directories, and those of the versions, can be open at once.

        With each list all that was open before may be closed.
        """
        return self.layout.root.parts(paths, parent)

    def has_directory(self, path: bytes) -> bool:
        """Whether the mirror has a directory ``path``."""
        try:
            self.directory(path)
        except OSError as error:
            if error.errno not in NOTHING_THERE:
                raise
            return False
        return True

    def status(self, path: bytes) -> os.stat_result | None:
        """What stands in the mirror at ``path``; None where nothing does."""
        try:
            return self._fs.lstat(name_of(path), at=self.directory(parent(path)))
        except OSError as error:
            if error.errno not in NOTHING_THERE:
                raise
            return None

    def has(self, path: bytes, entry: Entry) -> bool:
        """Whether something stands in the mirror at ``path`` that can be ``entry``."""
        status = self.status(path)
        found = None if status is None else Entry.of(status)
        if found is None or found.kind != entry.kind:
            return False
        # The copy of a database has another size, and its time.
        return found.size == entry.size or found.mtime_ns == entry.mtime_ns

    def renew(self, on_new: Callable[[], None]) -> bool:
        """Whether the directories had to be made anew; ``on_new`` is called with them in place.

        Somebody may remove or rename them while we hold them open, and every write would go where nobody finds it.
        Raises ``PersistForeign`` where another Persist lies there now, and it is not ours to write to.
        """
        layout: Layout | None = None
        try:
            layout = Layout(self._fs, self._clock, self._settings)
            check_mounted(self._settings)
            if self._is_here(layout):
                return False
            layout.prepare()
            for path, fd in self._held.items():
                os.dup2(layout.root.directory(path), fd, inheritable=False)
            self.layout, layout = layout, self.layout
            self._admit(self.state_fd)
            self.sweep()
            on_new()
        except (Fenced, PersistForeign):
            raise
        except PersistError as error:
            raise OSError(errno.ENOENT, str(error)) from error
        finally:
            if layout is not None:
                layout.close()
        return True

    def _is_here(self, layout: Layout) -> bool:
        for path, fd in self._held.items():
            try:
                here, held = self._fs.fstat(layout.root.directory(path)), self._fs.fstat(fd)
            except (FileNotFoundError, NotADirectoryError):
                return False
            if (here.st_dev, here.st_ino) != (held.st_dev, held.st_ino):
                return False
        return True

    def end_batch(self) -> None:
        """Descriptors that only the last batch needed are closed."""
        self.layout.root.forget()

    def close(self) -> None:
        for fd in self._held.values():
            self._fs.close(fd)
        self.layout.close()
