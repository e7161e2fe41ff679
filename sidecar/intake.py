"""From what the finder found to what the saver owes: what is fresh first, and a mass in slices."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.clock import Clock
from sidecar.home import ignore
from sidecar.home.finder import Finder
from sidecar.saving.saver import Saver
from sidecar.select import Class, class_of

_BULK = 1000
"""More changes than this at once are a mass, and whatever changes after them goes first."""
_PLANNED = 2048
"""As many paths of the backlog are looked at in one turn: it must not hold up what is fresh."""
_ROOM = 3 * _PLANNED
"""A backlog waits while so much is being saved: one batch under way, one being committed, one ready."""
_TOGETHER_S = 0.02
"""Events this close together are looked at together."""


class Intake:
    """Everything that is to be saved passes here once. For the thread of the engine."""

    def __init__(self, clock: Clock, finder: Finder, saver: Saver) -> None:
        self._clock, self._finder, self._saver = clock, finder, saver

    @property
    def has_room(self) -> bool:
        """Whether more of a mass may be planned."""
        return len(self._saver) < _ROOM

    @property
    def has_waiting(self) -> bool:
        """Whether something that was found is not planned yet, or cannot be copied while it changes."""
        finder = self._finder
        return bool(finder.settle or finder.backlog or finder.moves or self._saver.books.busy)

    def take_changes(self) -> None:
        """What events have told of waits to settle; directories that were renamed are owed as such."""
        self._finder.take_changes()
        moves, self._finder.moves = self._finder.moves, []
        self._saver.plan_moves(moves)

    def plan_due(self) -> None:
        """What has settled, and what is to be tried again now, is owed."""
        self.take_changes()
        now_s = self._clock.monotonic()
        # Both halves of a move, which come as two events.
        self._plan_fresh(self._finder.settle.take_due(now_s + _TOGETHER_S))
        self._saver.planner.plan([*self._saver.books.retry.take_due(now_s), *self._saver.pace.take_due(now_s)])

    def _plan_fresh(self, paths: Sequence[bytes]) -> None:
        if ignore.NAME in paths:
            self._finder.reload_rules()
        if len(paths) > _BULK:
            notebooks = [path for path in paths if class_of(path, 0) is Class.NOTEBOOK][:_BULK]
            self._finder.put_off(paths)
            paths = notebooks
        self._saver.planner.plan(paths)

    def plan_backlog(self) -> None:
        """The next slice of what was found in a mass is owed, where there is room."""
        if self.has_room:
            self._saver.planner.plan_backlog(self._finder.take_backlog(_PLANNED))

    def plan_waiting(self, again: Sequence[bytes] = ()) -> None:
        """All that was found is owed, settled or not, and ``again`` too.

        If the user edited what is left out, more may be found.
        """
        waiting = self._finder.take_waiting()
        if ignore.NAME in waiting:
            self._finder.reload_rules()
        self._saver.planner.plan(dict.fromkeys([*waiting, *again]))
