"""From changed paths to safe copies: look, select, copy, journal. One thread decides, many copy.

Whatever found a change, it comes in through ``plan`` and leaves through ``step``: there is one way to Persist.
"""

from __future__ import annotations

import logging
import resource
from collections.abc import Callable, Iterable

from sidecar.backup.moves import Move
from sidecar.backup.store import Store
from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.copy import FULL, Cancelled, Copier, Staged, does_not_fit
from sidecar.crew import Crew
from sidecar.entry import Entry, Kind, ancestors, legible, parent
from sidecar.fsops import DestinationError, FileSystem, Tree
from sidecar.home.finder import GONE, Finder
from sidecar.home.scan import Scanner
from sidecar.outcome import ChangedWhileReading, Failed, Outcome, Saved, Skipped, Vanished
from sidecar.saving.batch import BatchCopier
from sidecar.saving.jobs import APART_BYTES, Jobs, Wanted
from sidecar.saving.lane import Arrived, Lane
from sidecar.saving.pace import Pace
from sidecar.saving.porter import WORTHWHILE, Delivered, Porter, PorterGone
from sidecar.saving.removal import Removal
from sidecar.saving.retry import Retry
from sidecar.select import may_be_core
from sidecar.sqlite.copy import DatabaseCopier
from sidecar.sqlite.files import COMPANION_SUFFIXES, companions_of

log = logging.getLogger(__name__)

_BATCH_FILES = 256
_LARGE_BATCH_FILES = 2048
_BATCH_BYTES = 64 << 20
"""What becomes safe together: enough to share the syncs, and soon over, so that a fresher change can go first."""

