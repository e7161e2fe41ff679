"""One home and its place on Persist, coupled: what the finder finds, the saver saves, and both say how it went."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable
from typing import Any

from sidecar import errors
from sidecar.clock import Clock, iso
from sidecar.config import Settings
from sidecar.copy import FULL
from sidecar.entry import legible
from sidecar.errors import UsageError
from sidecar.finder import Finder
from sidecar.fsops import DestinationError, FileSystem, Tree, read_file
from sidecar.links import make_save_link, session_of
from sidecar.persist import explain, persist_errors
from sidecar.recover import Recovery, recover
from sidecar.retry import delay_s
from sidecar.saver import Saver
from sidecar.scan import Scanner
from sidecar.status import Status, path_fields, size_text
from sidecar.store import LEFT_BEHIND, Store

log = logging.getLogger(__name__)

_LARGE_DRAIN_BYTES = 256 << 20
"""With more than this to copy at the end, what is owed is written down before it is begun."""
_DRAIN_ROUNDS = 4
_BACKLOG_FILES = 20_000
"""As many of a scan's finds are queued at once: looking at them must not hold up what is fresh."""
_REPORT_MAX_BYTES = 1 << 20
_TOGETHER_S = 0.02
"""Events this close together are looked at together."""

_PERSIST_STATES = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EROFS: "read-only",
    errno.ESTALE: "stale",
}


