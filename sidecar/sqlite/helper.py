"""The child's program: SQLite reads what a user wrote, in a process that may crash and can reach nothing else.

It runs by its path under ``python -I -S`` and imports nothing of ours, so that nothing in a home is ever imported. One
line on stdin says what to do, one on stdout what came of it: a word that ``process`` knows, and a reason.

``backup``   the live database in a directory becomes the empty staged file, by SQLite's backup call
``recover``  the staged copy of a database and its log becomes one file, as SQLite does it after a crash

SQLite opens by path and makes every path absolute (FACTS 4), so a directory that is swapped could divert it. Where the
kernel has Landlock, nothing outside the directories meant can be opened, and nothing in the home can be written. In any
case a copy counts only if every file that SQLite holds open is one of those meant.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import select
import signal
import stat
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress

try:
    import sqlite3
except ImportError:  # an optional part of Python
    os.write(1, b"failed this Python was built without SQLite\n")
    sys.exit()

_STEP_BYTES = 16 << 20
"""Between two looks at the time; a writer that waits for us waits for about one of these."""
_RESTARTS = 3
_MOST_BLOCKED_S = 1.5
"""How long a commit in rollback mode may have to wait for us: a usual patience is 5 s."""
_BUSY_S = 2.0
_PAUSE_S = 0.01
_MEMORY_BYTES = 512 << 20
_NOBODY = 65534
_LONGEST_PATH = 512 - len("/-journal") - 1  # MAX_PATHNAME, sqlite.org/src/file/src/os_unix.c

# Whoever holds these bytes shared keeps the log from being removed by the last who closes: sqlite.org/src/file/src/os.h
_SHARED_FIRST, _SHARED_BYTES = 0x40000002, 510
_WAL_VERSION = 2
# What another process does to a database while we look at it can come out as any of these.
_PASSING = tuple(f"SQLITE_{each}" for each in ("BUSY", "LOCKED", "PROTOCOL", "READONLY", "CANTOPEN", "IOERR"))
_WRITE_ERRORS = frozenset(f"SQLITE_IOERR_{each}" for each in ("WRITE", "FSYNC", "DIR_FSYNC", "TRUNCATE", "CLOSE"))
_SUPER_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")

# landlock(7): the system calls have one number on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38
_PARENT_DEATH_SIGNAL = 1
_WRITE_FILE, _READ_FILE, _REMOVE_FILE, _TRUNCATE = 1 << 1, 1 << 2, 1 << 5, 1 << 14
_READ_DIRECTORY = 1 << 3
_FIRST_VERSION_RIGHTS = (1 << 13) - 1
_TRUNCATE_SINCE = 3

Identity = tuple[int, int]


class Outcome(Exception):
    """What came of the request."""

    def __init__(self, word: str, reason: str) -> None:
        super().__init__(word, reason)
        self.word, self.reason = word, reason


class Restarted(Exception):
    """The database changes between any two steps: they lead nowhere."""


class MeantFile:
    """A file that is meant: its directory, its name, and itself, open, so that it can be told from any other."""

    def __init__(self, directory_fd: int, fd: int, name: bytes) -> None:
        self.directory_fd, self.fd, self.name = directory_fd, fd, name

    def connect(self, options: str) -> sqlite3.Connection:
        """A connection to the file; what it really is, ``prove`` tells."""
        os.fchdir(self.directory_fd)
        try:
            length = len(os.getcwdb()) + len(self.name)
        except OSError:
            length = sys.maxsize
        if length > _LONGEST_PATH:
            raise Outcome("failed", "its path is too long for SQLite")
        # Every byte escaped: no name means anything in a URI. And the dot: a file can be called ":memory:".
        escaped = "".join(f"%{byte:02X}" for byte in self.name)
        connection = sqlite3.connect(f"file:./{escaped}?{options}", uri=True, isolation_level=None, timeout=_BUSY_S)
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
        return connection

    def status(self, suffix: bytes) -> os.stat_result | None:
        """Of what stands beside the file with ``suffix``."""
        try:
            return os.stat(self.name + suffix, dir_fd=self.directory_fd, follow_symlinks=False)
        except OSError:
            return None

    def identities(self, *suffixes: bytes) -> set[Identity]:
        """Of the file, and of those beside it."""
        found = (os.fstat(self.fd), *(self.status(suffix) for suffix in suffixes))
        return {(status.st_dev, status.st_ino) for status in found if status is not None}


def begin_reading(connection: sqlite3.Connection) -> None:
    """A read transaction stands. Of all pragmas this one reads only the header, and nothing that a user wrote."""
    connection.execute("BEGIN")
    connection.execute("PRAGMA schema_version").fetchone()


def open_files() -> dict[int, Identity]:
    """The regular files this process has open, by descriptor."""
    found = {}
    for word in os.listdir("/proc/self/fd"):
        try:
            status = os.fstat(int(word))
        except OSError:
            continue  # the listing's own
        if stat.S_ISREG(status.st_mode):
            found[int(word)] = (status.st_dev, status.st_ino)
    return found


def prove(known: dict[int, Identity], needed: set[Identity], allowed: set[Identity]) -> None:
    """What SQLite has opened since ``known`` is all that is ``needed``, and nothing but what is ``allowed``."""
    opened = {identity for fd, identity in open_files().items() if fd not in known}
    if not needed <= opened or not opened <= needed | allowed:
        raise Outcome("busy", "its directory was replaced while it was copied")


def back_up(source: MeantFile, target: MeantFile, deadline: float) -> None:
    """``target`` is a whole copy of ``source``, of one moment after the call."""
    in_wal_mode = holds_log(source)
    confine({source.directory_fd: _READ_FILE, target.directory_fd: _READ_FILE | _WRITE_FILE | _TRUNCATE})
    known = open_files()
    # readonly_shm: reading leaves no trace in the home, not in the shared memory either.
    origin = source.connect("mode=ro&readonly_shm=1")

    def copy(pages: int, progress: Callable[[int, int, int], None]) -> None:
        os.ftruncate(target.fd, 0)
        # No locks: the file is ours alone, and a lock on NFS can wait for ever.
        staged = target.connect("mode=rw&vfs=unix-none")
        try:
            staged.execute("PRAGMA journal_mode=OFF")
            staged.execute("PRAGMA synchronous=OFF")
            origin.backup(staged, pages=pages, progress=progress, sleep=_PAUSE_S)
            needed = source.identities() | target.identities()
            prove(known, needed, source.identities(b"-wal", b"-shm"))
        finally:
            staged.close()

    step = max(1, _STEP_BYTES // page_bytes(source.fd))
    try:
        if in_wal_mode:
            begin_reading(origin)  # hinders no writer, only the reuse of the log
            copy(step, until(deadline, "it takes too long"))
            return
        try:
            copy(step, until_restarted(deadline))
        except Restarted:
            begin_reading(origin)
            most_s = min(deadline, time.monotonic() + _MOST_BLOCKED_S)
            copy(step, until(most_s, "it is written all the time, and too large to make its writers wait"))
    finally:
        origin.close()


def until(deadline: float, reason: str) -> Callable[[int, int, int], None]:
    """Ends a copy at ``deadline``."""

    def progress(status: int, remaining: int, total: int) -> None:  # noqa: ARG001  SQLite's signature
        if remaining and time.monotonic() > deadline:
            raise Outcome("busy", reason)

    return progress


def until_restarted(deadline: float) -> Callable[[int, int, int], None]:
    """Ends a copy at ``deadline``, where nobody lets us read, and where a step never follows the one before."""
    busy_until = time.monotonic() + _BUSY_S
    restarts, left = 0, sys.maxsize

    def progress(status: int, remaining: int, total: int) -> None:  # noqa: ARG001
        nonlocal restarts, left, busy_until
        now = time.monotonic()
        if status != sqlite3.SQLITE_OK:
            if status != sqlite3.SQLITE_DONE and now > busy_until:
                raise Outcome("busy", "its writers keep it locked")
            return
        busy_until = now + _BUSY_S
        restarts += remaining >= left
        left = remaining
        if restarts > _RESTARTS or now > deadline:
            raise Restarted

    return progress


def page_bytes(fd: int) -> int:
    """The page size that the header of a database names."""
    named = int.from_bytes(os.pread(fd, 2, 16), "big")
    return 65536 if named == 1 else max(named, 512)


def holds_log(source: MeantFile) -> bool:
    """Whether ``source`` is in WAL mode; then its log stays until we end.

    Without that lock the last writer could close now, and opening the database would make new files in the home.
    """
    if os.pread(source.fd, 2, 18) != bytes([_WAL_VERSION] * 2) and not has_log(source):
        return False
    give_up_at = time.monotonic() + _BUSY_S
    while True:
        try:
            fcntl.lockf(source.fd, fcntl.LOCK_SH | fcntl.LOCK_NB, _SHARED_BYTES, _SHARED_FIRST)
            break
        except OSError:
            if time.monotonic() > give_up_at:
                raise Outcome("busy", "its writer keeps it locked") from None
            time.sleep(_PAUSE_S)
    if source.status(b"-wal") is None or source.status(b"-shm") is None:
        raise Outcome("busy", "its log is just being made, or written back")
    return True


def has_log(source: MeantFile) -> bool:
    """Whether a write-ahead log stands beside ``source``."""
    status = source.status(b"-wal")
    return status is not None and status.st_size > 0


def recover(target: MeantFile) -> None:
    """``target`` and the log beside it are one whole file."""
    journal = target.status(b"-journal")
    if journal is not None and names_super_journal(target):
        # SQLite would look for the files that it names, wherever they are, and may delete them.
        raise Outcome("failed", "its journal belongs to a transaction over several databases that was never ended")
    confine({target.directory_fd: _READ_FILE | _WRITE_FILE | _TRUNCATE | _REMOVE_FILE})
    known = open_files()
    staged = target.connect("mode=rw&vfs=unix-none")
    try:
        staged.execute("PRAGMA locking_mode=EXCLUSIVE")  # the log's index is then in memory, not in a file
        begin_reading(staged)
        prove(known, target.identities(), target.identities(b"-wal", b"-journal"))
    finally:
        staged.close()
    if target.status(b"-wal") is not None:  # closing writes the log back, and tells nobody if it cannot
        raise Outcome("unwritable", "its log could not be written back")


def names_super_journal(target: MeantFile) -> bool:
    """Whether the journal ends in the name of another: the format is at sqlite.org/src/file/src/pager.c."""
    fd = os.open(target.name + b"-journal", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target.directory_fd)
    try:
        return os.pread(fd, 8, max(0, os.fstat(fd).st_size - 8)) == _SUPER_JOURNAL_MAGIC
    finally:
        os.close(fd)


def confine(rights: dict[int, int]) -> None:
    """From here on only the directories ``rights`` can be opened files in, where the kernel has Landlock."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)
    if version < 1:
        return
    handled = (_FIRST_VERSION_RIGHTS & ~_READ_DIRECTORY) | (_TRUNCATE if version >= _TRUNCATE_SINCE else 0)
    ruleset = libc.syscall(_CREATE_RULESET, struct.pack("=Q", handled), ctypes.c_size_t(8), 0)
    failed = ruleset < 0
    for fd, allowed in rights.items():
        rule = struct.pack("=Qi", allowed & handled, fd)
        failed = failed or libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0) != 0
    failed = failed or libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0
    if failed or libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
        raise Outcome("failed", f"cannot be confined: {os.strerror(ctypes.get_errno())}")


