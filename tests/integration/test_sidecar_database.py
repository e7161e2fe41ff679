"""SQLite databases that others write: each copy opens alone, is of one moment, and a recent one."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sidecar.clock import Clock
from sidecar.copy import Cancelled
from sidecar.entry import Entry
from sidecar.fsops import FileSystem
from sidecar.sqlite.copy import Busy, Copied, DatabaseCopier, Ordinary, TooLarge, Uncopied
from sidecar.sqlite.process import Request, Word, ask
from tests.processes import wait_until

_WRITER = Path(__file__).with_name("database_writer.py")
_CAP = 1 << 30


@dataclass(frozen=True)
class Content:
    """What a copy says of itself, opened alone in a directory of its own."""

    rows: int
    newest_at: float


class Desk:
    """A directory of a home, a staging directory, and what is copied from one to the other."""

    def __init__(self, top: Path) -> None:
        self.home, self.staging, self._alone = top / "home", top / "staging", top / "alone"
        for directory in (self.home, self.staging):
            directory.mkdir()
        self.home_fd = os.open(self.home, os.O_RDONLY | os.O_DIRECTORY)
        self.staging_fd = os.open(self.staging, os.O_RDONLY | os.O_DIRECTORY)
        self._processes: list[subprocess.Popen[str]] = []

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        os.close(self.home_fd)
        os.close(self.staging_fd)

    def copier(self, max_file_bytes: int = _CAP, cancelled: bool = False) -> DatabaseCopier:
        return DatabaseCopier(FileSystem(), Clock(), self.staging_fd, max_file_bytes, lambda: cancelled)

    def writer(self, name: bytes | str, *options: str, says: str = "ready") -> subprocess.Popen[str]:
        """A process that writes to ``name`` and has come as far as to say ``says``."""
        path = os.path.join(os.fsencode(self.home), os.fsencode(name))
        process = subprocess.Popen(
            [sys.executable, str(_WRITER), path, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._processes.append(process)
        assert process.stdout is not None
        while (line := process.stdout.readline().strip()) != says:
            assert line, "the writer died"
        return process

    def kill(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        process.communicate()

    def longest_s(self, process: subprocess.Popen[str]) -> float:
        """The longest time a transaction took, once the writer has ended well."""
        assert process.stdout is not None
        said = process.stdout.read()
        assert process.wait(60) == 0, "a writer met an error: its database was locked for too long"
        return float(said)

    def copy(self, name: bytes = b"x.db", *, changing: bool = False, at: int | None = None) -> Copied | Busy | Uncopied:
        """A try to copy ``name``; nothing of a failed one stays in the staging directory."""
        result = self.copier().stage(self.home_fd if at is None else at, name, b"staged", changing=changing)
        assert isinstance(result, Copied | Busy | Uncopied), result
        if isinstance(result, Copied):
            os.close(result.fd)
        assert os.listdir(self.staging) == (["staged"] if isinstance(result, Copied) else [])
        return result

    def finds_unreadable(self) -> None:
        """``x.db`` is to be copied like any other file, and whoever has to know was told."""
        told: list[Entry] = []
        copier = replace(self.copier(), on_unreadable=told.append)
        assert copier.stage(self.home_fd, b"x.db", b"staged") == Ordinary()
        assert told == [Entry.of((self.home / "x.db").stat())]
        assert not os.listdir(self.staging)

    def content(self) -> Content:
        """What is in the staged copy: it is whole and keeps its rule. It is gone from the staging directory then."""
        shutil.rmtree(self._alone, ignore_errors=True)
        self._alone.mkdir()
        alone = self._alone / "copy.db"
        (self.staging / "staged").rename(alone)
        with closing(sqlite3.connect(alone)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            credit = connection.execute("SELECT count(*), total(at) FROM credit").fetchone()
            debit = connection.execute("SELECT count(*), total(at) FROM debit").fetchone()
            (count,) = connection.execute("SELECT count FROM balance").fetchone()
            (newest_at,) = connection.execute("SELECT max(at) FROM credit").fetchone()
        assert credit == debit
        assert credit[0] == count
        return Content(count, newest_at)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


def _seen(directory: Path) -> dict[bytes, tuple[int, int, int, int, bytes]]:
    """Everything in ``directory`` that a reader could have changed, but for the time of the last access."""
    found = {}
    for path in [directory, *directory.iterdir()]:
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[os.fsencode(path.name)] = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, content)
    return found


@contextmanager
def _unchanged(directory: Path) -> Iterator[None]:
    before = _seen(directory)
    yield
    assert _seen(directory) == before


def _let_it_rest(desk: Desk) -> None:
    """The next look is later than the last change by more than a tick of the kernel's clock."""
    newest_ns = max(path.lstat().st_ctime_ns for path in desk.home.iterdir())
    wait_until(lambda: time.time_ns() > newest_ns + 50_000_000, "the files are older than a tick")


