"""A SQLite database in a home is one whole file in the mirror, however it is written."""

from __future__ import annotations

import select
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.processes import Place, wait_until

_WRITER = """
import sqlite3, sys, time
path, mode, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
db = sqlite3.connect(path, timeout=20)
db.execute(f"PRAGMA journal_mode={mode}")
db.execute("CREATE TABLE IF NOT EXISTS a (n INTEGER)")
db.execute("CREATE TABLE IF NOT EXISTS b (n INTEGER, fill BLOB)")
ends = time.monotonic() + seconds
n = 0
while time.monotonic() < ends:
    n += 1
    with db:
        db.execute("INSERT INTO a VALUES (?)", (n,))
        db.execute("INSERT INTO b VALUES (?, randomblob(3000))", (n,))
print(n, flush=True)
sys.stdin.readline()
"""


def _state(path: Path, scratch: Path) -> int | None:
    """The last transaction in the copy at ``path``, opened alone; None where there is none yet."""
    alone = scratch / "alone.db"
    try:
        shutil.copy(path, alone)
    except FileNotFoundError:
        return None
    with closing(sqlite3.connect(alone)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables < 2:
            return 0
        (first,) = db.execute("SELECT coalesce(max(n), 0) FROM a").fetchone()
        (second,) = db.execute("SELECT coalesce(max(n), 0) FROM b").fetchone()
        assert first == second, "half a transaction"
        return int(first)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_database_under_load_is_whole_at_every_moment_and_complete_at_the_end(place: Place, mode: str) -> None:
    scratch = place.top / "scratch"
    scratch.mkdir()
    process = place.start()
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(place.home / "work.db"), mode, "6"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    seen: list[int] = []
    try:
        while writer.poll() is None and len(seen) < 400:
            state = _state(place.mirror / "work.db", scratch)
            seen += [] if state is None else [state]
            assert not [p.name for p in place.mirror.iterdir() if p.name.endswith(("-wal", "-shm", "-journal"))]
            if select.select([writer.stdout], [], [], 0.02)[0]:
                break
        last = int(writer.stdout.readline())
        assert len(set(seen)) >= 2, "it was not saved while it was written"
        # The writer has it open still: with WAL, most of it is in the log alone.
        assert place.end(process) == 0
        assert _state(place.mirror / "work.db", scratch) == last
    finally:
        writer.kill()
        writer.communicate()


def _skipped(place: Place) -> set[tuple[str, str]]:
    return {(item["path"], item["reason"]) for item in place.status()["skipped"]}


def test_the_log_of_a_database_comes_neither_into_the_mirror_nor_back(place: Place) -> None:
    process = place.start()
    with closing(sqlite3.connect(place.home / "work.db")) as db:
        db.execute("PRAGMA journal_mode=wal")
        db.execute("CREATE TABLE t (n INTEGER)")
        with db:
            db.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(1000)])
        assert (place.home / "work.db-wal").stat().st_size > 0
        wait_until((place.mirror / "work.db").exists, "it is saved")
        reason = "part of the database work.db, which is saved as a whole"
        wait_until(lambda: ("work.db-wal", reason) in _skipped(place), "it says why the log is not")
        assert place.end(process) == 0
    place.new_home()
    process = place.start()
    assert sorted(p.name for p in place.home.iterdir()) == ["Save", "work.db"]
    with closing(sqlite3.connect(place.home / "work.db")) as db:
        assert db.execute("SELECT count(*) FROM t").fetchone() == (1000,)
    assert place.end(process) == 0


def test_an_idle_database_with_a_log_is_saved_once(place: Place) -> None:
    place.settings = {"SIDECAR_SCAN_INTERVAL": "0.3"}
    process = place.start()
    with closing(sqlite3.connect(place.home / "work.db")) as db:
        db.execute("PRAGMA journal_mode=wal")
        with db:
            db.execute("CREATE TABLE t (n INTEGER)")
        place.flush()
        inode = (place.mirror / "work.db").stat().st_ino
        time.sleep(2)
        assert (place.mirror / "work.db").stat().st_ino == inode, "its own reading made it save again"
    assert place.end(process) == 0
