"""The life of the engine below the supervisor: prepare, restore, watch, save, and an end that claims nothing it did not
do.
"""

from __future__ import annotations

import errno
import logging
import os
import select
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from sidecar import errors
from sidecar.activity import Activity
from sidecar.backup.persist import check_mounted, persist_errors
from sidecar.backup.tenancy import Tenancy
from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.desk import Desk, Request
from sidecar.engine import Engine
from sidecar.errors import Fenced, PersistError
from sidecar.farewell import Farewell
from sidecar.fsops import DestinationError, FileSystem
from sidecar.limits import raise_descriptor_limit
from sidecar.line import Supervised
from sidecar.opening import Opening
from sidecar.retrieval import Retrieval, count_files
from sidecar.server import answering, only_writer
from sidecar.supervisor import EXIT_AGAIN
from sidecar.watchman import Watchman

log = logging.getLogger(__name__)

_CATCH_UP_S = 2.0
_LAST_EVENTS_S = 1.0
_LONGEST_WAIT_S = 30.0
_TELL_EVERY_S = 0.5
"""So often the status is told anew while something takes long."""
_COUNT_EVERY_S = 60.0
"""A home that nobody watches is counted so often: it costs a look at every directory."""
_QUIET_S, _QUIET_LOOK_S, _DRAIN_SHARE = 3.0, 0.05, 0.3
"""A home in which nothing changes for so long has nobody in it any more; this share of the grace is for the drain."""
_TRUST_S = 0.5
"""Whoever wrote in the home so short before the end may not have ended yet."""
_OUTLIVED_S = 5.0
"""A container that is told to end together with its sidecar has ended by then; what writes on is no notebook."""
_LOCK_WAIT_S = 3.0
"""For an engine whose supervisor was killed to be gone too."""


def run(settings: Settings, supervised: Supervised, fs: FileSystem, clock: Clock) -> int:
    """Keep ``settings.home`` safe until a signal ends it; the exit code says whether everything is.

    Raises ``PersistError`` where Persist cannot be used (nothing was written then) and ``UsageError``.
    """
    if supervised.is_first:
        check_mounted(settings)
    raise_descriptor_limit()
    with only_writer(settings.socket_path, _LOCK_WAIT_S, insist=not supervised.is_first) as unlock:
        return _Life(settings, supervised, fs=fs, clock=clock, unlock=unlock).live()


