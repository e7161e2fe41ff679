"""A file that looks like a SQLite database and is none: it is saved as it is, and so is what stands beside it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

import pytest

from tests.processes import Place, wait_until

_GARBAGE = b"SQLite format 3\0" + os.urandom(8000)


def _skipped(place: Place) -> set[str]:
    return {item["path"] for item in place.status()["skipped"]}


@pytest.mark.parametrize("content", [_GARBAGE, b""], ids=["damaged", "empty"])
def test_what_stands_beside_it_is_in_the_backup_and_comes_back(place: Place, content: bytes) -> None:
    log = os.urandom(5000)
    (place.home / "x.db").write_bytes(content)
    (place.home / "x.db-wal").write_bytes(log)
    process = place.start()
    assert place.flush()["unsaved"] == 0
    assert (place.mirror / "x.db").read_bytes() == content
    assert (place.mirror / "x.db-wal").read_bytes() == log
    assert not {"x.db", "x.db-wal"} & _skipped(place)
    assert place.end(process) == 0

    place.new_home()
    process = place.start()
    assert (place.home / "x.db-wal").read_bytes() == log
    (place.home / "x.db-wal").write_bytes(b"changed")
    wait_until(lambda: (place.mirror / "x.db-wal").read_bytes() == b"changed", "its changes are saved")
    assert place.end(process) == 0
    assert (place.mirror / "x.db").read_bytes() == content


def test_a_mended_database_is_one_file_again(place: Place) -> None:
    (place.home / "x.db").write_bytes(_GARBAGE)
    (place.home / "x.db-wal").write_bytes(b"garbage" * 1000)
    process = place.start()
    place.flush()
    assert (place.mirror / "x.db-wal").exists()
    for path in (place.home / "x.db", place.home / "x.db-wal"):
        path.unlink()
    with closing(sqlite3.connect(place.home / "x.db")) as db:
        db.execute("PRAGMA journal_mode=wal")
        with db:
            db.execute("CREATE TABLE t AS SELECT 1 AS n")
        assert place.flush()["unsaved"] == 0
        assert "x.db-wal" in _skipped(place)
        assert not (place.mirror / "x.db-wal").exists()
        with closing(sqlite3.connect(place.mirror / "x.db")) as copy:
            assert copy.execute("SELECT n FROM t").fetchall() == [(1,)]
    assert place.end(process) == 0
