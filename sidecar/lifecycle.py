"""The life of the engine below the supervisor: prepare, restore, watch, save, and an end that claims nothing it did not
do.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import select
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from sidecar import errors
from sidecar.backup.persist import check_mounted, persist_errors
from sidecar.backup.tenancy import Tenancy
from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.desk import Desk, Request
from sidecar.engine import Engine
from sidecar.entry import Entry, Kind
from sidecar.errors import Fenced, LeaseHeld, PersistError, PersistForeign, PersistMissing, PersistUnwell
from sidecar.farewell import Farewell
from sidecar.fsops import DestinationError, FileSystem
from sidecar.line import Supervised
from sidecar.retrieval import bring_back, count_files
from sidecar.server import answering, only_writer
from sidecar.supervisor import EXIT_AGAIN
from sidecar.trouble import Trouble
from sidecar.watchman import Watchman

log = logging.getLogger(__name__)

_CATCH_UP_S = 2.0
_LONGEST_WAIT_S = 30.0
_PATIENCE_S = 30.0
"""For so long a single backup tries a Persist that does not work."""
_TELL_EVERY_S = 0.5
"""So often the status is told anew while something takes long."""
_COUNT_EVERY_S = 60.0
"""A home that nobody watches is counted so often: it costs a look at every directory."""
_FIRST_LOOK_S, _LOOK_EVERY_S = 0.1, 3.0
"""Between two looks at the lease that somebody else holds: he may just be ending."""
_QUIET_S, _QUIET_LOOK_S, _DRAIN_SHARE = 3.0, 0.05, 0.3
"""A home in which nothing changes for so long has nobody in it any more; this share of the grace is for the drain."""
_LOCK_WAIT_S = 3.0
"""For an engine whose supervisor was killed to be gone too."""


def run(settings: Settings, supervised: Supervised, fs: FileSystem, clock: Clock) -> int:
    """Keep ``settings.home`` safe until a signal ends it; the exit code says whether everything is.

    Raises ``PersistError`` where Persist cannot be used (nothing was written then) and ``UsageError``.
    """
    if supervised.is_first:
        check_mounted(settings)
    _raise_descriptor_limit()
    with only_writer(settings.socket_path, _LOCK_WAIT_S, insist=not supervised.is_first) as let_others_come:
        desk = Desk(fs, clock, settings, supervised.signals)
        with answering(settings.socket_path, desk.answer):
            life = _Life(settings, supervised, fs=fs, clock=clock, desk=desk)
            life.on_abandoned = lambda: _leave_place(settings, let_others_come)
            return life.live()


def _leave_place(settings: Settings, unlock: Callable[[], None]) -> None:
    """The next sidecar may come, and whoever asks is not answered by one that is over."""
    with suppress(OSError):
        os.unlink(settings.socket_path)
    unlock()


def back_up_once(settings: Settings, fs: FileSystem, clock: Clock, *, accept_deletions: bool) -> int:
    """Everything in the home is safe, and the exit code says whether it is; without a running sidecar.

    Raises ``PersistError``, ``WriterActive`` among them, and ``UsageError``.
    """
    check_mounted(settings)
    _raise_descriptor_limit()
    with only_writer(settings.socket_path):
        tenancy = Tenancy(fs, clock, settings.pod_uid)
        engine = Engine(fs, clock, settings, wake=lambda: None, tenancy=tenancy)
        try:
            engine.flush(
                catch_up_s=0.0,
                out_of_time=lambda: engine.trouble.lasted_s > _PATIENCE_S,
                accept_deletions=accept_deletions,
            )
            return engine.close_books(late=False)
        finally:
            engine.close()
            tenancy.release()


def _raise_descriptor_limit() -> None:
    """A deep tree needs a descriptor for each level, a batch one for each directory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Life:
    """One run, from the first look at Persist to the exit code."""

    def __init__(self, settings: Settings, supervised: Supervised, *, fs: FileSystem, clock: Clock, desk: Desk) -> None:
        self._settings, self._fs, self._clock, self._desk = settings, fs, clock, desk
        self._signals, self._is_first = supervised.signals, supervised.is_first
        self._watchman = desk.watchman = Watchman(
            clock, settings, self._signals, supervised.line, on_late=self._say_late
        )
        self._watchman.on_abandoned = self._let_others_come
        self.on_abandoned: Callable[[], None] = lambda: None
        """Called when the supervisor has left us behind."""
        self._farewell = Farewell(settings, desk)
        self._tenancy = Tenancy(fs, clock, settings.pod_uid)
        self._tenancy.on_fenced = self._signals.wake
        self._tenancy.working_since_s = lambda: self._watchman.working_since_s
        self._watchman.is_beating = lambda: self._tenancy.is_beating
        self._engine: Engine | None = None
        self._back: list[tuple[bytes, Entry]] = []
        """What came back while nothing could be written down."""
        self._counted_s = float("-inf")
        self._state = "starting"
        self._shown_s = 0.0

    def live(self) -> int:
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
        self._tenancy.stop_beating()
        self.on_abandoned()

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

        A Persist that is full, read-only or failing is a state, and not the end of the pod: it is tried until it works.
        Raises ``PersistError`` for one that cannot be used at all.
        """
        trouble = Trouble(self._clock, self._settings.persist)
        has_read, wait_s = not self._settings.restore, _FIRST_LOOK_S
        held, held_since_s = "", self._clock.monotonic()
        while not self._watchman.must_reopen:
            try:
                if held:
                    with persist_errors(self._settings):
                        self._tenancy.look()
                return self._opened()
            except PersistUnwell as error:
                held = ""
                trouble.begin(error.cause)
            except (PersistMissing, PersistForeign) as error:
                if self._is_first and not (held or trouble):
                    raise
                held = ""
                trouble.begin(OSError(errno.ENOENT, str(error)))
            except LeaseHeld as error:
                held = str(error)
                trouble.end()
            self._close()
            has_read = has_read or self._read_only()
            if held:
                self._degrade("fenced", held_since_s, held)
            else:
                self._degrade(trouble.state, trouble.since_s, "nothing can be saved")
            if self._signals.ended:
                break
            self._pause(self._clock.monotonic() + wait_s if held else trouble.not_before_s)
            wait_s = min(2 * wait_s, _LOOK_EVERY_S)
        return None

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

    def _opened(self) -> Engine:
        engine = self._engine = Engine(
            self._fs,
            self._clock,
            self._settings,
            wake=self._signals.wake,
            tenancy=self._tenancy,
            hindrance=self._hindrance,
        )
        self._desk.untold = lambda: engine.finder.untold
        self._watchman.others_at_work = lambda: engine.saver.is_under_way
        if self._settings.restore:
            self._show("restoring", "looking at what Persist holds")
            engine.hold(self._back)
            engine.recover(lambda: self._signals.ended, self._show_restoring)
        return engine

    def _read_only(self) -> bool:
        """The home has what Persist holds, though nothing can be saved; False where it could not be read either."""
        try:
            self._back = bring_back(
                self._fs,
                self._clock,
                self._settings,
                cancelled=lambda: self._signals.ended,
                progress=self._show_restoring,
            )
        except (OSError, PersistError) as error:
            log.warning("nothing can be brought back yet: %s", error)
            return False
        files = sum(entry.kind is not Kind.DIRECTORY for _, entry in self._back)
        self._desk.status = replace(self._desk.status, restored_files=files)
        return True

    def _close(self) -> None:
        self._desk.untold = lambda: 0
        self._watchman.others_at_work = lambda: False
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
        with self._watchman.waiting():
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
            with self._watchman.waiting():
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
        left_s = self._deadline_s() - self._clock.monotonic()
        log.info("the end: %.1f s to save what changed last", left_s)
        code = engine.drain(self._until(self._out_of_time), left_s)
        self._show("stopped")
        return code

    def _let_home_go_quiet(self, engine: Engine) -> None:
        """Nothing has changed for a while, or the time that is left is needed for the drain.

        The notebook was told to end when we were, and a kernel writes what it has to while it does.
        """
        until_s = self._deadline_s() - _DRAIN_SHARE * self._settings.grace_s
        quiet_s = self._clock.monotonic()
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
