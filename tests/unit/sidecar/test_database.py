"""What belongs to a database, what a copy of it becomes in every case, and that no call that fails leaves anything."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from sidecar.clock import Clock
from sidecar.copy import Cancelled
from sidecar.entry import Entry
from sidecar.fsops import DestinationError, FileSystem
from sidecar.sqlite import helper as database_helper
from sidecar.sqlite.copy import Busy, Copied, DatabaseCopier, Ordinary, TooLarge, Uncopied
from sidecar.sqlite.files import (
    changed_with,
    companion_of,
    companions_of,
    fold,
    is_database,
    logs_of,
    owns_companions,
    part_of,
    with_logs,
)
from sidecar.sqlite.process import Answer, Request, Word, ask
from tests.faults.faulty import Fault, FaultyFileSystem, SwiftClock
from tests.processes import CHECKOUT


@pytest.mark.parametrize(
    ("path", "database", "saved_with"),
    [
        (b"a/x.db-wal", b"a/x.db", b"a/x.db"),
        (b"a/x.db-journal", b"a/x.db", b"a/x.db"),
        (b"a/x.db-shm", b"a/x.db", None),  # readers write it
        (b"x-wal-shm", b"x-wal", None),
        (b"x.db", None, None),
        (b"a/-wal", None, None),
        (b"-shm", None, None),
        (b"x.db-WAL", None, None),
        (b"x-wal/y", None, None),
        (b"\xff-wal", b"\xff", b"\xff"),
    ],
)
def test_what_a_name_belongs_to(path: bytes, database: bytes | None, saved_with: bytes | None) -> None:
    assert companion_of(path) == database
    assert changed_with(path) == saved_with


def test_the_companions_of_a_database_belong_to_it() -> None:
    assert {companion_of(path) for path in companions_of(b"a/x.db")} == {b"a/x.db"}
    assert part_of(b"a/x\n.db") == "part of the database x\\n.db, which is saved as a whole"


def _status(*, size: int = 5, mtime_ns: int = 0, ctime_ns: int = 0) -> os.stat_result:
    fields = (0o100644, 7, 1, 1, 0, 0, size, 0, mtime_ns // 10**9, ctime_ns // 10**9)
    return os.stat_result((*fields, 0.0, 0.0, 0.0, 0, mtime_ns, ctime_ns))


def _entry(*, size: int = 5, mtime_ns: int = 0, ctime_ns: int = 0) -> Entry:
    entry = Entry.of(_status(size=size, mtime_ns=mtime_ns, ctime_ns=ctime_ns))
    assert entry is not None
    return entry


def test_a_commit_to_the_log_alone_makes_another_entry_and_a_look_does_not() -> None:
    entry = _entry(mtime_ns=10, ctime_ns=20)
    before = with_logs(entry, [_entry(mtime_ns=30, ctime_ns=40)])
    assert (before.size, before.mtime_ns, before.ctime_ns, before.since_ns, before.ino) == (5, 30, 40, 40, 7)
    assert before.same_as(with_logs(entry, [_entry(mtime_ns=30, ctime_ns=40)]))
    assert not before.same_as(with_logs(entry, [_entry(mtime_ns=30, ctime_ns=41)]))
    assert not before.same_as(with_logs(entry, []))  # written back and gone: once more
    assert with_logs(entry, []) == entry
    assert with_logs(entry, [_entry(mtime_ns=1, ctime_ns=2)]) == entry  # an old log hides no newer change
    assert with_logs(entry, [_entry(size=0, mtime_ns=30, ctime_ns=40)]) == entry  # nothing is in it


def test_a_database_and_what_belongs_to_it_are_one() -> None:
    names = [b"x.db", b"x.db-wal", b"x.db-shm", b"y-journal", b"z", b"z-wal", b"-wal"]
    found = {name: _entry(mtime_ns=number, ctime_ns=number) for number, name in enumerate(names)}
    folded = fold(found, lambda name: name == b"x.db")
    assert folded == {b"x.db-wal": b"x.db", b"x.db-shm": b"x.db"}
    assert list(found) == [b"x.db", b"y-journal", b"z", b"z-wal", b"-wal"]
    assert found[b"x.db"].ctime_ns == 1  # the shared memory, which readers write, makes nothing new


def test_the_first_journal_of_an_empty_database_belongs_to_it(home: Path) -> None:
    (home / "new.db").touch()
    (home / "text").write_text("no database")
    at = os.open(home, os.O_RDONLY)
    assert owns_companions(FileSystem(), at, b"new.db")
    assert not owns_companions(FileSystem(), at, b"text")
    assert not owns_companions(FileSystem(), at, b"absent")
    os.close(at)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with a database, its log with one more row, and nothing that has it open."""
    (tmp_path / "home").mkdir()
    (tmp_path / "staging").mkdir()
    live, home = tmp_path / "x.db", tmp_path / "home"
    with closing(sqlite3.connect(live, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE t (a)")
        connection.execute("INSERT INTO t VALUES (1)")
        for name in ("x.db", "x.db-wal"):
            (home / name).write_bytes((tmp_path / name).read_bytes())
    return home


def _answers(answer: Answer) -> Callable[[Request, Callable[[], bool]], Answer]:
    def ask(request: Request, cancelled: Callable[[], bool]) -> Answer:
        return answer

    return ask


class _Hands:
    """The descriptors of a test's directories, and the copier between them."""

    def __init__(self, home: Path, fs: FileSystem, ask: Callable[[Request, Callable[[], bool]], Answer] = ask) -> None:
        self.staging = home.parent / "staging"
        self.home_fd = os.open(home, os.O_RDONLY)
        self.staging_fd = os.open(self.staging, os.O_RDONLY)
        self.copier = DatabaseCopier(fs, SwiftClock(), self.staging_fd, 1 << 30, lambda: False, ask=ask)

    def __enter__(self) -> DatabaseCopier:
        return self.copier

    def __exit__(self, *_: object) -> None:
        os.close(self.home_fd)
        os.close(self.staging_fd)

    @property
    def staged(self) -> list[str]:
        return os.listdir(self.staging)


def test_what_is_a_database_and_which_logs_it_has(home: Path, tmp_path: Path) -> None:
    (home / "note").write_text("SQLite format 3")
    (home / "link").symlink_to(home / "x.db")
    (home / "fifo-wal").mkdir()
    (home / "fifo").write_text("")
    (home / "y.db").write_bytes((home / "x.db").read_bytes())
    (home / "y.db-wal").touch()
    os.mkfifo(home / "y.db-journal")
    fs, at = FileSystem(), os.open(home, os.O_RDONLY)
    names = (b"x.db", b"y.db", b"note", b"link", b"fifo", b"absent", b"y.db-journal", b"n" * 255)
    assert [name for name in names if is_database(fs, at, name)] == [b"x.db", b"y.db"]
    assert [name for name in names if logs_of(fs, at, name)] == [b"x.db"]
    os.close(at)


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (Answer(Word.BUSY, "why"), Busy("why")),
        (Answer(Word.FAILED, "why"), Uncopied("why")),
        (Answer(Word.UNWRITABLE, "why"), Uncopied("SQLite could not write its copy: why")),
    ],
)
def test_what_an_answer_becomes(home: Path, answer: Answer, result: object) -> None:
    hands = _Hands(home, FileSystem(), _answers(answer))
    with hands as copier:
        assert copier.stage(hands.home_fd, b"x.db", b"staged") == result
        assert hands.staged == []


