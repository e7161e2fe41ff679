"""Everything that is written to Persist: whole files into the mirror, earlier contents into the versions.

The order makes every kill harmless: content is staged and durable; the old content gets a second name among the
versions; one rename puts the new content in place; the directory is synced; and only then the journal calls it safe.
Contents are staged beside the mirror, on the same mount, and not in it: a kill never leaves a stump in the user's
backup, and what it leaves is swept in one small directory.
"""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress

from sidecar import journal as records
from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.copy import Staged, same_content
from sidecar.entry import Entry, Kind, join, name_of, parent
from sidecar.errors import PersistError
from sidecar.fsops import (
    READ_FLAGS,
    FileSystem,
    destination,
    sync_directory,
    write_file,
)
from sidecar.index import Index
from sidecar.journal import Journal, JournalUnreadable
from sidecar.keeper import Keeper
from sidecar.mirror import read_mirror
from sidecar.outcome import Removed, Saved
from sidecar.persist import Layout, check_mounted, mirror_of, state_of
from sidecar.versions import Span

log = logging.getLogger(__name__)

LEFT_BEHIND = b"left-behind.json"


class Store:
    """One server's place on Persist, opened for writing. For one thread; errors leave as ``DestinationError``."""

    def __init__(self, fs: FileSystem, clock: Clock, settings: Settings) -> None:
        self._fs = fs
        self._clock = clock
        self._settings = settings
        self.layout = Layout(fs, clock, settings)
        server = self.layout.server
        self._mirror = mirror_of(server)
        self._state = state_of(server)
        is_new = self.layout.prepare()
        self.staging_fd = os.dup(self.layout.root.directory(self._state + b"/staging"))
        self.state_fd = os.dup(self.layout.root.directory(self._state))
        self._mirror_fd = os.dup(self.layout.root.directory(self._mirror))
        self._journal = Journal(fs, self.state_fd)
        self._names = itertools.count()
        self._keeper = Keeper(fs, clock, self.layout, staging_fd=self.staging_fd, staging_name=self.staging_name)
        self._sweep_staging()
        self.session, self.index = self._replay(is_new)

    def _sweep_staging(self) -> None:
        for name in self._fs.names(self.staging_fd):
            self._fs.unlink(name, at=self.staging_fd)

    def _replay(self, is_new: bool) -> tuple[bytes, Index]:
        try:
            state = self._journal.open()
            if is_new and state.index.files:
                log.error("the mirror is gone: what the home has is saved again")
                raise JournalUnreadable("the mirror it tells of is gone")
        except JournalUnreadable as error:
            self._journal.close()
            index = read_mirror(self._fs, self.layout)
            if index.files:
                log.warning(
                    "the journal cannot be used (%s): rebuilt from the %d files of the mirror", error, index.files
                )
            self._journal.rewrite(index, b"")
            return b"", index
        if state.unfinished:
            self._finish_removals(state.unfinished)
        return state.session, state.index

    def _finish_removals(self, unfinished: dict[bytes, Entry]) -> None:
        now_ns = self._clock.now_ns()
        changed: set[bytes] = set()
        for path in sorted(unfinished, reverse=True):  # children before their directory
            self._take_out(path, unfinished[path], now_ns, changed)
        self._sync(changed)
        self._journal.append(records.removed_record(path) for path in unfinished)

    def ensure_in_place(self) -> bool:
        """Mirror and state lie where everybody looks for them; whether they had to be made anew.

        Somebody may remove or rename them while we hold them open, and every write would go where nobody finds it. What
        was made anew is believed, and the journal is not: nothing counts as saved that is not there. Raises
        ``DestinationError`` where they cannot be made.
        """
        with destination():
            layout = Layout(self._fs, self._clock, self._settings)
            try:
                check_mounted(self._settings)
                if self._is_here(layout):
                    return False
                layout.prepare()
                for path, fd in self._held.items():
                    os.dup2(layout.root.directory(path), fd, inheritable=False)
                self.layout, layout = layout, self.layout
                self._keeper.layout = self.layout
                self._sweep_staging()
                self.index.replace(read_mirror(self._fs, self.layout))
                self._journal.rewrite(self.index, self.session)
            except PersistError as error:
                raise OSError(errno.ENOENT, str(error)) from error
            finally:
                layout.close()
        return True

    @property
    def _held(self) -> dict[bytes, int]:
        return {self._mirror: self._mirror_fd, self._state: self.state_fd, self._state + b"/staging": self.staging_fd}

    def _is_here(self, layout: Layout) -> bool:
        for path, fd in self._held.items():
            try:
                here, held = self._fs.fstat(layout.root.directory(path)), self._fs.fstat(fd)
            except (FileNotFoundError, NotADirectoryError):
                return False
            if (here.st_dev, here.st_ino) != (held.st_dev, held.st_ino):
                return False
        return True

    def forget_missing(self) -> list[bytes]:
        """The paths that the journal calls safe and the mirror does not have as it should; they are not safe any more.

        Costs a look at every file, so it is for where the user can reach the mirror. Raises ``DestinationError``.
        """
        missing = []
        with destination():
            for path, entry, _ in list(self.index.items()):
                if entry.kind is not Kind.DIRECTORY and not self._has(path, entry):
                    missing.append(path)
            self.layout.root.forget()
            self._journal.append(records.removed_record(path) for path in missing)
        for path in missing:
            self.index.remove(path)
        return missing

    def _has(self, path: bytes, entry: Entry) -> bool:
        try:
            status = self._fs.lstat(name_of(path), at=self.layout.root.directory(self._in_mirror(parent(path))))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return False
            raise
        found = Entry.of(status)
        return found is not None and (found.kind, found.size) == (entry.kind, entry.size)

    def begin_session(self, session: bytes) -> bool:
        """The records from here on are of the home ``session``; whether that home is the one of the records before."""
        if session and session == self.session:
            return True
        with destination():
            self._journal.append([records.session_record(session)])
        self.session = session
        self.index.release_all()
        return False

    def staging_name(self) -> bytes:
        """A name in the staging directory that nothing else has."""
        return b"%d" % next(self._names)

    def holds_content(self, path: bytes, source_fd: int) -> bool:
        """Whether the mirror's ``path`` is byte for byte what ``source_fd`` reads from its beginning.

        Asked where the journal was lost or the home is new: the same work need not be written, and kept, twice.
        """
        try:
            directory = self.layout.root.directory(self._in_mirror(parent(path)))
            fd = self._fs.open(name_of(path), READ_FLAGS, at=directory)
        except OSError:
            return False
        try:
            return same_content(self._fs, source_fd, fd)
        finally:
            self._fs.close(fd)

    def discard(self, staged: Staged) -> None:
        """A staged content that will not be committed is gone, or is swept at the next start."""
        with suppress(OSError):
            self._fs.unlink(staged.name, at=self.staging_fd)

    def commit(self, staged: Sequence[Staged]) -> list[Saved]:
        """Every staged content stands in the mirror, durably, and the journal says so."""
        if not staged:
            return []
        with destination():
            changed: set[bytes] = set()
            for item in staged:
                self._make_mirror_directory(parent(item.path), changed)
                self._keep(item.path, item.entry.since_ns, changed)
            self._sync(changed)
            changed.clear()
            for item in staged:
                above = parent(item.path)
                target = self.layout.root.directory(self._in_mirror(above))
                self._fs.rename(item.name, name_of(item.path), source_at=self.staging_fd, target_at=target)
                changed.add(self._in_mirror(above))
            self._sync(changed)
            self.record((item.path, item.entry) for item in staged)
            self._keeper.thin()
        return [Saved(item.path, item.entry) for item in staged]

    def make_directories(self, directories: Sequence[tuple[bytes, Entry]]) -> list[Saved]:
        """Every directory, outermost first, stands in the mirror, durably, and the journal says so."""
        with destination():
            changed: set[bytes] = set()
            for path, _ in directories:
                self._make_mirror_directory(path, changed)
            self._sync(changed)
            self.record(directories)
        return [Saved(path, entry) for path, entry in directories]

    def record(self, entries: Iterable[tuple[bytes, Entry]]) -> None:
        """The journal says durably that the mirror holds ``entries``, as this home has them."""
        batch = list(entries)
        with destination():
            self._journal.append(records.safe_record(path, entry) for path, entry in batch)
        for path, entry in batch:
            self.index.put(path, entry, held=True)
        self._compact()

    def remove(self, paths: Sequence[bytes]) -> list[Removed]:
        """Every path, children before their directory, has left the mirror; its last content is a version."""
        now_ns = self._clock.now_ns()
        known = [(path, entry) for path in paths if (entry := self.index.get(path)) is not None]
        with destination():
            self._journal.append(records.removing_record(path, entry) for path, entry in known)
            changed: set[bytes] = set()
            for path, entry in known:
                self._take_out(path, entry, now_ns, changed)
                # At once: if the rest fails, what comes back under this name must not be taken for saved.
                self.index.remove(path)
            self._sync(changed)
            self._journal.append(records.removed_record(path) for path, _ in known)
        self._compact()
        return [Removed(path) for path, _ in known]

    def _take_out(self, path: bytes, entry: Entry, now_ns: int, changed: set[bytes]) -> None:
        try:
            above = self.layout.root.directory(self._in_mirror(parent(path)))
            status = self._fs.lstat(name_of(path), at=above)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return  # already out
            raise
        if stat.S_ISDIR(status.st_mode):
            self.layout.root.forget(self._in_mirror(path))
            try:
                self._fs.rmdir(name_of(path), at=above)
            except OSError as error:
                # Something that is not ours, or not restored yet, is in it: the directory stays for that.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        else:
            self._keeper.move(path, above, Span.between(entry.since_ns, now_ns), changed)
        changed.add(self._in_mirror(parent(path)))

    def _keep(self, path: bytes, until_ns: int, changed: set[bytes]) -> None:
        """What stands in the mirror at ``path`` has a second name among the versions, and may be replaced."""
        above = self.layout.root.directory(self._in_mirror(parent(path)))
        try:
            status = self._fs.lstat(name_of(path), at=above)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode):
            # Everything the index knows in it was removed before; the rest is not ours.
            self.layout.move_aside(self._in_mirror(path))
            return
        known = self.index.get(path)
        # What a kill left there before the journal could say so was the state only from its own time on.
        is_known = known is not None and (known.size, known.mtime_ns) == (status.st_size, status.st_mtime_ns)
        span = Span.between(known.since_ns if known is not None and is_known else status.st_mtime_ns, until_ns)
        self._keeper.keep(path, above, span, changed)

    def _in_mirror(self, path: bytes) -> bytes:
        return join(self._mirror, path) if path else self._mirror

    def _make_mirror_directory(self, path: bytes, changed: set[bytes]) -> None:
        changed.update(self.layout.make(self._in_mirror(path)))

    def _sync(self, directories: Iterable[bytes]) -> None:
        for path in sorted(directories):
            try:
                fd = self.layout.root.directory(path)
            except FileNotFoundError:
                continue  # emptied and removed in the same batch
            sync_directory(self._fs, fd)

    def _compact(self) -> None:
        live = len(self.index)
        if self._journal.is_bloated(live):
            with destination():
                self._journal.rewrite(self.index, self.session)

    def write_left_behind(self, document: dict[str, object]) -> None:
        """What the end could not save is listed durably, for the next start."""
        with destination():
            write_file(self._fs, self.state_fd, LEFT_BEHIND, json.dumps(document, indent=1).encode() + b"\n")

    def clear_left_behind(self) -> None:
        """Nothing is left behind."""
        with destination():
            try:
                self._fs.unlink(LEFT_BEHIND, at=self.state_fd)
            except FileNotFoundError:
                return
            sync_directory(self._fs, self.state_fd)

    def free_bytes(self) -> int:
        with destination():
            return self._fs.free_bytes(self.state_fd)

    def end_batch(self) -> None:
        """Descriptors that only the last batch needed are closed."""
        self.layout.root.forget()

    def close(self) -> None:
        self._journal.close()
        self._fs.close(self.staging_fd)
        self._fs.close(self.state_fd)
        self._fs.close(self._mirror_fd)
        self.layout.close()
