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
from sidecar.entry import Kind, legible, parent
from sidecar.fsops import DestinationError, FileSystem, Tree
from sidecar.home.finder import Finder
from sidecar.home.scan import Scanner
from sidecar.outcome import ChangedWhileReading, Failed, Outcome, Saved, Skipped, Vanished
from sidecar.saving.batch import BatchCopier
from sidecar.saving.books import Books
from sidecar.saving.jobs import APART_BYTES, Jobs
from sidecar.saving.lane import Arrived, Copied, Lane
from sidecar.saving.pace import Pace
from sidecar.saving.planner import Planner
from sidecar.saving.porter import WORTHWHILE, Delivered, File, Porter, PorterGone
from sidecar.saving.removal import Removal
from sidecar.sqlite.copy import DatabaseCopier
from sidecar.sqlite.files import companions_of

log = logging.getLogger(__name__)

_LARGE_BATCH_FILES = 2048
_BATCH_FILES = 1024
"""Where every call waits: in so many directories that the threads seldom wait for each other; saved in about 1 s."""
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
        self._clock, self._home, self._finder, self._store = clock, home, finder, store
        self.cancelled: Callable[[], bool] = lambda: False
        copier = Copier(
            fs, clock, store.place.staging_fd, settings.max_file_bytes, clock.sleep, lambda: self.cancelled()
        )
        self._batch = BatchCopier(fs, home, store, copier=copier, crew=crew)
        databases = DatabaseCopier(
            fs,
            clock,
            store.place.staging_fd,
            settings.max_file_bytes,
            lambda: self.cancelled(),
            finder.databases.note_unreadable,
        )
        self.lane = Lane(fs, clock, copier, databases, wake)
        self.porter = Porter(
            clock,
            home.directory(b""),
            store.place.staging_fd,
            max_file_bytes=settings.max_file_bytes,
            wake=wake,
        )
        self._arrived: list[Arrived] = []
        self._in_hand: list[File] = []
        """The batch that is being saved by this thread."""
        self._jobs = Jobs()
        self.pace = Pace()
        self.books = Books(clock)
        self.planner = Planner(
            home=home,
            scanner=scanner,
            finder=finder,
            index=store.index,
            jobs=self._jobs,
            books=self.books,
            is_under_way=lambda path, entry: self.porter.carries(path, entry) or self.lane.carries(path, entry),
            holds_back=lambda path: self.pace.holds_back(path, clock.monotonic()),
        )
        self._removal = Removal(clock, store, is_gone=self.planner.is_gone, on_removed=self._removed)

    # What is owed.

    def __len__(self) -> int:
        return len(self._jobs) + len(self.lane) + len(self.porter) + len(self._arrived)

    @property
    def is_under_way(self) -> bool:
        """Whether something is being copied by others than the thread that calls ``step``. For any thread."""
        return bool(len(self.lane)) or bool(len(self.porter))

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
        arrived = [
            *(each.path for each in self._arrived),
            *(path for path, _ in [*self._in_hand, *self.porter.files()]),
        ]
        waiting = [*self.pace.waiting(), *self.books.retry.paths()]
        return [*dict.fromkeys([*self._jobs.paths(), *arrived, *self.lane.paths(), *waiting])]

    def plan_moves(self, moves: Iterable[Move]) -> None:
        """Directories that were renamed are renamed in the mirror too, first of all."""
        for move in moves:
            self._jobs.add_move(move)

    # Saving.

    def step(self) -> None:
        """One batch of what is queued is safe or accounted for. Raises ``DestinationError``: it is queued still."""
        try:
            self._move_directories()
            self._save_directories()
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

    def _save_directories(self) -> None:
        waiting = sorted(self._jobs.directories.items())
        # One that was moved away meanwhile would stay in the mirror, and nobody would look for it.
        standing = [each for each in waiting if self.planner.may_be_directory(each[0])]
        if standing:
            self._account(self._batch.save_directories(standing))
        self._jobs.directories.clear()

    def _move_directories(self) -> None:
        finished = self._store.finish_move()
        if finished is not None:
            for path in (finished.old, finished.new):
                self._finder.read_moved(path)
        while self._jobs.moves:
            move = self._jobs.moves[0]
            if self._is_moved(move.old, move.new):
                for path in self.planner.unsaved_above(move.new):
                    self._account(self._batch.save_directories([(path, self._jobs.directories.pop(path))]))
                if self._store.move(move):
                    log.info("%s is %s now", legible(move.old), legible(move.new))
            del self._jobs.moves[0]
            # Whatever differs, or could not be moved, is found here.
            self._finder.read_moved(move.new)

    def _is_moved(self, old: bytes, new: bytes) -> bool:
        """Whether the home has now at ``new`` what it had at ``old``, and the mirror has nothing of ours there."""
        index = self._store.index
        if index.get(old) is None or index.get(new) is not None or any(index.below(new)):
            return False
        if not self.planner.is_gone(old):
            return False
        entry = self.planner.look(new)
        return entry is not None and entry.kind is Kind.DIRECTORY and not self._finder.is_left_out(new)

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
        self._in_hand = batch
        try:
            outcomes = self._batch.save(batch)
        except (DestinationError, Cancelled):
            self._jobs.put_back(batch)
            raise
        finally:
            self._in_hand = []
        self._account(outcomes)

    def _begin_batch(self) -> None:
        batch = self._jobs.take_batch(_batch_files(at_once=True), _BATCH_BYTES)
        rest = [(path, wanted) for path, wanted in batch if wanted.may_be_there]
        files = [(path, wanted) for path, wanted in batch if not wanted.may_be_there]
        try:
            if files:
                self.porter.begin(files, [self._store.place.staging_name() for _ in files])
        except OSError as error:
            log.warning("no second process for a mass of files: %s", error)
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
        """What was staged is safe, but for what is not in the home any more as it was staged: a newer state may be.

        Raises ``DestinationError`` and ``Cancelled``: then all of it is owed again.
        """
        files: list[File] = []
        results: list[Copied | DestinationError] = []
        stale: list[bytes] = []
        for file, result in zip(delivered.files, delivered.results, strict=True):
            if isinstance(result, Staged) and not self.planner.is_still(result.path, result.entry):
                self._store.discard(result)
                stale.append(result.path)
            else:
                files.append(file)
                results.append(result)
        self.planner.plan(stale)
        self._store.durable.begin_batch()
        if not self._store.durable.at_once:
            # What nobody has synced by itself is staged once more, and then it is.
            self._batch.discard_all(results)
            self._jobs.put_back(files, bulk=True)
            return
        try:
            outcomes = self._batch.finish(files, results)
        except (DestinationError, Cancelled):
            self._jobs.put_back(files, bulk=True)
            raise
        self._account(outcomes)

    def _begin_large(self) -> None:
        while self.lane.is_free and (taken := self._jobs.take_large(self.lane)):
            path, wanted = taken
            if wanted.entry.size > APART_BYTES and self.pace.holds_back(path, self._clock.monotonic()):
                continue
            try:
                directory_fd = self._home.directory(parent(path))
                replaced = self._store.index.get(path)
                self.lane.begin(path, wanted, directory_fd, self._store.place.staging_name(), replaced=replaced)
            except OSError:
                self._account([Vanished(path)])

    def _finish_large(self) -> None:
        self._arrived += self.lane.take_arrived()
        while self._arrived:
            arrived = self._arrived.pop(0)
            try:
                outcome = self._land(arrived)
            except (DestinationError, Cancelled):
                self._jobs.put_back([(arrived.path, arrived.wanted)])
                raise
            self.pace.copied(arrived.path, arrived.began_s, arrived.ended_s)
            self._account([outcome])

    def _land(self, arrived: Arrived) -> Outcome:
        result = arrived.result
        if isinstance(result, DestinationError | Cancelled):
            raise result
        if not isinstance(result, Staged):
            return result
        if not self._may_land(arrived, result):
            self._store.discard(result)
            return Vanished(result.path)
        try:
            if arrived.wanted.is_database:
                self._land_companions(result.path)
            return self._batch.commit([result])[0]
        except DestinationError as error:
            self._store.discard(result)
            if error.errno not in FULL:
                raise
            return Failed(result.path, does_not_fit(error))

    def _land_companions(self, path: bytes) -> None:
        companions = companions_of(path)
        if self._finder.databases.is_unreadable(path):
            self._finder.put_off(companions)  # files like any other
        else:
            # A log beside a database that is whole without it would be played into it.
            self._store.remove(companions)

    def _may_land(self, arrived: Arrived, staged: Staged) -> bool:
        """Whether nothing newer is in the mirror, and the home still has a file of this name.

        The file itself may have changed again: of one that changes all the time the backup has the last whole state.
        With a directory that was moved away it is gone, and nobody would ever look for it where it was.
        """
        is_newest = self._store.index.get(staged.path) == arrived.replaced
        return is_newest and self.planner.kind(staged.path) is staged.entry.kind

    # Removing.

    def accept_deletions(self) -> None:
        """What the brake holds back has left the mirror, as versions. Raises ``DestinationError``."""
        self._removal.accept()

    def _removed(self, path: bytes, was_directory: bool) -> None:
        if was_directory:
            self._finder.forget_directory(path)
        self.books.settle(path)

    # The books.

    def _account(self, outcomes: Iterable[Outcome]) -> None:
        books = self.books
        for outcome in outcomes:
            path = outcome.path
            if isinstance(outcome, ChangedWhileReading):
                books.fail(path, "changes all the time: the backup holds its last whole version")
                books.busy.add(path)
                self._finder.databases.note_if_one(path)
            elif isinstance(outcome, Failed):
                books.fail(path, outcome.reason)
            else:
                books.settle(path)
                if isinstance(outcome, Skipped):
                    self._finder.skips.add(outcome)
                elif isinstance(outcome, Saved):
                    books.saved_at_ns = self._clock.now_ns()
                elif isinstance(outcome, Vanished):
                    self._finder.settle.touch(path, self._clock.monotonic())

    def start_anew(self) -> None:
        """The staging directory is another one: what is being staged in the old one is owed again."""
        self._jobs.put_back(self.porter.drop(), bulk=True)

    def close(self) -> None:
        """The threads and the second process end; what is queued stays undone."""
        self.lane.close()
        self.porter.close()


def _batch_files(*, at_once: bool) -> int:
    """How many files make a batch: many where they are synced as a whole, and descriptors are enough."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(_LARGE_BATCH_FILES if at_once else _BATCH_FILES, max(16, limit // _DESCRIPTORS_PER_FILE - 64))