@pytest.mark.parametrize(
    ("mode", "writers", "mib"),
    [
        ("wal", 3, 0),
        ("delete", 2, 0),
        pytest.param("wal", 2, 24, marks=pytest.mark.slow),
        pytest.param("delete", 2, 24, marks=pytest.mark.slow),
    ],
)
def test_a_database_under_load_is_copied_whole_and_recent_and_its_writers_go_on(
    desk: Desk, mode: str, writers: int, mib: int
) -> None:
    first = desk.writer("x.db", "--mode", mode, "--seconds", "5", "--ballast-mib", str(mib))
    others = [desk.writer("x.db", "--mode", mode, "--seconds", "4") for _ in range(writers - 1)]
    copies, refused, longest_gap_s, last_s = 0, [], 0.0, time.monotonic()
    end_at = time.monotonic() + 3.5
    while time.monotonic() < end_at:
        started_at = time.time()
        result = desk.copy(changing=True)
        if isinstance(result, Copied):
            copies += 1
            longest_gap_s, last_s = max(longest_gap_s, time.monotonic() - last_s), time.monotonic()
            assert desk.content().newest_at > started_at - 3.0
        else:
            refused.append(result)
    assert copies >= 2, refused
    assert longest_gap_s < 4.0
    waits_s = [desk.longest_s(each) for each in (first, *others)]
    print(
        f"{mode} {mib} MiB: {copies} copies, {len(refused)} refused, longest gap {longest_gap_s:.2f} s, waits {waits_s}"
    )


def test_reading_a_live_database_leaves_no_trace_in_the_home(desk: Desk) -> None:
    desk.writer("x.db", "--then", "wait", "--rows", "20")
    with _unchanged(desk.home):
        request, target = _backup_request(desk, "x.db")
        assert ask(request, lambda: False).word is Word.DONE
    os.close(target)
    assert desk.content().rows == 21


def _backup_request(desk: Desk, name: str) -> tuple[Request, int]:
    target = os.open("staged", os.O_RDWR | os.O_CREAT | os.O_EXCL, dir_fd=desk.staging_fd)
    source = os.open(name, os.O_RDONLY, dir_fd=desk.home_fd)
    request = Request("backup", _CAP, 20, desk.staging_fd, target, b"staged", desk.home_fd, source, os.fsencode(name))
    return request, target


@pytest.mark.parametrize("without_shm", [False, True])
def test_what_a_killed_writer_had_committed_to_its_log_is_in_the_copy(desk: Desk, without_shm: bool) -> None:
    desk.kill(desk.writer("x.db", "--then", "wait", "--rows", "20"))
    if without_shm:
        (desk.home / "x.db-shm").unlink()
    _let_it_rest(desk)
    with _unchanged(desk.home):
        result = desk.copy()
    assert isinstance(result, Copied), result
    assert desk.content().rows == 21