_DESCRIPTORS_PER_FILE = 6


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
        crew: Crew,
        wake: Callable[[], None],
    ) -> None:
        self._clock, self._home = clock, home
        self._scanner, self._finder, self._store = scanner, finder, store
        self.cancelled: Callable[[], bool] = lambda: False
        copier = Copier(
            fs, clock, store.place.staging_fd, settings.max_file_bytes, clock.sleep, lambda: self.cancelled()
        )
        self._batch = BatchCopier(fs, home, store, copier=copier, crew=crew)
        databases = DatabaseCopier(fs, clock, store.place.staging_fd, settings.max_file_bytes, lambda: self.cancelled())
        self.lane = Lane(fs, clock, copier, databases, wake)
        self.porter = Porter(
            clock,
            home.directory(b""),
            store.place.staging_fd,
            max_file_bytes=settings.max_file_bytes,
            wake=wake,
        )
        self._arrived: list[Arrived] = []
        self._jobs = Jobs()
        self._removal = Removal(clock, store, is_gone=self._is_gone, on_removed=self._removed)
        self.pace = Pace()
        self.retry = Retry()
        self.failed: dict[bytes, str] = {}
        self.busy: set[bytes] = set()
        """What changed under every attempt to copy it: it may hold still the next time."""
        self.saved_at_ns: int | None = None

    # What is owed.

    def __len__(self) -> int:
        return len(self._jobs) + len(self.lane) + len(self.porter) + len(self._arrived)

    @property
    def can_step(self) -> bool:
        """Whether ``step`` has anything to do now: it does not wait for large copies, whose end wakes everybody."""
        can_begin = self.lane.is_free and self._jobs.large_ready(self.lane)
        if bool(self._arrived) or self.lane.has_arrived or self.porter.has_arrived or can_begin or self._can_remove:
            return True
        return self._jobs.ready() and (self.porter.is_free or not self._for_porter)

    @property
    def _can_remove(self) -> bool:
        """Files before deletions: of a file that was moved there is at every moment a copy in the mirror."""
        return bool(self._jobs.gone) and not self._jobs.files and not len(self.porter)

    @property
    def _for_porter(self) -> bool:
        """Whether the next batch is one for the porter."""
        waiting = self._jobs.waiting_in_mass() if self.porter.is_usable and self._store.durable.at_once else 0
        return waiting > (0 if len(self.porter) else WORTHWHILE)

    def wait(self, seconds: float) -> None:
        """Waits until something that is under way has ended, at most that long."""
        if len(self.lane):
            self.lane.wait(seconds)
        else:
            self.porter.wait(seconds)

    @property
    def owed_bytes(self) -> int:
        """The size of the files that are not safe, as far as it is known."""
        return self._jobs.total_bytes + self.lane.total_bytes

    @property
    def braked(self) -> set[bytes]:
        """Deletions that wait to be accepted."""
        return self._removal.braked

    def owed(self) -> list[bytes]:
        """Every path that is not safe, though it should be: the most important first."""
        arrived = [*(each.path for each in self._arrived), *(path for path, _ in self.porter.files())]
        waiting = [*self.pace.waiting(), *self.retry.paths()]
        return [*dict.fromkeys([*self._jobs.paths(), *arrived, *self.lane.paths(), *waiting])]

    # Planning.

    def plan(self, paths: Iterable[bytes]) -> None:
        """What stands at ``paths`` now is queued, unless it is safe already, left out, or not ours to save."""
        safe: set[bytes] = set()
        for path in dict.fromkeys(map(self._instead, paths)):
            if path and not self._finder.is_left_out(path) and (entry := self._look(path)) is not None:
                self._queue(path, entry, bulk=False, safe=safe)
        self._home.forget()

    def _instead(self, path: bytes) -> bytes:
        """The path to look at when ``path`` changed: of a database's log, the database; empty where none is."""
        part = self._finder.databases.companion(path) if path.endswith(COMPANION_SUFFIXES) else None
        if part is None:
            return path
        self._finder.skips.add(part[0])
        return part[1] or b""

    def plan_backlog(self, found: Iterable[tuple[bytes, Entry | None]]) -> None:
        """As ``plan``, after everything that is fresh; what a walk has just seen is not looked at again."""
        safe: set[bytes] = set()
        for path, seen in found:
            if seen is not None:
                self._queue(path, seen, bulk=True, safe=safe)
            elif (place := self._instead(path)) and not self._finder.is_left_out(place):
                entry = self._look(place)
                if entry is not None:
                    self._queue(place, entry, bulk=True, safe=safe)
        self._home.forget()

    def _queue(self, path: bytes, entry: Entry, *, bulk: bool, safe: set[bytes]) -> None:
        """``path`` is owed, unless the mirror has it. ``safe`` are directories that it has, for sure."""
        index = self._store.index
        known = index.get(path)
        is_held = known is not None and index.is_held(path)
        if known is not None and is_held and known.same_as(entry):
            self._settled(path)
            return
        if self.porter.carries(path, entry) or self.lane.carries(path, entry):
            return
        if parent(path) not in safe:
            self._plan_ancestors(path)
            safe.add(parent(path))
        if entry.kind is Kind.DIRECTORY:
            self._jobs.directories[path] = entry
        elif not (entry.size > APART_BYTES and self.pace.holds_back(path, self._clock.monotonic())):
            may_be_there = known is not None and not is_held and entry.kind is Kind.FILE and known.size == entry.size
            wanted = Wanted(
                entry,
                may_be_core=may_be_core(path, entry.size) and not self._scanner.is_brought_back(path),
                mapped=self._finder.may_be_mapped(path),
                is_database=path in self._finder.databases,
                may_be_there=may_be_there,
            )
            self._jobs.add(path, wanted, bulk=bulk)

    def plan_moves(self, moves: Iterable[Move]) -> None:
        """Directories that were renamed are renamed in the mirror too, first of all."""
        for move in moves:
            self._jobs.add_move(move)

    def _look(self, path: bytes) -> Entry | None:
        """What stands at ``path``, if it is to be saved; what is gone is queued as gone."""
        try:
            status = self._scanner.status(path)
            entry = Entry.of(status)
            if entry is not None:
                entry = self._finder.databases.entry(path, entry)
        except OSError as error:
            if error.errno not in GONE:
                self.failed[path] = f"cannot be read: {error.strerror}"
                self.retry.later(path, self._clock.monotonic())
            elif self._store.index.is_held(path):
                self._jobs.gone[path] = None
            else:
                self._settled(path)
            return None
        reason = self._scanner.skip(path, status)
        if entry is None or reason is not None:
            self._settled(path)
            self._finder.skips.add(Skipped(path, reason or "not a file, a link or a directory"))
            return None
        self._finder.skips.discard(path)
        return entry

    def _plan_ancestors(self, path: bytes) -> None:
        """The directories above ``path`` that are not safe are queued; above one that is safe or queued, all are."""
        index = self._store.index
        while (path := parent(path)) and path not in self._jobs.directories:
            known = index.get(path)
            if known is not None and known.kind is Kind.DIRECTORY and index.is_held(path):
                return
            try:
                entry = Entry.of(self._scanner.status(path))
            except OSError:
                return  # gone again, and what was in it too
            if entry is not None and entry.kind is Kind.DIRECTORY:
                self._jobs.directories[path] = entry

    # Saving.

    def step(self) -> None:
        """One batch of what is queued is safe or accounted for. Raises ``DestinationError``: it is queued still."""
        try:
            self._move_directories()
            if self._jobs.directories:
                self._account(self._batch.save_directories(sorted(self._jobs.directories.items())))
                self._jobs.directories.clear()
            self._begin_large()
            self._save_small()
            self._finish_large()
            if not self._jobs.files and not len(self.porter):
                self._removal.remove(self._jobs.gone)
        except Cancelled:
            log.info("cut short in the middle of a large file")
        finally:
            self._store.place.end_batch()
            self._home.forget()

    def _move_directories(self) -> None:
        finished = self._store.finish_move()
        if finished is not None:
            for path in (finished.old, finished.new):
                self._finder.read_moved(path)
        while self._jobs.moves:
            move = self._jobs.moves[0]
            if self._is_moved(move.old, move.new):
                for path in self._unsaved_above(move.new):
                    self._account(self._batch.save_directories([(path, self._jobs.directories.pop(path))]))
                if self._store.move(move):
                    log.info("%s is %s now", legible(move.old), legible(move.new))
            del self._jobs.moves[0]
            # Whatever differs, or could not be moved, is found here.
            self._finder.read_moved(move.new)

    def _is_moved(self, old: bytes, new: bytes) -> bool:
        """Whether the home has now at ``new`` what it had at ``old``, and the mirror has nothing of ours there."""
        index = self._store.index
        if index.get(old) is None or index.get(new) is not None or any(index.below(new)) or not self._is_gone(old):
            return False
        entry = self._look(new)
        return entry is not None and entry.kind is Kind.DIRECTORY and not self._finder.is_left_out(new)

    def _unsaved_above(self, path: bytes) -> list[bytes]:
        self._plan_ancestors(path)
        return [above for above in ancestors(path) if above in self._jobs.directories]

    def _save_small(self) -> None:
        delivered = self._take_delivered() if self.porter.has_arrived else None
        try:
            # Begun first: it is staged while the one before is committed.
            if self.porter.is_free and self._for_porter:
                self._begin_batch()
        finally:
            if delivered is not None:
                self._finish_batch(delivered)
        if delivered is None and not self._for_porter:
            self._save_batch()

    def _save_batch(self) -> None:
        batch = self._jobs.take_batch(_batch_files(at_once=self._store.durable.at_once), _BATCH_BYTES)
        if not batch:
            return
        try:
            outcomes = self._batch.save(batch)
        except (DestinationError, Cancelled):
            self._jobs.put_back(batch)
            raise
        self._account(outcomes)

    def _begin_batch(self) -> None:
        batch = self._jobs.take_batch(_batch_files(at_once=True), _BATCH_BYTES)
        rest = [(path, wanted) for path, wanted in batch if wanted.may_be_there]
        files = [(path, wanted) for path, wanted in batch if not wanted.may_be_there]
        try:
            if files:
                self.porter.begin(files, [self._store.place.staging_name() for _ in files])
        except OSError as error:
            log.warning("no second process for a mass of files: %s", error.strerror)
            self.porter.is_usable = False
            rest = batch
        self._jobs.put_back(rest)

    def _take_delivered(self) -> Delivered | None:
        files = self.porter.files()
        try:
            return self.porter.take()
        except PorterGone as error:
            log.warning("the process for masses of files ended: %s", error)
            self._jobs.put_back(files, bulk=True)
            return None

    def _finish_batch(self, delivered: Delivered) -> None:
        try:
            outcomes = self._batch.finish(delivered.files, delivered.results)
        except DestinationError:
            self._jobs.put_back(delivered.files, bulk=True)
            raise
        self._account(outcomes)

    def _begin_large(self) -> None:
        while self.lane.is_free and (taken := self._jobs.take_large(self.lane)):
            path, wanted = taken
            if wanted.entry.size > APART_BYTES and self.pace.holds_back(path, self._clock.monotonic()):
                continue
            try:
                directory_fd = self._home.directory(parent(path))
                self.lane.begin(path, wanted, directory_fd, self._store.place.staging_name())
            except OSError:
                self._account([Vanished(path)])

    def _finish_large(self) -> None:
        self._arrived += self.lane.take_arrived()
        while self._arrived:
            arrived = self._arrived.pop(0)
            try:
                outcome = self._land(arrived)
            except (DestinationError, Cancelled):
                self._jobs.add(arrived.path, arrived.wanted, bulk=False)
                raise
            self.pace.copied(arrived.path, arrived.began_s, arrived.ended_s)
            self._account([outcome])

    def _land(self, arrived: Arrived) -> Outcome:
        result = arrived.result
        if isinstance(result, DestinationError | Cancelled):
            raise result
        if not isinstance(result, Staged):
            return result
        if self._is_gone(result.path):
            # With its directory, as no other change of it would be: nobody would ever look for it where it was.
            self._store.discard(result)
            return Vanished(result.path)
        try:
            self._store.clear_the_way([(result.path, result.entry)])
            if arrived.wanted.is_database:
                # A log beside a database that is whole without it would be played into it.
                self._store.remove(companions_of(result.path))
            return self._batch.commit([result])[0]
        except DestinationError as error:
            if error.errno not in FULL:
                raise
            return Failed(result.path, does_not_fit(error))

    # Removing.

    def accept_deletions(self) -> None:
        """What the brake holds back has left the mirror, as versions. Raises ``DestinationError``."""
        self._removal.accept()

    def _is_gone(self, path: bytes) -> bool:
        try:
            self._scanner.status(path)
        except OSError as error:
            if error.errno in GONE:
                return True
            self.retry.later(path, self._clock.monotonic())  # nobody knows yet
        return False

    def _removed(self, path: bytes, was_directory: bool) -> None:
        if was_directory:
            self._finder.forget_directory(path)
        self._settled(path)

    # The books.

    def _account(self, outcomes: Iterable[Outcome]) -> None:
        now_s = self._clock.monotonic()
        for outcome in outcomes:
            path = outcome.path
            if isinstance(outcome, ChangedWhileReading):
                self.failed[path] = "changes all the time: the backup holds its last whole version"
                self.busy.add(path)
                self._finder.databases.note_if_one(path)
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
                    self._removal.arrived(outcome.entry.ino)
                elif isinstance(outcome, Vanished):
                    self._finder.settle.touch(path, now_s)

    def _settled(self, path: bytes) -> None:
        self.failed.pop(path, None)
        self.busy.discard(path)
        self.retry.forget(path)

    def close(self) -> None:
        """The threads and the second process end; what is queued stays undone."""
        self.lane.close()
        self.porter.close()


def _batch_files(*, at_once: bool) -> int:
    """How many files make a batch: many where they are synced as a whole, and descriptors are enough."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(_LARGE_BATCH_FILES if at_once else _BATCH_FILES, max(16, limit // _DESCRIPTORS_PER_FILE - 64))
