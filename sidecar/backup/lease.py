"""The lease of a server's place on Persist: who may write there, and how he learns that he may not any more.

Each taking makes a file of its own. A beat overwrites a part of that file in place, so one that comes too late, of a
process that was stopped, goes to a file that nobody finds under the lease's name any more.
"""

from __future__ import annotations

import errno
import os

from sidecar.backup.lease_record import HEAD_BYTES, RECORD_BYTES, WORKING_S, Damaged, Reason, Record, decode, head, tail
from sidecar.backup.newcomer import NAME, Held, Newcomer, Taken
from sidecar.errors import Fenced, PersistForeign
from sidecar.fsops import read_all, read_file, write_all

__all__ = ["NAME", "Held", "Lease", "Newcomer", "Taken"]

_BEAT_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Lease:
    """One sidecar's claim on one server's place.

    ``look``, ``beat`` and ``release`` are for one thread at a time; ``check`` may run beside them on any. Everything
    raises ``OSError`` where Persist does not answer, which says nothing about whose the lease is, and ``Fenced`` once
    the lease was seen in other hands, from then on for good.
    """

    def __init__(self, newcomer: Newcomer) -> None:
        """``newcomer`` is who asks for it, and where; he asks for nobody else."""
        self._newcomer, self._fs, self._fd = newcomer, newcomer.fs, newcomer.directory_fd
        self._held: Record | None = None
        self._tail = b""
        self._released = False
        """We have begun to give it back: others may have seen it."""
        self._beat = 0
        self._fence = ""
        """Who has it now."""

    @property
    def generation(self) -> int:
        """Of the lease that was taken last; 0 before."""
        return self._held.generation if self._held is not None else 0

    def look(self) -> Taken | Held:
        """The lease is ours, or somebody has it; to be asked again every few seconds.

        One that was ours and is missing, or damaged, is taken as by any newcomer: so this is also what helps where
        ``check`` goes on to raise ``OSError``. Raises ``PersistForeign`` where a later version holds the lease.
        """
        self._refuse()
        if self._held is not None and not self._released:
            try:
                if self._is_ours(read_file(self._fs, self._fd, NAME, RECORD_BYTES)):
                    return Taken(self._held, Reason.OURS)
            except FileNotFoundError:
                pass
        found = self._newcomer.look(self.generation)
        if isinstance(found, Taken):
            self._tail, self._held, self._beat = tail(found.record), found.record, 0
            self._released = False
        return found

    def check(self) -> None:
        """The lease is ours: it was when we looked just now. One open, read and close of a small file."""
        self._refuse_unheld(self._released)
        if not self._is_ours(read_file(self._fs, self._fd, NAME, RECORD_BYTES)):
            raise _damaged()

    def beat(self, interval_s: float = WORKING_S) -> None:
        """Everybody who looks sees that we live, and that the next beat comes within ``interval_s``.

        On NFS the close is what shows it. It need not survive a power cut: we would not either.
        """
        self._refuse_unheld(self._released)
        self._write(interval_s, released=False)

    def release(self) -> None:
        """Whoever comes next may take the lease at once. For a clean end.

        From here on ``check`` and ``beat`` refuse, even where this fails; then it may be tried again.
        """
        self._refuse_unheld()
        self._released = True
        self._write(WORKING_S, released=True)

    def _write(self, interval_s: float, *, released: bool) -> None:
        fd = self._fs.open(NAME, _BEAT_FLAGS, at=self._fd)
        try:
            if not self._is_ours(read_all(self._fs, fd, RECORD_BYTES)):
                raise _damaged()
            self._beat += 1
            os.lseek(fd, 0, os.SEEK_SET)
            write_all(self._fs, fd, head(self._beat, interval_s, released=released))
            if released:
                self._fs.fsync(fd)
        finally:
            self._fs.close(fd)

    def _refuse(self) -> None:
        if self._fence:
            raise Fenced(self._fence)

    def _refuse_unheld(self, released: bool = False) -> None:
        self._refuse()
        if self._held is None or released:
            raise Fenced("this sidecar does not hold the lease")

    def _is_ours(self, data: bytes) -> bool:
        """False where it cannot be told. Raises ``Fenced``."""
        if data[HEAD_BYTES:] == self._tail:  # not the head, which a beat may be about to write
            return True
        try:
            found = decode(data)
        except PersistForeign:
            self._fence = "a later version has taken over this server's place on Persist"
        else:
            if isinstance(found, Damaged):
                return False
            self._fence = f"{found.holder} has taken over this server's place on Persist"
        raise Fenced(self._fence)


def _damaged() -> OSError:
    return OSError(errno.EBADMSG, "the lease cannot be read")