def test_the_unfinished_transaction_of_a_killed_writer_is_rolled_back_in_the_copy(desk: Desk) -> None:
    desk.kill(desk.writer("x.db", "--mode", "delete", "--rows", "300", "--then", "spill", says="spilled"))
    assert (desk.home / "x.db-journal").stat().st_size > 0
    _let_it_rest(desk)
    with _unchanged(desk.home):
        result = desk.copy()
    assert isinstance(result, Copied), result
    assert desk.content().rows == 301


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_transaction_in_progress_is_not_in_the_copy(desk: Desk, mode: str) -> None:
    desk.writer("x.db", "--mode", mode, "--rows", "300", "--then", "spill", says="spilled")
    _let_it_rest(desk)
    with _unchanged(desk.home):
        result = desk.copy()
    assert isinstance(result, Copied), result
    assert desk.content().rows == 301


def test_a_database_that_its_writer_keeps_locked_is_given_up_soon(desk: Desk) -> None:
    desk.writer("x.db", "--mode", "delete", "--rows", "300", "--then", "spill", says="spilled")
    os.utime(desk.home / "x.db")  # not at rest
    started_s = time.monotonic()
    assert isinstance(desk.copy(), Busy)
    assert time.monotonic() - started_s < 8.0


def test_a_journal_that_names_another_is_not_followed(desk: Desk, tmp_path: Path) -> None:
    desk.kill(desk.writer("x.db", "--mode", "delete", "--rows", "300", "--then", "spill", says="spilled"))
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    name = os.fsencode(precious)
    with (desk.home / "x.db-journal").open("ab") as journal:
        checksum = sum(name) & 0xFFFFFFFF
        journal.write(b"\0\0\0\1" + name + len(name).to_bytes(4, "big") + checksum.to_bytes(4, "big"))
        journal.write(bytes.fromhex("d9d505f920a163d7"))
    _let_it_rest(desk)
    result = desk.copy()
    assert isinstance(result, Uncopied)
    assert "several databases" in result.reason
    assert precious.read_bytes() == b"mine"


def test_a_database_that_one_process_keeps_locked_is_copied_when_it_rests(desk: Desk) -> None:
    desk.writer("x.db", "--exclusive", "--rows", "20", "--then", "wait")
    assert isinstance(desk.copy(), Busy)  # just written: neither at rest, nor ours to read
    _let_it_rest(desk)
    with _unchanged(desk.home):
        assert isinstance(desk.copy(), Copied)
    assert desk.content().rows == 21


def test_a_database_that_was_closed_is_an_ordinary_file_and_stays_as_it_is(desk: Desk) -> None:
    desk.longest_s(desk.writer("x.db"))
    with _unchanged(desk.home):
        assert isinstance(desk.copier().stage(desk.home_fd, b"x.db", b"staged"), Ordinary)
        assert isinstance(desk.copy(changing=True), Busy)
    assert os.listdir(desk.staging) == []


_NAMES = [
    b"a b?mode=rwc#x%41&vfs=none.db",
    b"line\nbreak\t.db",
    b"\xff\xfe not utf-8",
    b":memory:",
    b"-rf",
    "grüße 你好".encode(),
    b"n" * 247,
]


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize("at_rest", [True, False])
def test_no_name_means_anything_else(desk: Desk, name: bytes, at_rest: bool) -> None:
    desk.writer(name, "--rows", "5", "--then", "wait")
    if at_rest:
        _let_it_rest(desk)
    else:
        os.utime(name, dir_fd=desk.home_fd)
    assert isinstance(desk.copy(name), Copied)
    assert desk.content().rows == 6


def test_a_name_too_long_for_a_log_is_copied_without_one(desk: Desk) -> None:
    name = "n" * 255
    with closing(sqlite3.connect(desk.home / "x.db")) as connection, connection:
        connection.execute("CREATE TABLE t (a)")
    (desk.home / "x.db").rename(desk.home / name)
    assert isinstance(desk.copier().stage(desk.home_fd, name.encode(), b"staged"), Ordinary)
    assert isinstance(desk.copy(name.encode(), changing=True), Copied)