def test_a_full_persist_is_no_fault_of_the_database(home: Path) -> None:
    hands = _Hands(home, FileSystem(), _answers(Answer(Word.FULL, "why")))
    with hands as copier, pytest.raises(DestinationError) as caught:
        copier.stage(hands.home_fd, b"x.db", b"staged")
    assert caught.value.errno == errno.ENOSPC
    assert hands.staged == []


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EIO, errno.ESTALE])
def test_what_sqlite_could_not_write_is_blamed_on_what_our_own_write_meets(home: Path, number: int) -> None:
    fs = FaultyFileSystem()

    def refuse(request: Request, cancelled: object) -> Answer:
        fs.fault = Fault(at=len(fs.calls) + 2, number=number)  # after the look at its size
        return Answer(Word.UNWRITABLE, "disk I/O error")

    hands = _Hands(home, fs, refuse)
    with hands as copier, pytest.raises(DestinationError) as caught:
        copier.stage(hands.home_fd, b"x.db", b"staged")
    assert caught.value.errno == number
    assert hands.staged == []


def test_a_staged_file_that_is_not_ours_is_no_copy(home: Path) -> None:
    def replace(request: Request, cancelled: object) -> Answer:
        os.unlink("staged", dir_fd=request.staging_fd)
        os.close(os.open("staged", os.O_WRONLY | os.O_CREAT, dir_fd=request.staging_fd))
        return Answer(Word.DONE)

    hands = _Hands(home, FileSystem(), replace)
    with hands as copier:
        assert isinstance(copier.stage(hands.home_fd, b"x.db", b"staged"), Uncopied)


