"""Taking a lease: of any number who want it one gets it, and whoever dies or stops in between blocks nobody for ever.

A record is written under a name of its own, linked as the claim to the next generation, which only one can do, and
renamed over the lease. The claim of somebody who went no further is judged as a lease is, and the generation after it
is claimed. Who has a claim first removes what earlier claimants would rename, then looks whether the lease is still
the one he judged: a claimant who was stopped and goes on finds nothing left to rename.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from sidecar.backup.holder import Holder, is_gone
from sidecar.backup.lease_record import MOST_BYTES, Damaged, Reason, Record, decode, encode, may_take
from sidecar.clock import Clock
from sidecar.fsops import CREATE_FLAGS, FileSystem, read_file, sync_directory, write_all

NAME = b"lease"
_CLAIM = b"lease.claim-"
_OWN = b"lease.own-"
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


@dataclass(frozen=True)
class Taken:
    """The lease is ours."""

    record: Record
    reason: Reason


@dataclass(frozen=True)
class Held:
    """The lease is somebody else's, or was claimed by somebody else just now."""

    by: Record | Damaged | None
    stood_still_s: float
    """For so long we have seen no sign of life."""

    def __str__(self) -> str:
        match self.by:
            case Record(holder=holder):
                return str(holder)
            case Damaged():
                return "nobody known: it is damaged"
            case _:
                return "another newcomer, who was first"


@dataclass(frozen=True)
class _Way:
    """Who is in nobody's way."""

    next: int
    """The number of the claim to be made."""
    reason: Reason
    newest: Record | Damaged | None
    """The newest claim, or the lease."""


@dataclass(frozen=True)
class _Watched:
    """How long a file has had the same content while somebody looked."""

    data: bytes
    looked_s: float
    still_s: float = 0.0