@pytest.mark.parametrize("levels", [4, 30])
def test_a_path_too_long_for_sqlite_is_copied_when_it_rests_and_named_when_it_does_not(desk: Desk, levels: int) -> None:
    desk.kill(desk.writer("x.db", "--rows", "5", "--then", "wait"))
    deep_fd = os.dup(desk.home_fd)
    for _ in range(levels):
        os.mkdir(b"d" * 200, dir_fd=deep_fd)
        below_fd = os.open(b"d" * 200, os.O_RDONLY, dir_fd=deep_fd)
        os.close(deep_fd)
        deep_fd = below_fd
    for name in ("x.db", "x.db-wal", "x.db-shm"):
        os.rename(name, name, src_dir_fd=desk.home_fd, dst_dir_fd=deep_fd)
    os.utime("x.db", dir_fd=deep_fd)
    result = desk.copy(at=deep_fd)
    assert result == Uncopied("its path is too long for SQLite")
    newest_ns = os.stat("x.db", dir_fd=deep_fd).st_ctime_ns
    wait_until(lambda: time.time_ns() > newest_ns + 50_000_000, "it is older than a tick")
    assert isinstance(desk.copy(at=deep_fd), Copied)
    os.close(deep_fd)
    assert desk.content().rows == 6
    subprocess.run(["rm", "-rf", str(desk.home)], check=True)  # too deep for Python's own


def test_what_sqlite_cannot_read_is_copied_like_any_other_file_and_so_is_its_log(desk: Desk) -> None:
    desk.kill(desk.writer("x.db", "--rows", "300", "--then", "wait"))
    (desk.home / "x.db").write_bytes(b"SQLite format 3\0" + os.urandom(5000))
    (desk.home / "x.db-wal").write_bytes(os.urandom(5000))
    _let_it_rest(desk)
    desk.finds_unreadable()


@pytest.mark.parametrize("kept_bytes", [17, 100, 1000, 5000])
@pytest.mark.parametrize("at_rest", [True, False])
def test_a_truncated_database_is_a_value(desk: Desk, kept_bytes: int, at_rest: bool) -> None:
    desk.longest_s(desk.writer("x.db", "--mode", "delete", "--rows", "50"))
    whole = (desk.home / "x.db").read_bytes()
    (desk.home / "x.db").write_bytes(whole[:kept_bytes])
    (desk.home / "x.db-journal").write_bytes(b"x" * 600)
    if at_rest:
        _let_it_rest(desk)
        desk.finds_unreadable()
    else:
        result = desk.copy()
        assert isinstance(result, Busy | Uncopied), result
        assert result.reason