class _Life:
    """One run, from the first look at Persist to the exit code."""

    def __init__(
        self, settings: Settings, supervised: Supervised, *, fs: FileSystem, clock: Clock, unlock: Callable[[], None]
    ) -> None:
        """After ``unlock`` another sidecar may have this place."""
        self._settings, self._fs, self._clock, self._unlock = settings, fs, clock, unlock
        self._signals, self._is_first = supervised.signals, supervised.is_first
        activity = self._activity = Activity(clock)
        tenancy = self._tenancy = Tenancy(
            fs,
            clock,
            settings.pod_uid,
            working_since_s=lambda: activity.working_since_s,
            on_fenced=self._signals.wake,
        )
        self._watchman = Watchman(
            clock,
            settings,
            supervised,
            activity=activity,
            is_beating=lambda: tenancy.is_beating,
            on_late=self._say_late,
            on_abandoned=self._let_others_come,
        )
        self._desk = Desk(fs, clock, settings, self._signals, watchman=self._watchman, activity=activity)
        self._farewell = Farewell(settings, self._desk)
        self._retrieval = Retrieval(fs, clock, settings)
        self._engine: Engine | None = None
        self._counted_s = float("-inf")
        self._state = "starting"
        self._shown_s = 0.0

    def live(self) -> int:
        """The exit code. Whoever asks is answered meanwhile."""
        with answering(self._settings.socket_path, self._desk.answer):
            self._watchman.start()
            try:
                code = self._live()
                if self._watchman.must_reopen:
                    return EXIT_AGAIN
            finally:
                self._release_requests()
                self._close()
                self._tenancy.release()
            # The last word: what comes before may hang until the time is up, and then something else is said.
            self._farewell.say(code)
            return code

    def _live(self) -> int:
        try:
            code = self._open_and_watch()
            return self._end() if code is None and not self._watchman.must_reopen else errors.EXIT_PERSIST
        except Fenced as fenced:
            return self._stay_fenced(fenced)

    def _let_others_come(self) -> None:
        """The next sidecar may come, and whoever asks is not answered by one that is over."""
        self._tenancy.stop_beating()
        with suppress(OSError):
            os.unlink(self._settings.socket_path)
        self._unlock()

    # The beginning.

    def _open_and_watch(self) -> int | None:
        """The exit code where the end came before Persist could be used, else None."""
        engine = self._open()
        if engine is None:
            return errors.EXIT_PERSIST
        self._watchman.stands()
        if not self._signals.ended:
            engine.finder.start_watching()
            self._show("watching")
            log.info("watching %s: %d directories", self._settings.home, engine.status("watching").watches)
            self._watch(engine)
        return None

    def _open(self) -> Engine | None:
        """An engine whose home has what the mirror has; None where the end came first.

        Raises ``PersistError`` for a Persist that cannot be used at all.
        """
        opening = Opening(self._clock, self._settings.persist, was_usable=not self._is_first)
        while not self._watchman.must_reopen:
            try:
                return self._attempt(opening)
            except PersistError as error:
                obstacle = opening.failed(error)
            self._close()
            self._retrieve()
            self._degrade(obstacle.persist_state, obstacle.since_s, obstacle.detail)
            if self._signals.ended:
                break
            self._pause(obstacle.retry_s)
        return None

    def _attempt(self, opening: Opening) -> Engine:
        if opening.is_held:
            with persist_errors(self._settings):
                self._tenancy.look()  # costs less than to open everything
        engine = self._engine = self._activity.engine = Engine(
            self._fs,
            self._clock,
            self._settings,
            wake=self._signals.wake,
            tenancy=self._tenancy,
            hindrance=self._hindrance,
        )
        if self._settings.restore:
            self._show("restoring", "looking at what Persist holds")
            engine.hold(self._retrieval.back)
            engine.recover(lambda: self._signals.ended, self._show_restoring)
        return engine

    def _retrieve(self) -> None:
        """The home has what Persist holds, where that can be read, though nothing can be saved."""
        self._retrieval.attempt(lambda: self._signals.ended, self._show_restoring)
        self._desk.status = replace(self._desk.status, restored_files=self._retrieval.files)

    def _degrade(self, persist_state: str, since_s: float | None, detail: str) -> None:
        """The status says that nothing is saved, and why; it is logged when it is new."""
        before = self._desk.status
        if (before.persist_state, before.detail) != (persist_state, detail):
            log.error("%s", detail)
        self._state = "degraded"
        self._desk.status = replace(
            before, state="degraded", detail=detail, persist_state=persist_state, persist_since=since_s
        )
        if self._engine is None and self._clock.monotonic() >= self._counted_s + _COUNT_EVERY_S:
            # Nobody knows what of it is safe, and so all of it is pending.
            with suppress(OSError):
                files = count_files(self._fs, self._settings)
                self._desk.status = replace(self._desk.status, pending_files=files)
            self._counted_s = self._clock.monotonic()

    def _stay_fenced(self, fenced: Fenced) -> int:
        """Another sidecar writes now: we write nothing any more, say so until the end, and never claim success."""
        self._close()
        self._degrade("fenced", self._clock.monotonic(), str(fenced))
        while not (self._signals.ended or self._watchman.must_reopen):
            self._pause(float("inf"))
        return errors.EXIT_PERSIST

    def _close(self) -> None:
        self._activity.engine = None
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _hindrance(self) -> DestinationError | None:
        """Why nothing may be written though nothing has failed."""
        problem = self._watchman.problem
        if problem is None or problem.state != "missing":
            return None
        return DestinationError(errno.ENOENT, problem.detail)

    def _pause(self, until_s: float) -> None:
        poller = select.poll()
        poller.register(self._signals.wait_fd, select.POLLIN)
        with self._activity.waiting():
            while not (self._signals.ended or self._watchman.must_reopen) and self._clock.monotonic() < until_s:
                self._release_requests()  # nobody can be helped now
                poller.poll(min(_LONGEST_WAIT_S, max(0.0, until_s - self._clock.monotonic())) * 1000)
                self._signals.clear_wakes()

    # While the user works.

    def _show(self, state: str, detail: str = "") -> None:
        self._state, self._shown_s = state, self._clock.monotonic()
        if self._engine is not None:
            self._desk.status = self._engine.status(state, detail)
        else:
            self._desk.status = replace(self._desk.status, state=state, detail=detail)

    def _until(self, is_over: Callable[[], bool]) -> Callable[[], bool]:
        """``is_over``, for the engine to ask in each of its rounds; the status goes on to be told there."""

        def out_of_time() -> bool:
            if self._clock.monotonic() >= self._shown_s + _TELL_EVERY_S:
                self._show(self._state)
            return is_over() or self._watchman.must_reopen

        return out_of_time

    def _show_restoring(self, done: int, total: int) -> None:
        self._show("restoring", f"bringing back {done} of {total} files")

    def _watch(self, engine: Engine) -> None:
        poller = select.poll()
        poller.register(self._signals.wait_fd, select.POLLIN)
        noticed_at: float | None = None
        while not self._signals.ended and not self._watchman.must_reopen:
            wait_s = min(_LONGEST_WAIT_S, max(0.0, engine.next_due_s() - self._clock.monotonic()))
            with self._activity.waiting():
                if poller.poll(wait_s * 1000):
                    self._signals.clear_wakes()
            if self._tenancy.fence:
                raise Fenced(self._tenancy.fence)
            if self._signals.noticed_at != noticed_at:
                noticed_at = self._signals.noticed_at
                self._heed(engine, noticed_at or 0.0)
            engine.turn()
            while self._desk.requests and not self._signals.ended:
                self._serve(engine, self._desk.requests.popleft())
            self._show("watching")

    def _heed(self, engine: Engine, noticed_s: float) -> None:
        """What changed before the notice is safe, unless the end comes, or the notice turns out to be void."""
        log.info("notice: the end may be near, saving now")
        void_s = noticed_s + self._settings.grace_s
        engine.flush_now(self._until(lambda: self._signals.ended or self._clock.monotonic() >= void_s))

    def _serve(self, engine: Engine, request: Request) -> None:
        complete = False
        try:
            if not request.is_gone():
                complete = engine.flush(
                    catch_up_s=_CATCH_UP_S,
                    out_of_time=self._until(lambda: self._signals.ended or request.is_gone()),
                    accept_deletions=request.accept_deletions,
                )
            self._show("watching")
        except Fenced as fenced:
            self._degrade("fenced", self._clock.monotonic(), str(fenced))
            raise
        finally:
            self._reply(request, complete=complete)

    def _reply(self, request: Request, *, complete: bool = False) -> None:
        status = self._desk.current()
        request.reply = {
            "complete": complete,
            "unsaved": self._engine.count_unsaved() if self._engine else status.pending_files,
            "brake": status.brake,
            "persist": status.persist_state,
            "state": status.state,
        }
        request.done.set()

    def _release_requests(self) -> None:
        while self._desk.requests:
            self._reply(self._desk.requests.popleft())

    # The end.

    def _deadline_s(self) -> float:
        return self._signals.deadline_s(self._settings.grace_s)

    def _out_of_time(self) -> bool:
        return self._signals.cut_short or self._clock.monotonic() >= self._deadline_s()

    def _end(self) -> int:
        engine = self._engine
        assert engine is not None
        self._show("draining", "saving what changed last")
        if not self._settings.native:
            self._let_home_go_quiet(engine)
        engine.finder.catch_up(_LAST_EVENTS_S)  # what was written before is no sign that somebody still writes
        began_s = self._clock.monotonic()
        code = self._drain(engine)
        if self._goes_on(engine, began_s) and not self._out_of_time():
            # With a grace of one second a kubelet tells us before the notebook has ended; and a process can outlive it.
            log.warning("somebody still writes in the home")
            self._let_home_go_quiet(engine, most_s=_OUTLIVED_S)
            began_s = self._clock.monotonic() - _TRUST_S
            code = self._drain(engine)
        if code == errors.EXIT_SAFE and engine.finder.written_s > began_s:
            log.error("NOT SAVED: what is written in the home from now on")
            code = errors.EXIT_UNSAVED
        self._show("stopped")
        return code

    def _drain(self, engine: Engine) -> int:
        left_s = self._deadline_s() - self._clock.monotonic()
        log.info("the end: %.1f s to save what changed last", left_s)
        return engine.drain(self._until(self._out_of_time), left_s)

    def _goes_on(self, engine: Engine, began_s: float) -> bool:
        """Whether somebody has written in the home since then; known when the last of it is a while ago."""
        engine.finder.take_changes()
        latest_s = self._deadline_s() - _DRAIN_SHARE * self._settings.grace_s
        while began_s >= engine.finder.written_s > self._clock.monotonic() - _TRUST_S and not self._signals.cut_short:
            if self._clock.monotonic() >= latest_s:
                break
            self._clock.sleep(_QUIET_LOOK_S)
            engine.finder.take_changes()
        return engine.finder.written_s > began_s

    def _let_home_go_quiet(self, engine: Engine, most_s: float = float("inf")) -> None:
        """Nothing has changed for a while, or ``most_s`` are over, or the time that is left is needed for the drain.

        The notebook was told to end when we were, and a kernel writes what it has to while it does.
        """
        quiet_s = self._clock.monotonic()
        until_s = min(self._deadline_s() - _DRAIN_SHARE * self._settings.grace_s, quiet_s + most_s)
        while self._clock.monotonic() < min(until_s, quiet_s + _QUIET_S) and not self._signals.cut_short:
            engine.turn()
            if not engine.is_quiet:
                quiet_s = self._clock.monotonic()
            self._show(self._state, "waiting until the notebook has ended")
            self._clock.sleep(_QUIET_LOOK_S)

    def _say_late(self) -> None:
        """On the watchman's thread: the time is up, and the engine sleeps in the kernel, or is not done."""
        problem = self._watchman.problem
        code = errors.EXIT_PERSIST if problem is not None and problem.state != "slow" else errors.EXIT_DEADLINE
        if self._engine is not None:
            self._engine.give_up()
        self._watchman.say_code(code)
        self._farewell.say_late(code)