class Newcomer:
    """Asks for the lease of one server's place until it is there. For one thread."""

    def __init__(
        self,
        fs: FileSystem,
        clock: Clock,
        directory_fd: int,
        holder: Holder,
        *,
        process_is_gone: Callable[[Holder], bool] = is_gone,
    ) -> None:
        """``directory_fd`` is the state directory of the server. The caller keeps it open."""
        self.fs, self.directory_fd = fs, directory_fd
        self._clock, self._holder = clock, holder
        self._is_gone = process_is_gone
        self._watched: dict[bytes, _Watched] = {}
        self._began_s = 0.0
        """When the last read began."""
        self._mine: Record | None = None
        """What we have claimed; it may still be ours to rename."""

    def look(self, above: int = 0) -> Taken | Held:
        """Takes the lease if it may be taken, for a generation larger than ``above``. To be called every few seconds.

        A lease that somebody holds costs one open and one read. Raises ``OSError``, and then the lease may be ours or
        not, which the next look finds out; and ``PersistForeign``.
        """
        lease = self._read(NAME)
        way = self._way(lease)
        if isinstance(way, Held):
            return way
        mine = self._mine
        if mine is None or not _is(way.newest, mine):
            mine = self._claim(way.next, max(way.next, above + 1))
        if mine is None:
            return Held(None, 0.0)
        return self._install(mine, lease, way.reason)

    def _way(self, lease: bytes | None) -> _Way | Held:
        """What may be claimed, past the claims of all who went no further; or who is in the way.

        Everybody who sees the same files finds the same claim, which only one of them can make.
        """
        before, self._watched = self._watched, {}
        newest, generation, reason = None, 0, Reason.FREE
        name, data = NAME, lease
        while data is not None or name == NAME:
            if data is not None:
                newest = decode(data)
                still_s = self._watch(name, data, newest.interval_s, before.get(name))
                why = self._judge(newest, still_s)
                if why is None:
                    return Held(newest, still_s)
                reason = why if name == NAME else reason
            # A claim that cannot be read is at least told by its name.
            generation = max(generation, _claimed(name), newest.generation if isinstance(newest, Record) else 0)
            name = _CLAIM + b"%d" % (generation + 1)
            data = self._read(name)
        return _Way(generation + 1, reason, newest)

    def _judge(self, seen: Record | Damaged, still_s: float) -> Reason | None:
        if self._mine is not None and _is(seen, self._mine):
            return Reason.OURS
        gone = isinstance(seen, Record) and seen.holder.shares_pids(self._holder) and self._is_gone(seen.holder)
        return may_take(seen, self._holder, still_s, process_is_gone=gone)

    def _watch(self, name: bytes, data: bytes, interval_s: float, before: _Watched | None) -> float:
        """For how long ``name`` has had this content while we looked.

        Between two looks not more than one interval counts: while Persist hung for everybody no holder could beat.
        """
        began_s, now_s = self._began_s, self._clock.monotonic()
        still_s = 0.0
        if before is not None and before.data == data:
            still_s = before.still_s + max(0.0, min(began_s - before.looked_s, interval_s))
        self._watched[name] = _Watched(data, now_s, still_s)
        return still_s

    def _claim(self, number: int, generation: int) -> Record | None:
        """Nobody else can make the claim ``number`` any more; None where somebody has."""
        mine = Record(generation=generation, token=os.urandom(8).hex(), holder=self._holder)
        own, claim = _own(mine), _CLAIM + b"%d" % number
        try:
            self._create(own, mine)
            first = self._link(own, claim, mine)
        except OSError:
            with suppress(OSError):
                self.fs.unlink(own, at=self.directory_fd)
            raise
        if not first:
            with suppress(FileNotFoundError):
                self.fs.unlink(own, at=self.directory_fd)
            return None
        self._mine = mine
        return mine

    def _link(self, own: bytes, claim: bytes, mine: Record) -> bool:
        try:
            self.fs.link(own, claim, source_at=self.directory_fd, target_at=self.directory_fd)
        except FileNotFoundError:
            return False  # somebody with a claim has swept what we would rename
        except FileExistsError:
            return self._holds(claim, mine)  # true where an answer was lost, and it was asked again
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            try:
                self._create(claim, mine)
            except FileExistsError:
                return False
        return True

    def _create(self, name: bytes, record: Record) -> None:
        fd = self.fs.open(name, CREATE_FLAGS, at=self.directory_fd)
        try:
            write_all(self.fs, fd, encode(record))
            self.fs.fsync(fd)
        finally:
            self.fs.close(fd)

    def _install(self, mine: Record, judged: bytes | None, reason: Reason) -> Taken | Held:
        """``mine``, which is the newest claim, is the lease, if the lease is still what was ``judged``."""
        claims = self._sweep(mine, decode(judged) if judged is not None else None)
        if self._read(NAME) != judged:
            return Held(None, 0.0)
        failure: OSError | None = None
        try:
            self.fs.rename(_own(mine), NAME, source_at=self.directory_fd, target_at=self.directory_fd)
        except OSError as error:
            failure = error
        # On NFS a rename may have happened and say that it has not.
        if not self._holds(NAME, mine):
            if failure is None or failure.errno == errno.ENOENT:
                self._mine = None  # somebody has claimed the generation after ours
                return Held(None, 0.0)
            raise failure
        sync_directory(self.fs, self.directory_fd)
        for claim in claims:
            with suppress(OSError):  # the next one who takes the lease tries again
                self.fs.unlink(claim, at=self.directory_fd)
        self._mine = None
        return Taken(mine, reason)

    def _sweep(self, mine: Record, lease: Record | Damaged | None) -> list[bytes]:
        """Nobody else has a record to rename, and no claim is left of ``lease``; the claims up to ours.

        A second name of the lease would keep its inode alive on an NFS server, and there its holder would not learn
        from a look at the name that another file has it.
        """
        done = lease.generation if isinstance(lease, Record) else 0
        left = []
        for name in self.fs.names(self.directory_fd):
            generation = _claimed(name)
            if 0 < generation <= mine.generation and generation > done:
                left.append(name)
            elif 0 < generation <= done or (name.startswith(_OWN) and name != _own(mine)):
                with suppress(FileNotFoundError):
                    self.fs.unlink(name, at=self.directory_fd)
        return left

    def _holds(self, name: bytes, record: Record) -> bool:
        data = self._read(name)
        return data is not None and _is(decode(data), record)

    def _read(self, name: bytes) -> bytes | None:
        self._began_s = self._clock.monotonic()
        try:
            return read_file(self.fs, self.directory_fd, name, MOST_BYTES)
        except FileNotFoundError:
            return None


def _own(record: Record) -> bytes:
    return _OWN + record.token.encode()


def _claimed(name: bytes) -> int:
    """The generation that the file ``name`` claims; 0 where it is no claim."""
    digits = name.removeprefix(_CLAIM)
    return int(digits) if name.startswith(_CLAIM) and digits.isdigit() else 0


def _is(seen: Record | Damaged | None, record: Record) -> bool:
    return isinstance(seen, Record) and seen.token == record.token