@pytest.mark.parametrize("at_rest", [True, False])
def test_a_copy_larger_than_the_cap_is_named_though_each_of_its_files_is_smaller(desk: Desk, at_rest: bool) -> None:
    cap = 400_000
    with closing(sqlite3.connect(desk.home / "x.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE t (a)")
        connection.execute("INSERT INTO t VALUES (randomblob(250000))")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("INSERT INTO t VALUES (randomblob(250000))")
        assert max(path.stat().st_size for path in desk.home.iterdir()) < cap
        if at_rest:
            _let_it_rest(desk)
        result = desk.copier(cap).stage(desk.home_fd, b"x.db", b"staged")
    assert result == TooLarge(f"larger than the cap of {cap} bytes")
    assert os.listdir(desk.staging) == []


def test_a_cancelled_copy_leaves_nothing(desk: Desk) -> None:
    desk.writer("x.db", "--rows", "5", "--then", "wait")
    with pytest.raises(Cancelled):
        desk.copier(cancelled=True).stage(desk.home_fd, b"x.db", b"staged", changing=True)
    assert os.listdir(desk.staging) == []


def test_no_process_outlives_its_deadline(desk: Desk) -> None:
    desk.writer("x.db", "--rows", "5", "--then", "wait", "--exclusive")
    request, target = _backup_request(desk, "x.db")
    hasty = Request(request.verb, _CAP, 0, desk.staging_fd, target, b"staged", desk.home_fd, request.source_fd, b"x.db")
    started_s = time.monotonic()
    answer = ask(hasty, lambda: False)
    os.close(target)
    assert answer.word is Word.FAILED
    assert "more than 0 s" in answer.reason
    assert time.monotonic() - started_s < 2.0
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert [pid for pid in children if b"sqlite/helper.py" in Path(f"/proc/{pid}/cmdline").read_bytes()] == []
    with suppress(ChildProcessError):
        assert os.waitpid(-1, os.WNOHANG) == (0, 0)


def test_a_directory_swapped_for_another_never_lends_its_content(tmp_path: Path, desk: Desk) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with closing(sqlite3.connect(outside / "x.db")) as secret, secret:
        secret.execute("CREATE TABLE secret (a)")
    desk.writer("x.db", "--then", "wait", "--rows", "5")
    secret = sqlite3.connect(outside / "x.db", isolation_level=None)
    secret.execute("PRAGMA journal_mode=wal")
    secret.execute("INSERT INTO secret VALUES ('of somebody else')")
    before = _seen(outside)
    swap = f"""
import os
while True:
    os.rename({str(desk.home)!r}, {str(desk.home) + "-aside"!r}); os.symlink({str(outside)!r}, {str(desk.home)!r})
    os.unlink({str(desk.home)!r}); os.rename({str(desk.home) + "-aside"!r}, {str(desk.home)!r})
"""
    attacker = subprocess.Popen([sys.executable, "-c", swap])
    try:
        copies = 0
        for _ in range(40):
            os.utime("x.db", dir_fd=desk.home_fd)  # not at rest: SQLite has to open it by its path
            result = desk.copy()
            if isinstance(result, Copied):
                copies += 1
                assert desk.content().rows == 6
            else:
                assert isinstance(result, Busy), result
        assert copies
    finally:
        attacker.kill()
        attacker.wait()
    assert _seen(outside) == before
    secret.close()


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_a_planted_link_is_not_followed(desk: Desk, tmp_path: Path, suffix: str) -> None:
    desk.kill(desk.writer("x.db", "--rows", "20", "--then", "wait"))
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("x.db", "x.db-wal", "x.db-shm"):
        shutil.copy(desk.home / name, outside / name)
    shutil.copy(outside / "x.db-wal", outside / "x.db-journal")
    (desk.home / ("x.db" + suffix)).unlink(missing_ok=True)
    (desk.home / ("x.db" + suffix)).symlink_to(outside / ("x.db" + suffix))
    with _unchanged(outside):
        for changing in (False, True):
            try:
                result = desk.copier().stage(desk.home_fd, b"x.db", b"staged", changing=changing)
            except OSError:
                continue
            if isinstance(result, Copied):
                os.close(result.fd)
                assert suffix in ("-journal", "-shm")
                assert desk.content().rows == 21


_ASKER = """
import os, sys
from sidecar.sqlite.process import Request, ask
home, staging = (os.open(path, os.O_RDONLY) for path in sys.argv[1:3])
source = os.open("x.db", os.O_RDWR, dir_fd=home)
target = os.open("t", os.O_RDWR | os.O_CREAT, dir_fd=staging)
ask(Request("backup", 1 << 30, 30, staging, target, b"t", home, source, b"x.db"), lambda: False)
"""


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _opened(pid: int, path: Path) -> int:
    found = 0
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found += fd.readlink() == path
    return found


def _is_gone(pid: int) -> bool:
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def test_nothing_reads_or_writes_for_a_process_that_is_gone(desk: Desk) -> None:
    desk.kill(desk.writer("x.db", "--mode", "delete", "--rows", "50", "--then", "wait"))
    path = desk.home / "x.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        asker = subprocess.Popen([sys.executable, "-c", _ASKER, str(desk.home), str(desk.staging)])
        try:
            wait_until(lambda: _children(asker.pid), "SQLite has its process")
            (helper,) = _children(asker.pid)
            wait_until(lambda: _opened(helper, path) > 1, "it waits for the lock")
        finally:
            asker.kill()
            asker.wait()
        wait_until(lambda: _is_gone(helper), "it is gone too, and not only when its patience ends", 1)
