"""From changed paths to safe copies: look, select, copy, journal. One thread decides, a few copy.

Whatever found a change, it comes in through ``plan`` and leaves through ``step``: there is one way to Persist.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from sidecar.brake import Brake
from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.copy import FULL, Cancelled, Copier, Source, Staged, does_not_fit
from sidecar.entry import Entry, Kind, name_of, parent
from sidecar.finder import GONE, Finder
from sidecar.fsops import READ_FLAGS, DestinationError, FileSystem, Tree
from sidecar.outcome import ChangedWhileReading, Failed, Outcome, Saved, Skipped, Vanished
from sidecar.retry import Retry
from sidecar.scan import Scanner
from sidecar.select import class_of
from sidecar.store import Store

log = logging.getLogger(__name__)

COPY_THREADS = 8
"""The best of 1, 8 and 32 for small files on a local disk, and a start for NFS (FACTS 4)."""

_BATCH_FILES = 256
_BATCH_BYTES = 64 << 20
"""What becomes safe together: enough to share the syncs, and soon over, so that a fresher change can go first."""

Job = tuple[bool, int, int, bytes]
"""Backlog, class, bytes, path: fresh changes before the backlog of a scan, then by what matters, then the small."""


_Copied = Staged | Vanished | ChangedWhileReading | Skipped | Failed


class Saver:
    """Writes what changed to the store. For one thread."""

    def __init__(
        self,
        fs: FileSystem,
        clock: Clock,
        settings: Settings,
        *,
        home: Tree,
        scanner: Scanner,
        finder: Finder,
        store: Store,
    ) -> None:
        self._fs, self._clock, self._home = fs, clock, home
        self._scanner, self._finder, self._store = scanner, finder, store
        self.cancelled: Callable[[], bool] = lambda: False
        self._copier = Copier(
            fs, clock, store.staging_fd, settings.max_file_bytes, clock.sleep, lambda: self.cancelled()
        )
        self._pool = ThreadPoolExecutor(COPY_THREADS, thread_name_prefix="copy")
        self._brake = Brake()
        self.retry = Retry()
        self._jobs: list[Job] = []
        self._entries: dict[bytes, Entry] = {}
        self._directories: dict[bytes, Entry] = {}
        self._gone: dict[bytes, None] = {}
        self._arrived: set[int] = set()
        self.failed: dict[bytes, str] = {}
        self.busy: set[bytes] = set()
        """What changed under every attempt to copy it: it may hold still the next time."""
        self.braked: set[bytes] = set()
        self.saved_at_ns: int | None = None

    # What is owed.

    def __len__(self) -> int:
        return len(self._entries) + len(self._directories) + len(self._gone)

    @property
    def queued_bytes(self) -> int:
        """The size of the files that wait to be copied."""
        return sum(entry.size for entry in self._entries.values())

    def owed(self) -> list[bytes]:
        """Every path that is not safe, though it should be: the most important first."""
        files = [path for *_, path in sorted(self._jobs)]
        return [*dict.fromkeys([*files, *self._directories, *self._gone, *self.retry.paths()])]

    # Planning.

    def plan(self, paths: Iterable[bytes], *, backlog: bool = False) -> None:
        """What stands at ``paths`` now is queued, unless it is safe already, left out, or not ours to save."""
        index = self._store.index
        for path in paths:
            if not path or self._scanner.skip_name(path) or self._finder.is_pruned(path):
                continue
            entry = self._look(path)
            if entry is None:
                continue
            known = index.get(path)
            if known is not None and known.same_as(entry) and index.is_held(path):
                self._settled(path)
                continue
            self._plan_ancestors(path)
            if entry.kind is Kind.DIRECTORY:
                self._directories[path] = entry
            else:
                if path not in self._entries:
                    heapq.heappush(self._jobs, (backlog, class_of(path, entry.size), entry.size, path))
                self._entries[path] = entry
        self._home.forget()

    def _look(self, path: bytes) -> Entry | None:
        """What stands at ``path``, if it is to be saved; what is gone is queued as gone."""
        try:
            status = self._scanner.status(path)
        except OSError as error:
            if error.errno not in GONE:
                self.failed[path] = f"cannot be read: {error.strerror}"
                self.retry.later(path, self._clock.monotonic())
            elif self._store.index.is_held(path):
                self._gone[path] = None
            else:
                self._settled(path)
            return None
        entry = Entry.of(status)
        reason = self._scanner.skip_status(status)
        if entry is None or reason is not None:
            self._settled(path)
            self._finder.skips.add(Skipped(path, reason or "not a file, a link or a directory"))
            return None
        self._finder.skips.discard(path)
        return entry

    def _plan_ancestors(self, path: bytes) -> None:
        """The directories above ``path`` that are not safe are queued; above one that is safe or queued, all are."""
        index = self._store.index
        while (path := parent(path)) and path not in self._directories:
            known = index.get(path)
            if known is not None and known.kind is Kind.DIRECTORY and index.is_held(path):
                return
            try:
                entry = Entry.of(self._scanner.status(path))
            except OSError:
                return  # gone again, and what was in it too
            if entry is not None and entry.kind is Kind.DIRECTORY:
                self._directories[path] = entry

    # Saving.

    def step(self) -> None:
        """One batch of what is queued is safe or accounted for. Raises ``DestinationError``: then it is still queued.

        Files before deletions: of a file that was moved there is at every moment at least one copy in the mirror.
        """
        try:
            if self._directories:
                self._save_directories()
            batch = self._next_batch()
            if batch:
                self._save_batch(batch)
            if not self._jobs:
                self._remove_gone()
        except Cancelled:
            log.info("cut short in the middle of a large file")
        finally:
            self._store.end_batch()
            self._home.forget()

    def _save_directories(self) -> None:
        directories = sorted(self._directories.items())
        self._account(self._make(directories))
        self._directories.clear()

    def _make(self, directories: Sequence[tuple[bytes, Entry]]) -> list[Outcome]:
        try:
            self._clear_the_way(directories)
            return [*self._store.make_directories(directories)]
        except DestinationError as error:
            if error.errno not in FULL:
                raise
            self._store.end_batch()
            if len(directories) == 1:
                return [Failed(directories[0][0], does_not_fit(error))]
        return [outcome for each in directories for outcome in self._make([each])]

    def _next_batch(self) -> list[Job]:
        batch: list[Job] = []
        size = 0
        while self._jobs and len(batch) < _BATCH_FILES and (not batch or size + self._jobs[0][2] <= _BATCH_BYTES):
            batch.append(heapq.heappop(self._jobs))
            size += batch[-1][2]
        return batch

    def _save_batch(self, batch: Sequence[Job]) -> None:
        files = [(job[-1], self._entries[job[-1]]) for job in batch]
        try:
            outcomes = self._put(files)
        except (DestinationError, Cancelled):
            for job in batch:
                heapq.heappush(self._jobs, job)
            raise
        for path, _ in files:
            del self._entries[path]
        self._account(outcomes)

    def _put(self, files: Sequence[tuple[bytes, Entry]]) -> list[Outcome]:
        """Every file is in the mirror or accounted for; on a full Persist one by one, for a small one may still fit."""
        try:
            self._clear_the_way(files)
            return self._copy(files)
        except DestinationError as error:
            if error.errno not in FULL:
                raise
            self._store.end_batch()
            if len(files) == 1:
                return [Failed(files[0][0], does_not_fit(error))]
        return [outcome for file in files for outcome in self._put([file])]

    def _clear_the_way(self, arriving: Sequence[tuple[bytes, Entry]]) -> None:
        """What the mirror holds where another kind of thing is to stand has become a version."""
        index = self._store.index
        doomed: list[bytes] = []
        for path, entry in arriving:
            known = index.get(path)
            if known is not None and (known.kind is Kind.DIRECTORY) != (entry.kind is Kind.DIRECTORY):
                doomed += [*index.below(path), path]
        if doomed:
            self._store.remove(doomed)

    def _copy(self, files: Sequence[tuple[bytes, Entry]]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        identical: list[tuple[bytes, Entry]] = []
        copies: list[tuple[Source, bytes]] = []
        for path, entry in files:
            try:
                directory_fd = self._home.directory(parent(path))
            except OSError:
                outcomes.append(Vanished(path))
                continue
            if self._is_in_mirror(path, entry, directory_fd):
                known = self._store.index.get(path)
                since_ns = min(known.since_ns, entry.since_ns) if known else entry.since_ns
                identical.append((path, entry._replace(since_ns=since_ns)))
            else:
                copies.append((Source(path, directory_fd, entry.size), self._store.staging_name()))
        self._store.record(identical)
        outcomes += [Saved(path, entry) for path, entry in identical]
        results = self._stage(copies)
        outcomes += [result for result in results if not isinstance(result, Staged)]
        staged = [result for result in results if isinstance(result, Staged)]
        try:
            outcomes += self._store.commit(staged)
        except DestinationError:
            for each in staged:
                self._store.discard(each)
            raise
        return outcomes

    def _stage(self, copies: Sequence[tuple[Source, bytes]]) -> list[_Copied]:
        """Every source is staged and durable, or accounted for; after an error nothing stays staged."""
        written = [self._pool.submit(self._copier.stage, source, name) for source, name in copies]
        wait(written)
        results = [future.result() for future in written if future.exception() is None]
        staged = [result for result in results if isinstance(result, Staged)]
        if len(results) < len(written):
            for each in staged:
                self._copier.abandon(each)
            raise next(error for future in written if (error := future.exception()) is not None)
        hardened = [self._pool.submit(self._copier.harden, each) for each in staged]
        wait(hardened)
        errors = [error for future in hardened if (error := future.exception()) is not None]
        if errors:
            for each in staged:
                self._store.discard(each)
            raise errors[0]
        others: list[_Copied] = [result for result in results if not isinstance(result, Staged)]
        return others + [future.result() for future in hardened]

    def _is_in_mirror(self, path: bytes, entry: Entry, directory_fd: int) -> bool:
        """Whether the mirror has this very content already: asked only where the journal cannot know."""
        index = self._store.index
        known = index.get(path)
        if known is None or index.is_held(path) or entry.kind is not Kind.FILE or known.size != entry.size:
            return False
        try:
            fd = self._fs.open(name_of(path), READ_FLAGS, at=directory_fd)
        except OSError:
            return False
        try:
            return self._store.holds_content(path, fd)
        finally:
            self._fs.close(fd)

    # Removing.

    def _remove_gone(self) -> None:
        arrived, self._arrived = self._arrived, set()
        if not self._gone and not self.braked:
            return
        index = self._store.index
        gone = [path for path in dict.fromkeys([*self._gone, *self.braked]) if self._is_gone(path)]
        doomed = self._held_below(gone)
        # What arrived under another name meanwhile was moved, not deleted.
        files = [
            path
            for path in doomed
            if (entry := index.get(path)) and entry.kind is not Kind.DIRECTORY and entry.ino not in arrived
        ]
        if not self._brake.allows(len(files), index.held_files, self._clock.monotonic()):
            if not self.braked:
                log.error(
                    "%d of %d files vanished at once: nothing leaves the backup until you accept it",
                    len(files),
                    index.held_files,
                )
            self.braked.update(gone)
            self._gone.clear()
            return
        self._remove(gone, doomed)
        self._brake.note(len(files), self._clock.monotonic())

    def accept_deletions(self) -> None:
        """What the brake holds back has left the mirror, as versions. Raises ``DestinationError``."""
        gone = [path for path in self.braked if self._is_gone(path)]
        self._remove(gone, self._held_below(gone))
        self._brake = Brake()

    def _remove(self, gone: Sequence[bytes], doomed: Sequence[bytes]) -> None:
        directories = [p for p in gone if (entry := self._store.index.get(p)) and entry.kind is Kind.DIRECTORY]
        self._store.remove(doomed)
        self._gone.clear()
        self.braked.clear()
        for path in directories:
            self._finder.forget_directory(path)
        for path in doomed:
            self._settled(path)

    def _held_below(self, paths: Iterable[bytes]) -> list[bytes]:
        index = self._store.index
        found = (below for path in paths for below in [*index.below(path), path])
        return [path for path in dict.fromkeys(found) if index.is_held(path)]

    def _is_gone(self, path: bytes) -> bool:
        try:
            self._scanner.status(path)
        except OSError as error:
            if error.errno in GONE:
                return True
            self.retry.later(path, self._clock.monotonic())  # nobody knows yet
        return False

    # The books.

    def _account(self, outcomes: Iterable[Outcome]) -> None:
        now_s = self._clock.monotonic()
        for outcome in outcomes:
            path = outcome.path
            if isinstance(outcome, ChangedWhileReading):
                self.failed[path] = "changes all the time: the backup holds its last whole version"
                self.busy.add(path)
                self.retry.later(path, now_s)
            elif isinstance(outcome, Failed):
                self.failed[path] = outcome.reason
                self.retry.later(path, now_s)
            else:
                self._settled(path)
                if isinstance(outcome, Skipped):
                    self._finder.skips.add(outcome)
                elif isinstance(outcome, Saved):
                    self.saved_at_ns = self._clock.now_ns()
                    self._arrived.add(outcome.entry.ino)
                elif isinstance(outcome, Vanished):
                    self._finder.settle.touch(path, now_s)

    def _settled(self, path: bytes) -> None:
        self.failed.pop(path, None)
        self.busy.discard(path)
        self.retry.forget(path)

    def close(self) -> None:
        """The threads end; what is queued stays undone."""
        self._pool.shutdown(wait=False, cancel_futures=True)