def test_an_ordinary_file_costs_no_process_and_no_copy(home: Path) -> None:
    (home / "note").write_text("text")
    (home / "note-wal").write_text("text")
    (home / "x.db-wal").rename(home / "elsewhere")

    def refuse(request: Request, cancelled: object) -> Answer:
        raise AssertionError

    hands = _Hands(home, FileSystem(), refuse)
    with hands as copier:
        for name in (b"x.db", b"note", b"note-wal"):
            assert copier.stage(hands.home_fd, name, b"staged") == Ordinary()
        assert copier.stage(hands.home_fd, b"note", b"staged", changing=True) == Ordinary()
        with pytest.raises(FileNotFoundError):
            copier.stage(hands.home_fd, b"absent", b"staged", changing=True)


def test_a_copy_has_the_mode_and_the_time_of_its_database_and_nothing_beside_it(home: Path) -> None:
    (home / "x.db").chmod(0o640)
    os.utime(home / "x.db", ns=(5, 10**18))
    os.utime(home / "x.db-wal", ns=(5, 10**18 + 7))
    hands = _Hands(home, FileSystem())
    with hands as copier:
        result = copier.stage(hands.home_fd, b"x.db", b"staged")
    assert isinstance(result, Copied)
    status = os.fstat(result.fd)
    os.close(result.fd)
    assert (status.st_mode & 0o777, status.st_mtime_ns, result.entry.mtime_ns) == (0o640, 10**18 + 7, 10**18 + 7)
    assert result.entry.ino == (home / "x.db").stat().st_ino
    assert hands.staged == ["staged"]
    with closing(sqlite3.connect(hands.staging / "staged")) as connection:
        assert connection.execute("SELECT a FROM t").fetchall() == [(1,)]


def _written_back(request: Request, cancelled: object) -> Answer:
    """What the helper does to a copy at rest, in this process."""
    target = database_helper.MeantFile(request.staging_fd, request.target_fd, request.target_name)
    with closing(sqlite3.connect(f"/proc/self/fd/{request.staging_fd}/{os.fsdecode(target.name)}")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Answer(Word.DONE)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.ESTALE])
def test_every_call_that_fails_is_an_error_or_no_matter_and_never_half_a_copy(home: Path, number: int) -> None:
    at, happened = 0, True
    while happened:
        at += 1
        fs = FaultyFileSystem(Fault(at=at, number=number))
        hands = _Hands(home, fs, _written_back)
        opened = len(os.listdir("/proc/self/fd"))
        with hands as copier:
            result: object = None
            with suppress(OSError):
                result = copier.stage(hands.home_fd, b"x.db", b"staged")
            if isinstance(result, Copied):
                os.close(result.fd)
                with closing(sqlite3.connect(f"file:{hands.staging}/staged?immutable=1", uri=True)) as connection:
                    assert connection.execute("SELECT a FROM t").fetchall() == [(1,)]
            assert len(os.listdir("/proc/self/fd")) == opened
        happened = fs.happened
        for name in hands.staged:  # an unlink that failed: swept at the next start
            assert result is not None or fs.calls[at - 1] == "unlink", fs.calls[at - 1]
            (hands.staging / name).unlink()
    assert at > 20


def _request(home: Path, **changes: int) -> Request:
    staging_fd, home_fd = os.open(home.parent / "staging", os.O_RDONLY), os.open(home, os.O_RDONLY)
    target = os.open("staged", os.O_RDWR | os.O_CREAT, dir_fd=staging_fd)
    source = os.open("x.db", os.O_RDONLY, dir_fd=home_fd)
    return Request(
        "backup", 1 << 30, changes.get("deadline_s", 20), staging_fd, target, b"staged", home_fd, source, b"x.db"
    )