def be_nobody() -> None:
    """SQLite does not take us for root, and files can be opened as before.

    For root it gives the log and the shared memory to the database's owner, even if they are his: their ctime changes.
    """
    if os.geteuid() == 0:
        with suppress(OSError):  # in a user namespace without that number; nothing but the ctime is lost
            os.seteuid(_NOBODY)
            ctypes.CDLL(None).setfsuid(0)


def limit(max_bytes: int, deadline_s: int) -> None:
    """Whatever the content makes SQLite do, it stays small and ends."""
    for what, most in (
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_CPU, deadline_s + 1),
        (resource.RLIMIT_FSIZE, max_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        hard = resource.getrlimit(what)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (least, least))
    signal.alarm(deadline_s + 2)  # for the case that even SQLite's patience does not end


def end_with_parent() -> None:
    """Whoever started us takes us with him: the next sidecar's staging directory is not ours to write to."""
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    listener = select.poll()
    listener.register(1, 0)
    if listener.poll(0):  # he was gone before that, and nobody reads what we say
        sys.exit(1)


def outcome_of(error: sqlite3.Error, verb: bytes) -> Outcome:
    """What an error of SQLite means, by its extended code: sqlite.org/rescode.html."""
    code = getattr(error, "sqlite_errorname", "") or ""
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return Outcome("damaged", f"SQLite cannot read it: {error}")
    if code == "SQLITE_FULL":
        return Outcome("full", str(error))
    if verb == b"recover" and code.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY")):
        return Outcome("unwritable", str(error))
    if code == "SQLITE_READONLY_ROLLBACK":
        return Outcome("busy", "a writer died in a transaction, and its journal is hot")
    if code in _WRITE_ERRORS:  # only the copy is ever written
        return Outcome("unwritable", str(error))
    if code == "SQLITE_IOERR_READ":
        return Outcome("failed", f"cannot be read: {error}")
    if code.startswith(_PASSING):
        return Outcome("busy", f"it could not be read meanwhile: {error} ({code})")
    return Outcome("failed", f"SQLite cannot copy it: {error} ({code})")


def answer(line: bytes) -> Outcome:
    """The request in ``line`` is carried out: see ``process.Request``."""
    verb, *words = line.split()
    max_bytes, deadline_s, staging_fd, target_fd, directory_fd, source_fd = map(int, words[:6])
    staged_name, source_name = (bytes.fromhex(word.decode()) for word in words[6:])
    limit(max_bytes, deadline_s)
    be_nobody()
    end_with_parent()  # after it: the kernel forgets the signal where the user changes
    target = MeantFile(staging_fd, target_fd, staged_name)
    try:
        if verb == b"recover":
            recover(target)
        else:
            back_up(MeantFile(directory_fd, source_fd, source_name), target, time.monotonic() + deadline_s)
    except Outcome as outcome:
        return outcome
    except sqlite3.Error as error:
        return outcome_of(error, verb)
    except MemoryError:
        return Outcome("failed", "SQLite needs more memory for it than it may have")
    return Outcome("done", "")


if __name__ == "__main__":
    result = answer(sys.stdin.buffer.readline(4096))
    os.write(1, f"{result.word} {result.reason}".encode("ascii", "backslashreplace")[:500] + b"\n")
