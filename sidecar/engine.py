"""One home and its place on Persist, coupled: what the finder finds, the saver saves, and both say how it went."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from sidecar.backup import left_behind
from sidecar.backup.persist import persist_errors
from sidecar.backup.store import Store
from sidecar.backup.tenancy import Tenancy
from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.crew import Crew
from sidecar.ending import Ending
from sidecar.entry import Entry, Kind
from sidecar.errors import UsageError
from sidecar.flush import Flush
from sidecar.fsops import DestinationError, FileSystem, Tree
from sidecar.gate import Gate
from sidecar.home.finder import Finder
from sidecar.home.links import make_save_link, session_of
from sidecar.home.scan import Scanner
from sidecar.intake import Intake
from sidecar.overview import Overview
from sidecar.recover import Recovery, recover
from sidecar.saving.saver import Saver
from sidecar.sqlite.databases import Databases
from sidecar.status import Status
from sidecar.trouble import Trouble

log = logging.getLogger(__name__)


class Engine:
    """Opens the home and the store; after that every method is for one thread, but for those that say otherwise."""

    def __init__(
        self,
        fs: FileSystem,
        clock: Clock,
        settings: Settings,
        wake: Callable[[], None],
        tenancy: Tenancy | None = None,
        *,
        hindrance: Callable[[], DestinationError | None] = lambda: None,
    ) -> None:
        """``wake`` is called on any thread when there is something to do for ``turn``.

        ``hindrance`` says why nothing may be written to Persist though nothing has failed. Raises ``UsageError`` where
        there is no home, ``PersistError`` where Persist cannot be used.
        """
        self._fs, self._clock, self._settings = fs, clock, settings
        try:
            self.home = Tree.at(fs, settings.home)
        except OSError as error:
            raise UsageError(f"no home at {settings.home}: {error.strerror}") from error
        with persist_errors(settings), ExitStack() as on_failure:
            on_failure.callback(self.home.close)
            self._crew = Crew()
            on_failure.callback(self._crew.close)
            self.store = Store(fs, clock, settings, self._crew, tenancy)
            on_failure.callback(self.store.close)
            make_save_link(fs, self.home.directory(b""), settings)
            self.store.begin_session(session_of(fs, self.home.directory(b""), clock))
            listed = left_behind.read(fs, self.store.place.state_fd)
            left_behind.take_ballast(fs, self.store.place.state_fd)
            on_failure.pop_all()
        mounts = frozenset(os.fsencode(name) for name in settings.mounts)
        self.scanner = Scanner(fs, self.home, mounts, settings.max_file_bytes)
        self.finder = Finder(
            clock,
            settings,
            self.home,
            scanner=self.scanner,
            databases=Databases(fs, self.home),
            index=self.store.index,
            wake=wake,
        )
        self.saver = Saver(
            fs,
            clock,
            settings,
            home=self.home,
            scanner=self.scanner,
            finder=self.finder,
            store=self.store,
            crew=self._crew,
            wake=wake,
        )
        self._intake = Intake(clock, self.finder, self.saver)
        self._gate = Gate(
            clock,
            settings,
            finder=self.finder,
            saver=self.saver,
            store=self.store,
            tenancy=tenancy,
            hindrance=hindrance,
        )
        self._flush = Flush(clock, self.finder, saver=self.saver, intake=self._intake, gate=self._gate)
        self._ending = Ending(
            fs,
            clock,
            settings,
            finder=self.finder,
            saver=self.saver,
            store=self.store,
            intake=self._intake,
            gate=self._gate,
            flush=self._flush,
            listed=listed,
        )
        self.recovery = Recovery()
        self.overview = Overview(
            clock,
            settings,
            self.home,
            scanner=self.scanner,
            finder=self.finder,
            saver=self.saver,
            index=self.store.index,
            gate=self._gate,
            ending=self._ending,
        )

    @property
    def trouble(self) -> Trouble:
        """What is the matter with Persist, as far as a call to it has said so."""
        return self._gate.trouble

    # The beginning.

    def hold(self, back: Sequence[tuple[bytes, Entry]]) -> None:
        """``back``, which came back when nothing could be written down, counts as held by this home.

        What of it is missing was deleted since. Only where the mirror still has what came back. Raises
        ``PersistError``.
        """
        with persist_errors(self._settings):
            self.store.record([(path, entry) for path, entry in back if self._is_in_mirror(path, entry)])

    def _is_in_mirror(self, path: bytes, entry: Entry) -> bool:
        known = self.store.index.get(path)
        if known is None or self.store.index.is_held(path) or known.kind is not entry.kind:
            return False
        return known.kind is Kind.DIRECTORY or (known.size, known.mtime_ns) == (entry.size, entry.mtime_ns)

    def recover(self, cancelled: Callable[[], bool], progress: Callable[[int, int], None]) -> None:
        """The home has what the mirror has. Raises ``PersistError``."""
        with persist_errors(self._settings):
            self.recovery = recover(
                self._fs, self.home, self.store, scanner=self.scanner, cancelled=cancelled, progress=progress
            )
        self.overview.restored_files = self.recovery.files
        if self.recovery.files or self.recovery.failed:
            log.info("%d files are back in the home, %d could not be brought back", *self._recovered())

    def _recovered(self) -> tuple[int, int]:
        return self.recovery.files, len(self.recovery.failed)

    # While the user works.

    def turn(self) -> None:
        """What is due now is found, and one batch of it is saved. Raises ``Fenced``."""
        self._intake.plan_due()
        if self.finder.walk_due(self._clock.monotonic(), len(self.saver)):
            self.finder.walk()
        self._intake.plan_backlog()
        if self._gate.can_step:
            self._gate.step()
            if not len(self.saver) and not self.trouble:
                # Nobody waits for it, as somebody does in a flush.
                self._crew.rest()
                self._gate.tidy()
        self.saver.porter.rest()

    def next_due_s(self) -> float:
        """When the next turn has something to do, on the monotonic clock."""
        now_s = self._clock.monotonic()
        if (self.finder.backlog and self._intake.has_room) or self.finder.walk_due(now_s, len(self.saver)):
            return now_s
        times = [self.finder.next_scan_s]
        if self.saver.can_step:
            times.append(self.trouble.not_before_s)
        for due_s in (
            self.finder.settle.next_due_s(),
            self.saver.books.retry.next_due_s(),
            self.saver.pace.next_due_s(),
            self.saver.porter.next_due_s(),
        ):
            if due_s is not None:
                times.append(due_s)
        return min(times)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing that changed waits, or is being saved."""
        return not (self.finder.untold or self.finder.settle or self.finder.backlog or len(self.saver))

    @property
    def untold(self) -> int:
        """How many paths have changed that no turn has looked at yet. For any thread."""
        return self.finder.untold

    @property
    def is_under_way(self) -> bool:
        """Whether something is being saved though the engine's thread waits. For any thread."""
        return self.saver.is_under_way

    def status(self, state: str, detail: str = "") -> Status:
        """How things stand. A ``watching`` sidecar with trouble is ``degraded``."""
        return self.overview.status(state, detail)

    # While somebody waits.

    def flush(self, *, catch_up_s: float, out_of_time: Callable[[], bool], accept_deletions: bool = False) -> bool:
        """As ``Flush.all``."""
        return self._flush.all(catch_up_s=catch_up_s, out_of_time=out_of_time, accept_deletions=accept_deletions)

    def flush_now(self, out_of_time: Callable[[], bool]) -> None:
        """As ``Flush.waiting``."""
        self._flush.waiting(out_of_time)

    # The end.

    def drain(self, out_of_time: Callable[[], bool], left_s: float = float("inf")) -> int:
        """As ``Ending.drain``."""
        return self._ending.drain(out_of_time, left_s)

    def close_books(self, *, late: bool) -> int:
        """As ``Ending.close_books``."""
        return self._ending.close_books(late=late)

    def give_up(self) -> None:
        """As ``Ending.give_up``, for any thread."""
        self._ending.give_up()

    def unsaved(self) -> dict[bytes, str]:
        """As ``Ending.unsaved``."""
        return self._ending.unsaved()

    def count_unsaved(self) -> int:
        """As ``Ending.count_unsaved``."""
        return self._ending.count_unsaved()

    def close(self) -> None:
        """Nothing is watched, copied or open any more."""
        for part in (self.finder, self.saver, self._crew, self.store, self.home):
            try:
                part.close()
            except OSError as error:
                # All that is safe was synced and its error told. What is closed now was only read.
                log.warning("closing: %s", error.strerror)
