"""Our stay in one server's place on Persist: we have the lease, keep it alive, and write nothing without it."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress

from sidecar.backup.holder import this_process
from sidecar.backup.lease import NAME, Lease
from sidecar.backup.lease_record import Reason
from sidecar.backup.newcomer import Held, Newcomer, Taken
from sidecar.backup.rhythm import Rhythm
from sidecar.clock import Clock
from sidecar.errors import Fenced, LeaseHeld
from sidecar.fsops import FileSystem, destination

log = logging.getLogger(__name__)

_AGAIN_S = 1.0
"""After a beat that failed."""
_LOST = {errno.ENOENT, errno.EBADMSG, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES}
"""What a look at a lease says that somebody removed, damaged or replaced by another thing, and nobody took."""


class Tenancy:
    """Lasts from the first ``admit`` to ``release``, over any number of stores. For one thread, beside its own."""

    def __init__(
        self,
        fs: FileSystem,
        clock: Clock,
        pod_uid: str,
        *,
        working_since_s: Callable[[], float | None] = lambda: None,
        on_fenced: Callable[[], None] = lambda: None,
    ) -> None:
        """``working_since_s`` says since when there is something to save, on the monotonic clock.

        ``on_fenced`` is called when it is known that somebody else has the lease. Both on the tenancy's thread.
        """
        self._fs, self._clock = fs, clock
        self._working_since_s, self._on_fenced = working_since_s, on_fenced
        self._holder = this_process(pod_uid)
        self._fd = -1
        self._lease: Lease | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.fence = ""
        """Who has the lease that was ours; empty while nobody has."""
        self.is_beating = False
        """Whether the tenancy's thread is at Persist now."""
        self.may_have_company = False
        """Whether the one before us may live, and wake up, and write before it learns that it must not."""

    def admit(self, state_fd: int) -> None:
        """The lease in the directory ``state_fd`` is ours. Raises ``LeaseHeld``, ``Fenced`` and ``OSError``."""
        with self._lock:
            if self._lease is None:
                self._fd = self._fs.duplicate(state_fd)
                self._lease = self._new_lease()
            else:
                here, before = self._fs.fstat(state_fd), self._fs.fstat(self._fd)
                os.dup2(state_fd, self._fd, inheritable=False)
                if (here.st_dev, here.st_ino) != (before.st_dev, before.st_ino):
                    # What stands in another directory says nothing about the lease that we had.
                    self._lease = self._new_lease()
        self.look()
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
            self._thread.start()

    def _new_lease(self) -> Lease:
        return Lease(Newcomer(self._fs, self._clock, self._fd, self._holder))

    def look(self) -> None:
        """The lease is ours. Raises ``LeaseHeld``, ``Fenced`` and ``OSError``."""
        lease = self._lease
        assert lease is not None
        with self._lock:
            found = lease.look()
        match found:
            case Held():
                raise LeaseHeld(f"this server's place on Persist is held by {found}")
            case Taken(reason=reason):
                if reason not in (Reason.OURS, Reason.FREE):
                    log.info("the lease is ours: %s", reason)
                self.may_have_company = self.may_have_company or reason is Reason.STILL

    def check(self) -> None:
        """The lease was ours when we looked just now. Raises ``Fenced``, and ``DestinationError`` if nobody can tell.

        One that somebody removed or damaged is taken again: we had it, and nobody else says that he has.
        """
        lease = self._lease
        assert lease is not None
        with destination():
            try:
                lease.check()
            except OSError as error:
                if error.errno not in _LOST:
                    raise
                self._move_aside(error.errno)
                try:
                    self.look()
                except LeaseHeld as held:
                    raise Fenced(str(held)) from error

    def _move_aside(self, number: int) -> None:
        if number == errno.ENOENT:
            return
        log.warning("the lease was damaged: it is moved aside, and taken again")
        aside = b"lease.damaged-%d" % self._clock.now_ns()
        self._fs.rename(NAME, aside, source_at=self._fd, target_at=self._fd)

    def _keep(self) -> None:
        rhythm = Rhythm(self._clock.monotonic())
        failed = False
        while True:
            working_since_s = self._working_since_s()
            due_s = rhythm.due_s(working_since_s) - self._clock.monotonic()
            if self._over.wait(_AGAIN_S if failed else min(max(0.0, due_s), 2.5)):
                return
            if not failed and rhythm.due_s(self._working_since_s()) > self._clock.monotonic():
                continue
            failed = not self._beat(rhythm)
            if self.fence:
                return

    def _beat(self, rhythm: Rhythm) -> bool:
        began_s, interval_s = self._clock.monotonic(), rhythm.interval_s(self._working_since_s())
        self.is_beating = True
        try:
            with self._lock:
                assert self._lease is not None
                self._lease.beat(interval_s)
        except Fenced as fenced:
            if not self._over.is_set():
                self.fence = str(fenced)
                self._on_fenced()
            return False
        except OSError as error:
            log.warning("the lease cannot be beaten: %s", error.strerror)
            return False
        finally:
            self.is_beating = False
        rhythm.beaten(began_s, interval_s)
        return True

    def stop_beating(self) -> None:
        """Nobody waits for us any more: whoever comes next may have the lease when it has stood still."""
        self._over.set()

    def release(self) -> None:
        """Whoever comes next may take the lease at once."""
        self._over.set()
        if self._lease is None:
            return
        # Whoever finds it still held waits until it has stood still.
        with self._lock, suppress(OSError, Fenced):
            self._lease.release()
