"""The one way to Persist while the engine lives: a batch goes through where nothing hinders it, and the backup is still
ours and where everybody looks for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from sidecar.backup.persist import explain
from sidecar.backup.store import Store
from sidecar.backup.tenancy import Tenancy
from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.errors import PersistForeign
from sidecar.fsops import DestinationError
from sidecar.home.finder import Finder
from sidecar.saving.saver import Saver
from sidecar.trouble import Trouble

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 10.0
"""Between two looks at whether the backup still lies where everybody looks for it, while something is saved."""

_REFUSALS = (DestinationError, PersistForeign)


class Gate:
    """What Persist says is kept as ``trouble``, and raised by nothing here; ``Fenced`` is. For the engine's thread."""

    def __init__(
        self,
        clock: Clock,
        settings: Settings,
        *,
        finder: Finder,
        saver: Saver,
        store: Store,
        tenancy: Tenancy | None,
        hindrance: Callable[[], DestinationError | None],
    ) -> None:
        """``hindrance`` says why nothing may be written to Persist though nothing has failed."""
        self._clock, self._settings, self._tenancy = clock, settings, tenancy
        self._finder, self._saver, self._store = finder, saver, store
        self._hindrance = hindrance
        self.trouble = Trouble(clock, settings.persist)
        self.free_bytes: int | None = None
        """The room on Persist when something was last saved."""
        self.queued_since_s: float | None = None
        """Since when there is always something that waits to be copied, on the monotonic clock."""
        self._room_next_s = 0.0
        self._look_next_s = clock.monotonic()

    @property
    def can_step(self) -> bool:
        """Whether ``step`` has anything to do, and Persist may be tried now."""
        return self._saver.can_step and self._clock.monotonic() >= self.trouble.not_before_s

    def step(self) -> bool:
        """Whether one batch was saved; on trouble with Persist it is kept, and tried again later."""
        try:
            self._refuse_hindered()
            if self._clock.monotonic() >= self._look_next_s:
                self._look_at_place()
            self._saver.step()
            self._note_room()
        except _REFUSALS as error:
            self.trouble.begin(error)
            return False
        self.trouble.end()
        if not len(self._saver):
            self.queued_since_s = None
        elif self.queued_since_s is None:
            self.queued_since_s = self._clock.monotonic()
        return True

    def _refuse_hindered(self) -> None:
        if (hindrance := self._hindrance()) is not None:
            raise hindrance

    def _look_at_place(self) -> bool:
        """Whether the backup was taken away. Then it has a place again, and everything waits to be saved once more."""
        was_taken_away = self._store.ensure_in_place()
        if was_taken_away:
            log.error("the backup was taken away from Persist: everything is saved again")
            self._saver.start_anew()
            self._finder.scan()
        self._look_next_s = self._clock.monotonic() + _LOOK_EVERY_S
        return was_taken_away

    def _note_room(self) -> None:
        """Asked after saving only, and seldom: an idle sidecar leaves Persist alone."""
        now_s = self._clock.monotonic()
        if now_s >= self._room_next_s:
            self.free_bytes = self._store.free_bytes()
            self._room_next_s = now_s + _LOOK_EVERY_S

    def is_still_ours(self) -> bool:
        """Before anybody is told that all is safe: we have the lease, and the backup lies where everybody looks for it.

        False where it did not, or nobody can tell; then everything waits to be saved again.
        """
        try:
            self._refuse_hindered()
            self._store.check_lease()
            return not self._look_at_place()
        except _REFUSALS as error:
            self.trouble.begin(error)
            return False

    def doubt_mirror(self) -> None:
        """Before success is claimed. Where others can reach the mirror, every file in it is looked at too.

        The user, where it is no mount of its own; or one whose lease we took while he hung in the middle of a call.
        """
        self._look_next_s = self._clock.monotonic()
        if self._settings.require_mount and not (self._tenancy and self._tenancy.may_have_company):
            return
        try:
            missing = self._store.forget_missing()
        except DestinationError as error:
            log.warning("%s", explain(self._settings.persist, error))
            return
        if missing:
            log.error("%d files were taken out of the backup: they are saved again", len(missing))
        self._finder.put_off(missing)

    def tidy(self) -> None:
        """The journal is no longer than it has to be. For a moment in which nobody waits for anything to be saved."""
        try:
            self._store.tidy()
        except DestinationError as error:
            self.trouble.begin(error)

    def accept_deletions(self) -> None:
        """What the brake holds back has left the mirror, as versions; or Persist is in trouble."""
        try:
            self._saver.accept_deletions()
        except DestinationError as error:
            self.trouble.begin(error)