@pytest.mark.parametrize(
    ("program", "answer"),
    [
        ("print('busy a reason')", Answer(Word.BUSY, "a reason")),
        ("print('busy \\x1b[2J')", Answer(Word.BUSY, "\\x1b[2J")),
        ("pass", Answer(Word.FAILED, "SQLite's process ended with 0, and no answer")),
        ("raise SystemExit(3)", Answer(Word.FAILED, "SQLite's process ended with 3, and no answer")),
        ("import os; os.kill(os.getpid(), 11)", Answer(Word.FAILED, "SQLite's process was killed by SIGSEGV")),
        ("import os; os.close(0); print('done')", Answer(Word.DONE)),
        ("print('done'); print('done')", None),
        ("print('done', end='')", None),
        ("print('cancelled')", None),
        ("print('perfect')", None),
        ("print('x' * 100000)", None),
        ("import time; print('done', flush=True); time.sleep(60)", None),
        ("import os, time; os.fork(); time.sleep(60)", None),
    ],
)
def test_whatever_the_process_does_is_an_answer(
    home: Path, tmp_path: Path, program: str, answer: Answer | None
) -> None:
    script = tmp_path / "program.py"
    script.write_text(program)
    started_s = time.monotonic()
    said = ask(_request(home, deadline_s=1), lambda: False, program=str(script))
    assert time.monotonic() - started_s < 5.0
    if answer is None:
        assert said.word is Word.FAILED
        assert said.reason
    else:
        assert said == answer
    marked = [pid for pid in os.listdir("/proc") if pid.isdigit() and str(script).encode() in _command_line(pid)]
    assert marked == []


def _command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_request_that_is_cancelled_starts_nothing(home: Path) -> None:
    hands = _Hands(home, FileSystem(), _answers(Answer(Word.CANCELLED)))
    with hands as copier, pytest.raises(Cancelled):
        copier.stage(hands.home_fd, b"x.db", b"staged")
    assert hands.staged == []
    assert ask(_request(home), lambda: True, program="/absent").word is Word.CANCELLED


def test_nothing_from_the_environment_or_the_directory_is_imported(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "sqlite3.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    monkeypatch.setenv("PYTHONPATH", str(evil))
    monkeypatch.chdir(evil)
    (home / "x.db-wal").unlink()
    ask(_request(home), lambda: False)
    assert not (tmp_path / "imported").exists()


def test_a_file_that_was_not_meant_makes_a_copy_worthless(tmp_path: Path) -> None:
    for name in ("meant", "other"):
        (tmp_path / name).touch()
    known = database_helper.open_files()
    meant = (tmp_path / "meant").stat()
    needed = {(meant.st_dev, meant.st_ino)}
    with pytest.raises(database_helper.Outcome):
        database_helper.prove(known, needed, set())
    with (tmp_path / "meant").open():
        database_helper.prove(known, needed, set())
        other = (tmp_path / "other").open()
        with pytest.raises(database_helper.Outcome):
            database_helper.prove(known, needed, set())
        other.close()


_CONFINED = """
import os
from sidecar.sqlite import helper as h
fd = os.open("in", os.O_RDONLY)
h.confine({fd: h._READ_FILE})
made = os.O_WRONLY | os.O_CREAT
for name, flags in (("in/a", os.O_RDONLY), ("in/a", os.O_RDWR), ("in/b", made), ("out", os.O_RDONLY)):
    try:
        os.open(name, flags)
        print("opened")
    except PermissionError:
        print("refused")
"""


def test_a_confined_process_opens_what_is_meant_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").touch()
    (tmp_path / "out").touch()
    said = subprocess.run(
        [sys.executable, "-c", _CONFINED],
        cwd=tmp_path,
        env={"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    if said == ["opened"] * 4:
        pytest.skip("this kernel has no Landlock")
    assert said == ["opened", "refused", "refused", "refused"]


def test_the_cap_holds_for_each_of_its_files(home: Path) -> None:
    hands = _Hands(home, FileSystem())
    with hands:
        small = DatabaseCopier(FileSystem(), Clock(), hands.staging_fd, 4096, lambda: False)
        result = small.stage(hands.home_fd, b"x.db", b"staged")
    assert result == TooLarge("larger than the cap of 4096 bytes")
