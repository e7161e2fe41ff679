"""The end of an engine: what changed last is saved while there is time, and what is left behind is listed durably."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Any

from sidecar import errors
from sidecar.backup import left_behind
from sidecar.backup.persist import explain
from sidecar.backup.store import Store
from sidecar.clock import Clock, iso
from sidecar.config import Settings
from sidecar.entry import legible
from sidecar.flush import Flush
from sidecar.fsops import DestinationError, FileSystem
from sidecar.gate import Gate
from sidecar.home.finder import Finder
from sidecar.intake import Intake
from sidecar.saving.saver import Saver
from sidecar.status import path_fields, size_text

log = logging.getLogger(__name__)

_FILES_PER_S, _BYTES_PER_S = 1000, 50 << 20
"""With more than this to save at the end what is owed is written down before it is begun: later may be too late."""
_SCANS = 3
"""Events may be lost, or heard to be lost, while one goes on, and while what it found is saved."""
_CATCH_UP_S = 1.0
_GLANCES = 5
_LISTED = 1000
"""As many paths are named of what is left behind."""


class Ending:
    """Claims success for nothing that is not safe. For the thread of the engine, but for ``give_up``."""

    def __init__(
        self,
        fs: FileSystem,
        clock: Clock,
        settings: Settings,
        *,
        finder: Finder,
        saver: Saver,
        store: Store,
        intake: Intake,
        gate: Gate,
        flush: Flush,
        listed: Any,
    ) -> None:
        """``listed`` is what the last end left behind, or None."""
        self._fs, self._clock, self._settings = fs, clock, settings
        self._finder, self._saver, self._store = finder, saver, store
        self._intake, self._gate, self._flush = intake, gate, flush
        self._late: dict[bytes, str] = {}
        """What was not safe when the time was up."""
        self.left_behind = listed
        """What the last end, or this one, could not save."""

    def drain(self, out_of_time: Callable[[], bool], left_s: float) -> int:
        """Everything changed is safe, or is listed as left behind; the exit code that says which. Raises ``Fenced``.

        ``left_s`` is the time until ``out_of_time``, in seconds.
        """
        self._saver.cancelled = out_of_time
        self._finder.catch_up(_CATCH_UP_S)
        self._gate.doubt_mirror()
        self._finder.scan_unwatched()
        self._intake.plan_waiting()
        if len(self._saver) > _FILES_PER_S * left_s or self._saver.owed_bytes > _BYTES_PER_S * left_s:
            self._list_left_behind("was still being saved when the process ended")
        for _ in range(_SCANS):
            if not self._finder.scanned:
                if not self._finder.is_walking:
                    self._finder.begin_walk()
                # What is known already is saved first: it is fresh, and what is found comes in a mass.
                self._flush.walk(out_of_time)
            self._flush.waiting(out_of_time)
            if out_of_time() or (self._gate.is_still_ours() and self._finder.scanned):
                break
        return self.close_books(late=out_of_time())

    def close_books(self, *, late: bool) -> int:
        """What could not be saved is listed durably; the exit code that says whether there is anything."""
        trouble = self._gate.trouble
        unsaved = {**self._late, **self.unsaved()}
        if not unsaved and not self._saver.braked and not trouble and self._finder.scanned:
            self._note_success()
            return errors.EXIT_SAFE
        self._list_left_behind("the time was up" if late else "could not be saved")
        self._log_left_behind(unsaved)
        if late and (unsaved or not self._finder.scanned):
            return errors.EXIT_DEADLINE
        if not trouble or trouble.is_full:
            return errors.EXIT_UNSAVED
        return errors.EXIT_PERSIST

    def _note_success(self) -> None:
        self._store.check_lease()
        try:
            left_behind.clear(self._fs, self._store.place.state_fd)
        except DestinationError as error:
            log.warning("%s", explain(self._settings.persist, error))
        index = self._store.index
        log.info("all safe: %d files, %s in the backup", index.files, size_text(index.file_bytes))

    def _log_left_behind(self, unsaved: dict[bytes, str]) -> None:
        if unsaved:
            first = ", ".join(legible(path) for path in islice(unsaved, 5))
            log.error("NOT SAVED: %d files: %s", len(unsaved), first)
        if not self._finder.scanned:
            log.error(
                "NOT SAVED: there was no time to look at the whole home; nobody has seen %d files", self._finder.unseen
            )
        if self._saver.braked:
            log.error("BRAKE: deletions wait to be accepted; nothing has left the backup")

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
        finder, saver = self._finder, self._saver
        moved = [move.new for move in finder.moves]
        found = [*finder.settle.paths(), *finder.backlog, *finder.untold_paths()]
        reasons = dict.fromkeys([*saver.owed(), *moved, *found], "")
        reasons.update(saver.books.failed)
        reasons.update(finder.unreadable)
        return reasons

    def count_unsaved(self) -> int:
        """How many files are not safe, or were not even looked at."""
        return len(self.unsaved()) + self._finder.unseen

    def _list_left_behind(self, reason: str) -> None:
        unsaved = {**self._late, **self.unsaved()}
        unseen = {
            path: f"{number} files in it that nobody looked at" for path, number in self._finder.unseen_in.items()
        }
        listed = islice([*unsaved.items(), *unseen.items()], _LISTED)
        document = {
            "schema": 1,
            "at": iso(self._clock.now_ns()),
            "count": len(unsaved) + self._finder.unseen,
            "files": [{**path_fields(path), "reason": why or reason} for path, why in listed],
        }
        try:
            self._store.check_lease()
            left_behind.write(self._fs, self._store.place.state_fd, document)
        except DestinationError as error:
            log.error("the list of what is left behind could not be written: %s", error)  # noqa: TRY400  the trace tells nothing
        self.left_behind = document
