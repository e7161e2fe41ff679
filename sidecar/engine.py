"""One home and its place on Persist, coupled: what the finder finds, the saver saves, and both say how it went."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from itertools import islice

from sidecar import errors
from sidecar.backup import left_behind
from sidecar.backup.persist import explain, persist_errors
from sidecar.backup.store import Store
from sidecar.backup.tenancy import Tenancy
from sidecar.clock import Clock, iso
from sidecar.config import Settings
from sidecar.crew import Crew
from sidecar.entry import Entry, Kind, legible
from sidecar.errors import UsageError
from sidecar.fsops import DestinationError, FileSystem, Tree
from sidecar.home import ignore
from sidecar.home.finder import Finder
from sidecar.home.links import make_save_link, session_of
from sidecar.home.scan import Scanner
from sidecar.overview import Overview
from sidecar.recover import Recovery, recover
from sidecar.saving.saver import Saver
from sidecar.select import Class, class_of
from sidecar.sqlite.databases import Databases
from sidecar.status import Status, path_fields, size_text
from sidecar.trouble import Trouble

log = logging.getLogger(__name__)

_DRAIN_FILES_PER_S, _DRAIN_BYTES_PER_S = 1000, 50 << 20
"""With more than this to save at the end what is owed is written down before it is begun: later may be too late."""
_DRAIN_ROUNDS = 4
_DRAIN_SCANS = 3
"""Events may be lost, or heard to be lost, while one goes on, and while what it found is saved."""
_BULK = 1000
"""More changes than this at once are a mass, and whatever changes after them goes first."""
_GLANCES = 5
_PLANNED = 2048
"""As many paths of the backlog are looked at in one turn: it must not hold up what is fresh."""
_ROOM = 3 * _PLANNED
"""A backlog waits while so much is being saved: one batch under way, one being committed, one ready."""
_LISTED = 1000
"""As many paths are named of what is left behind."""
_RETRY_S = 0.5
"""Persist in trouble is tried again so often when somebody waits for it."""
_PAUSE_S = 0.1
"""The longest wait that nothing interrupts: the end is to be in time."""
_LOOK_EVERY_S = 10.0
"""Between two looks at whether the backup still lies where everybody looks for it, while something is saved."""
_TOGETHER_S = 0.02
"""Events this close together are looked at together."""


class Engine:
    """Opens the home and the store; after that every method is for one thread."""

    def __init__(
        self,
        fs: FileSystem,
        clock: Clock,
        settings: Settings,
        wake: Callable[[], None],
        tenancy: Tenancy | None = None,
    ) -> None:
        """Raises ``UsageError`` where there is no home, ``PersistError`` where Persist cannot be used."""
        self._fs, self._clock, self._settings, self._tenancy = fs, clock, settings, tenancy
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
        self.recovery = Recovery()
        self.trouble = Trouble(clock, settings.persist)
        self.overview = Overview(
            clock,
            settings,
            self.home,
            scanner=self.scanner,
            finder=self.finder,
            saver=self.saver,
            index=self.store.index,
            trouble=self.trouble,
        )
        self.overview.left_behind = listed
        self.hindrance: Callable[[], DestinationError | None] = lambda: None
        """Why nothing may be written to Persist though nothing has failed."""
        self._room_next_s = 0.0
        self._late: dict[bytes, str] = {}
        """What was not safe when the time was up."""
        self._look_next_s = clock.monotonic()

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
        """What is due now is found, and one batch of it is saved."""
        self._take_changes()
        now_s = self._clock.monotonic()
        # Both halves of a move, which come as two events.
        self._plan_fresh(self.finder.settle.take_due(now_s + _TOGETHER_S))
        self.saver.planner.plan([*self.saver.books.retry.take_due(now_s), *self.saver.pace.take_due(now_s)])
        if self.finder.walk_due(now_s, len(self.saver)):
            self.finder.walk()
        self._plan_backlog()
        if self.saver.can_step and now_s >= self.trouble.not_before_s:
            self._step()
            self._tidy()
        self.saver.porter.rest()

    def _take_changes(self) -> None:
        self.finder.take_changes()
        moves, self.finder.moves = self.finder.moves, []
        self.saver.plan_moves(moves)

    def _plan_backlog(self) -> None:
        if len(self.saver) < _ROOM:
            self.saver.planner.plan_backlog(self.finder.take_backlog(_PLANNED))

    def _plan_fresh(self, paths: Sequence[bytes]) -> None:
        if ignore.NAME in paths:
            self.finder.reload_rules()
        if len(paths) > _BULK:
            notebooks = [path for path in paths if class_of(path, 0) is Class.NOTEBOOK][:_BULK]
            self.finder.put_off(paths)
            paths = notebooks
        self.saver.planner.plan(paths)

    def _step(self) -> bool:
        """Whether one batch was saved; on trouble with Persist it is kept, and tried again later."""
        try:
            if (hindrance := self.hindrance()) is not None:
                raise hindrance
            if self._clock.monotonic() >= self._look_next_s:
                self._look_at_place()
            self.saver.step()
            self._note_room()
        except DestinationError as error:
            self.trouble.begin(error)
            return False
        self.trouble.end()
        if not len(self.saver):
            self.overview.queued_since_s = None
        elif self.overview.queued_since_s is None:
            self.overview.queued_since_s = self._clock.monotonic()
        return True

    def _tidy(self) -> None:
        """In a turn that has nothing else to do: nobody waits for it, as somebody does in a flush."""
        if not len(self.saver) and not self.trouble:
            self._crew.rest()
            try:
                self.store.tidy()
            except DestinationError as error:
                self.trouble.begin(error)

    def _look_at_place(self) -> bool:
        """Whether the backup was taken away. Then it has a place again, and everything waits to be saved once more."""
        was_taken_away = self.store.ensure_in_place()
        if was_taken_away:
            log.error("the backup was taken away from Persist: everything is saved again")
            self.saver.start_anew()
            self.finder.scan()
        self._look_next_s = self._clock.monotonic() + _LOOK_EVERY_S
        return was_taken_away

    def _note_room(self) -> None:
        """Asked after saving only, and seldom: an idle sidecar leaves Persist alone."""
        now_s = self._clock.monotonic()
        if now_s >= self._room_next_s:
            self.overview.free_bytes = self.store.free_bytes()
            self._room_next_s = now_s + _LOOK_EVERY_S

    def _doubt_mirror(self) -> None:
        """Before success is claimed. Where others can reach the mirror, every file in it is looked at too.

        The user, where it is no mount of its own; or one whose lease we took while he hung in the middle of a call.
        """
        self._look_next_s = self._clock.monotonic()
        if self._settings.require_mount and not (self._tenancy and self._tenancy.may_have_company):
            return
        try:
            missing = self.store.forget_missing()
        except DestinationError as error:
            log.warning("%s", explain(self._settings.persist, error))
            return
        if missing:
            log.error("%d files were taken out of the backup: they are saved again", len(missing))
        self.finder.put_off(missing)

    def next_due_s(self) -> float:
        """When the next turn has something to do, on the monotonic clock."""
        now_s = self._clock.monotonic()
        has_room = len(self.saver) < _ROOM
        if (self.finder.backlog and has_room) or self.finder.walk_due(now_s, len(self.saver)):
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

    def flush(self, *, catch_up_s: float, out_of_time: Callable[[], bool], accept_deletions: bool = False) -> bool:
        """Everything that changed before the call is safe or accounted for; False where time ran out.

        The scan is the truth: it is part of this, where it is no part of ``drain``.
        """
        self.finder.catch_up(catch_up_s)
        self._doubt_mirror()
        self.finder.begin_walk()
        self._scan(out_of_time)
        self._save_waiting(out_of_time)
        if not self._is_still_ours():
            self._save_waiting(out_of_time)
        if accept_deletions and self.saver.braked:
            try:
                self.saver.accept_deletions()
            except DestinationError as error:
                self.trouble.begin(error)
        return self.finder.scanned and not out_of_time()

    def _is_still_ours(self) -> bool:
        """Before anybody is told that all is safe: we have the lease, and the backup lies where everybody looks for it.

        False where it did not, or nobody can tell; then everything waits to be saved again. Raises ``Fenced``.
        """
        try:
            if (hindrance := self.hindrance()) is not None:
                raise hindrance
            self.store.check_lease()
            return not self._look_at_place()
        except DestinationError as error:
            self.trouble.begin(error)
            return False

    def flush_now(self, out_of_time: Callable[[], bool]) -> None:
        """What events have told of so far is safe or accounted for, settled or not."""
        self._save_waiting(out_of_time)

    def _scan(self, out_of_time: Callable[[], bool]) -> None:
        """The walk that has begun has ended, unless time runs out; what differs waits, or is saved already."""
        while self.finder.is_walking and not out_of_time():
            self.finder.walk()
            self._plan_backlog()
            if self.saver.can_step:
                if not self._step():
                    if self.trouble.is_full:
                        self.finder.finish_walk()
                        return
                    self._wait_for_persist(out_of_time)
            elif len(self.saver) >= _ROOM:
                self.saver.wait(_PAUSE_S)

    def _take_waiting(self) -> list[bytes]:
        """What was found and not yet planned; if the user edited what is left out, more may be found."""
        waiting = self.finder.take_waiting()
        if ignore.NAME in waiting:
            self.finder.reload_rules()
        return waiting

    def _save_waiting(self, out_of_time: Callable[[], bool]) -> None:
        """Rounds, because a copy can meet a change; few, because the end must not chase its own tail.

        What failed before is tried once more, and what then fails has failed.
        """
        again = [*self.saver.books.retry.take_all(), *self.saver.pace.take_all(), *self.finder.mapped()]
        self.saver.pace.is_off = True
        try:
            for _ in range(_DRAIN_ROUNDS):
                self._take_changes()
                self.saver.planner.plan(dict.fromkeys([*self._take_waiting(), *self.saver.books.busy, *again]))
                again = []
                if not self._save_planned(out_of_time):
                    return
                if not (self.finder.settle or self.finder.backlog or self.finder.moves or self.saver.books.busy):
                    return
        finally:
            self.saver.pace.is_off = False

    def _save_planned(self, out_of_time: Callable[[], bool]) -> bool:
        """Everything planned is safe or accounted for; False where time ran out, or there is no room for more."""
        while not out_of_time():
            if not self._step():
                if self.trouble.is_full:
                    return False  # waiting makes no room; a full Persist is no reason to use up the grace
                self._wait_for_persist(out_of_time)
            elif not len(self.saver):
                self.finder.take_changes()
                return True
            elif not self.saver.can_step:
                self.saver.wait(_PAUSE_S)
        return False

    def _wait_for_persist(self, out_of_time: Callable[[], bool]) -> None:
        until_s = self._clock.monotonic() + min(_RETRY_S, self.trouble.delay_s)
        while self._clock.monotonic() < until_s and not out_of_time():
            self._clock.sleep(_PAUSE_S)

    # The end.

    def drain(self, out_of_time: Callable[[], bool], left_s: float = float("inf")) -> int:
        """Everything changed is safe, or is listed as left behind; the exit code that says which.

        ``left_s`` is the time until ``out_of_time``, in seconds.
        """
        self.saver.cancelled = out_of_time
        self.finder.catch_up(1.0)
        self._doubt_mirror()
        self.finder.scan_unwatched()
        self.saver.planner.plan(self._take_waiting())
        if len(self.saver) > _DRAIN_FILES_PER_S * left_s or self.saver.owed_bytes > _DRAIN_BYTES_PER_S * left_s:
            self._write_left_behind("was still being saved when the process ended")
        for _ in range(_DRAIN_SCANS):
            if not self.finder.scanned:
                if not self.finder.is_walking:
                    self.finder.begin_walk()
                # What is known already is saved first: it is fresh, and what is found comes in a mass.
                self._scan(out_of_time)
            self._save_waiting(out_of_time)
            if out_of_time() or (self._is_still_ours() and self.finder.scanned):
                break
        return self.close_books(late=out_of_time())

    def close_books(self, *, late: bool) -> int:
        """What could not be saved is listed durably; the exit code that says whether there is anything."""
        unsaved = {**self._late, **self.unsaved()}
        if not unsaved and not self.saver.braked and not self.trouble and self.finder.scanned:
            self.store.check_lease()
            try:
                left_behind.clear(self._fs, self.store.place.state_fd)
            except DestinationError as error:
                log.warning("%s", explain(self._settings.persist, error))
            log.info(
                "all safe: %d files, %s in the backup", self.store.index.files, size_text(self.store.index.file_bytes)
            )
            return errors.EXIT_SAFE
        self._write_left_behind("the time was up" if late else "could not be saved")
        first = ", ".join(legible(path) for path in list(unsaved)[:5])
        if unsaved:
            log.error("NOT SAVED: %d files: %s", len(unsaved), first)
        if not self.finder.scanned:
            log.error(
                "NOT SAVED: there was no time to look at the whole home; nobody has seen %d files", self.finder.unseen
            )
        if self.saver.braked:
            log.error("BRAKE: deletions wait to be accepted; nothing has left the backup")
        if late and (unsaved or not self.finder.scanned):
            return errors.EXIT_DEADLINE
        if not self.trouble or self.trouble.is_full:
            return errors.EXIT_UNSAVED
        return errors.EXIT_PERSIST

    def give_up(self) -> None:
        """The time is up and whoever waited is told so: what is not safe now counts as left behind, whatever follows.

        For another thread than the engine's, which is asleep in the kernel.
        """
        for _ in range(_GLANCES):
            # The engine may wake up, and change what is being looked at.
            with suppress(RuntimeError, KeyError):
                self._late = dict.fromkeys(self.unsaved(), "was not safe when the time was up")
                return

    def unsaved(self) -> dict[bytes, str]:
        """Every path that should be safe and is not, with why; the most important first."""
        moved = [move.new for move in self.finder.moves]
        found = [*self.finder.settle.paths(), *self.finder.backlog, *self.finder.untold_paths()]
        reasons = dict.fromkeys([*self.saver.owed(), *moved, *found], "")
        reasons.update(self.saver.books.failed)
        reasons.update(self.finder.unreadable)
        return reasons

    def count_unsaved(self) -> int:
        """How many files are not safe, or were not even looked at."""
        return len(self.unsaved()) + self.finder.unseen

    def _write_left_behind(self, reason: str) -> None:
        unsaved = {**self._late, **self.unsaved()}
        unseen = {path: f"{number} files in it that nobody looked at" for path, number in self.finder.unseen_in.items()}
        listed = islice([*unsaved.items(), *unseen.items()], _LISTED)
        document = {
            "schema": 1,
            "at": iso(self._clock.now_ns()),
            "count": len(unsaved) + self.finder.unseen,
            "files": [{**path_fields(path), "reason": why or reason} for path, why in listed],
        }
        try:
            self.store.check_lease()
            left_behind.write(self._fs, self.store.place.state_fd, document)
        except DestinationError as error:
            log.error("the list of what is left behind could not be written: %s", error)  # noqa: TRY400  the trace tells nothing
        self.overview.left_behind = document

    # The books.

    def status(self, state: str, detail: str = "") -> Status:
        """How things stand. A ``watching`` sidecar with trouble is ``degraded``."""
        return self.overview.status(state, detail)

    def close(self) -> None:
        for part in (self.finder, self.saver, self._crew, self.store, self.home):
            try:
                part.close()
            except OSError as error:
                # All that is safe was synced and its error told. What is closed now was only read.
                log.warning("closing: %s", error.strerror)