class Engine:
    """Opens the home and the store; after that every method is for one thread."""

    def __init__(self, fs: FileSystem, clock: Clock, settings: Settings, wake: Callable[[], None]) -> None:
        """Raises ``UsageError`` where there is no home, ``PersistError`` where Persist cannot be used."""
        self._fs, self._clock, self._settings = fs, clock, settings
        try:
            self.home = Tree.at(fs, settings.home)
        except OSError as error:
            raise UsageError(f"no home at {settings.home}: {error.strerror}") from error
        with persist_errors(settings):
            self.store = Store(fs, clock, settings)
            make_save_link(fs, self.home.directory(b""), settings)
            self.store.begin_session(session_of(fs, self.home.directory(b""), clock))
            self.left_behind = self._read_left_behind()
        mounts = frozenset(os.fsencode(name) for name in settings.mounts)
        self.scanner = Scanner(fs, self.home, mounts, settings.max_file_bytes)
        self.finder = Finder(clock, settings, self.home, scanner=self.scanner, index=self.store.index, wake=wake)
        self.saver = Saver(
            fs, clock, settings, home=self.home, scanner=self.scanner, finder=self.finder, store=self.store
        )
        self.recovery = Recovery()
        self.trouble: DestinationError | None = None
        self._troubles = 0
        self._not_before_s = 0.0
        self._doubt = False
        self._free_bytes: int | None = None
        self._queued_since_s: float | None = None

    def _read_left_behind(self) -> Any:
        try:
            return json.loads(read_file(self._fs, self.store.state_fd, LEFT_BEHIND, _REPORT_MAX_BYTES))
        except (FileNotFoundError, ValueError):
            return None

    def recover(self, cancelled: Callable[[], bool], progress: Callable[[int, int], None]) -> None:
        """The home has what the mirror has. Raises ``PersistError``."""
        with persist_errors(self._settings):
            self.recovery = recover(
                self._fs, self.home, self.store, scanner=self.scanner, cancelled=cancelled, progress=progress
            )
        if self.recovery.files or self.recovery.failed:
            log.info("%d files are back in the home, %d could not be brought back", *self._recovered())

    def _recovered(self) -> tuple[int, int]:
        return self.recovery.files, len(self.recovery.failed)

    # While the user works.

    def turn(self) -> None:
        """What is due now is found, and one batch of it is saved."""
        self.finder.take_changes()
        now_s = self._clock.monotonic()
        if now_s >= self.finder.next_scan_s:
            self.finder.scan()
            self._free_bytes = None
            self._doubt = True
        # Both halves of a move, which come as two events.
        self.saver.plan(self.finder.settle.take_due(now_s + _TOGETHER_S))
        self.saver.plan(self.saver.retry.take_due(now_s))
        if len(self.saver) < _BACKLOG_FILES:
            self.saver.plan(self.finder.backlog.take_due(now_s + _TOGETHER_S, _BACKLOG_FILES), backlog=True)
        if now_s >= self._not_before_s:
            self._step()

    def _step(self) -> bool:
        """Whether one batch was saved; on trouble with Persist it is kept, and tried again later."""
        try:
            if self._doubt:
                self._look_at_place()
            self.saver.step()
        except DestinationError as error:
            if self.trouble is None or self.trouble.errno != error.errno:
                log.error("%s; what changed is kept in mind and tried again", explain(self._settings.persist, error))  # noqa: TRY400  the trace tells nothing
            self.trouble = error
            self._troubles += 1
            self._not_before_s = self._clock.monotonic() + delay_s(self._troubles)
            return False
        if self.trouble is not None:
            log.info("Persist works again")
        self.trouble, self._troubles = None, 0
        if not len(self.saver):
            self._queued_since_s = None
        elif self._queued_since_s is None:
            self._queued_since_s = self._clock.monotonic()
        return True

    def _look_at_place(self) -> None:
        """The backup lies where everybody looks for it; if it was taken away, everything waits to be saved again."""
        if self.store.ensure_in_place():
            log.error("the backup was taken away from Persist: everything is saved again")
            self.finder.scan()
        self._doubt = False

    def _doubt_mirror(self) -> None:
        """Before success is claimed. Where the user can reach the mirror, every file in it is looked at too."""
        self._doubt = True
        if self._settings.require_mount:
            return
        try:
            missing = self.store.forget_missing()
        except DestinationError as error:
            log.warning("%s", explain(self._settings.persist, error))
            return
        if missing:
            log.error("%d files were taken out of the backup: they are saved again", len(missing))
        self.finder.look_again(missing)

    def next_due_s(self) -> float:
        """When the next turn has something to do, on the monotonic clock."""
        times = [self.finder.next_scan_s]
        if len(self.saver):
            times.append(self._not_before_s)
        for due_s in (
            self.finder.settle.next_due_s(),
            self.finder.backlog.next_due_s(),
            self.saver.retry.next_due_s(),
        ):
            if due_s is not None:
                times.append(due_s)
        return min(times)

    def flush(self, *, catch_up_s: float, out_of_time: Callable[[], bool], accept_deletions: bool = False) -> None:
        """Everything that changed before the call is safe or accounted for, unless time runs out.

        The scan is the truth: it is part of this, where it is no part of ``drain``.
        """
        self.finder.catch_up(catch_up_s)
        self._doubt_mirror()
        self.finder.scan()
        self._save_waiting(out_of_time)
        if accept_deletions and self.saver.braked:
            self.saver.accept_deletions()

    def flush_now(self, out_of_time: Callable[[], bool]) -> None:
        """What events have told of so far is safe or accounted for, settled or not."""
        self.finder.take_changes()
        self._save_waiting(out_of_time)

    def _save_waiting(self, out_of_time: Callable[[], bool]) -> None:
        """Rounds, because a copy can meet a change; few, because the end must not chase its own tail.

        What failed before is tried once more, and what then fails has failed.
        """
        failed = self.saver.retry.take_all()
        for _ in range(_DRAIN_ROUNDS):
            self.saver.plan(dict.fromkeys([*self.finder.take_waiting(), *self.saver.busy, *failed]))
            failed = []
            while not out_of_time():
                if not self._step():
                    if self.trouble is not None and self.trouble.errno in FULL:
                        return  # waiting makes no room; a full Persist is no reason to use up the grace
                    self._clock.sleep(min(0.5, delay_s(self._troubles)))
                elif not len(self.saver):
                    break
            self.finder.take_changes()
            if out_of_time() or not (self.finder.settle or self.finder.backlog or self.saver.busy):
                return

    # The end.

    def drain(self, out_of_time: Callable[[], bool]) -> int:
        """Everything changed is safe, or is listed as left behind; the exit code that says which."""
        self.saver.cancelled = out_of_time
        self.finder.catch_up(1.0)
        self._doubt_mirror()
        if self.finder.scanned:
            self.finder.scan_unwatched()
        else:
            self.finder.scan()
        if self.saver.queued_bytes > _LARGE_DRAIN_BYTES:
            self._write_left_behind("was still being saved when the process ended")
        self._save_waiting(out_of_time)
        return self.close_books(late=out_of_time())

    def close_books(self, *, late: bool) -> int:
        """What could not be saved is listed durably; the exit code that says whether there is anything."""
        unsaved = self.unsaved()
        if not unsaved and not self.saver.braked and self.trouble is None:
            try:
                self.store.clear_left_behind()
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
        if self.saver.braked:
            log.error("BRAKE: deletions wait to be accepted; nothing has left the backup")
        if late and unsaved:
            return errors.EXIT_DEADLINE
        if self.trouble is None or self.trouble.errno in FULL:
            return errors.EXIT_UNSAVED
        return errors.EXIT_PERSIST

    def unsaved(self) -> dict[bytes, str]:
        """Every path that should be safe and is not, with why; the most important first."""
        reasons = dict.fromkeys([*self.saver.owed(), *self.finder.settle.paths(), *self.finder.backlog.paths()], "")
        reasons.update(self.saver.failed)
        reasons.update(self.finder.unreadable)
        return reasons

    def _write_left_behind(self, reason: str) -> None:
        unsaved = self.unsaved()
        document = {
            "schema": 1,
            "at": iso(self._clock.now_ns()),
            "count": len(unsaved),
            "files": [{**path_fields(path), "reason": why or reason} for path, why in list(unsaved.items())[:1000]],
        }
        try:
            self.store.write_left_behind(document)
        except DestinationError as error:
            log.error("the list of what is left behind could not be written: %s", error)  # noqa: TRY400  the trace tells nothing
        self.left_behind = document

    # The books.

    def status(self, state: str, detail: str = "") -> Status:
        """How things stand. A ``watching`` sidecar with trouble is ``degraded``."""
        saver, finder, index = self.saver, self.finder, self.store.index
        if state == "watching" and (self.trouble is not None or saver.braked):
            state = "degraded"
        oldest = [at_s for at_s in (finder.settle.oldest_s(), finder.backlog.oldest_s(), self._queued_since_s) if at_s]
        return Status(
            state=state,
            server=self._settings.server,
            detail=detail,
            protected_files=index.files,
            protected_bytes=index.file_bytes,
            pending_files=len(saver) + len(finder.settle) + len(finder.backlog) + len(saver.retry),
            pending_bytes=saver.queued_bytes + self._waiting_bytes(),
            pending_since=min(oldest, default=None),
            restored_files=self.recovery.files,
            skipped=dict(finder.skips.shown),
            skipped_count=finder.skips.count,
            failed={**saver.failed, **finder.unreadable},
            last_saved_at=None if saver.saved_at_ns is None else iso(saver.saved_at_ns),
            persist_state=self._persist_state(),
            free_bytes=self._persist_free_bytes(),
            watches=finder.watch.watches if finder.watch else 0,
            overflows=finder.watch.overflows if finder.watch else 0,
            limit_reached=finder.watch.limit_reached if finder.watch else False,
            scan_interval_s=round(finder.scan_interval_s, 3),
            left_behind=self.left_behind,
            brake=self._brake_document(),
        )

    def _brake_document(self) -> dict[str, Any] | None:
        if not self.saver.braked:
            return None
        return {
            "paths": len(self.saver.braked),
            "reason": "over half of the files vanished at once; they stay in the backup until you accept the deletions",
        }

    def _persist_state(self) -> str:
        if self.trouble is not None:
            return _PERSIST_STATES.get(self.trouble.errno or 0, "missing")
        return "full" if any(why.startswith("does not fit") for why in self.saver.failed.values()) else "ok"

    def _persist_free_bytes(self) -> int | None:
        if self._free_bytes is None and self.trouble is None:
            try:
                self._free_bytes = self.store.free_bytes()
            except DestinationError:
                return None
        return self._free_bytes

    def _waiting_bytes(self) -> int:
        total = 0
        for path in [*self.finder.settle.paths()[:1000], *self.finder.backlog.paths()[:1000]]:
            try:
                total += self.scanner.status(path).st_size
            except OSError:
                continue
        self.home.forget()
        return total

    def close(self) -> None:
        self.finder.close()
        self.saver.close()
        self.store.close()
        self.home.close()
