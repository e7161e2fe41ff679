"""A program that writes to a SQLite database: every transaction keeps a rule that a torn copy would break.

``credit`` and ``debit`` get the same row, and ``balance`` their count. It says ``ready`` when the first is committed,
and at the end the longest time that one took, in seconds.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import time


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--mode", default="wal")
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--ballast-mib", type=int, default=0)
    parser.add_argument("--then", choices=("end", "wait", "spill"), default="end")
    parser.add_argument("--exclusive", action="store_true")
    chosen = parser.parse_args()
    connection = sqlite3.connect(os.fsencode(chosen.path), isolation_level=None, timeout=5.0)
    if chosen.exclusive:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
    connection.execute(f"PRAGMA journal_mode={chosen.mode}")
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE IF NOT EXISTS credit (at REAL, filler BLOB)")
    connection.execute("CREATE TABLE IF NOT EXISTS debit (at REAL, filler BLOB)")
    connection.execute("CREATE TABLE IF NOT EXISTS balance (count INTEGER)")
    if not connection.execute("SELECT count(*) FROM balance").fetchone()[0]:
        connection.execute("INSERT INTO balance VALUES (0)")
    connection.execute("CREATE TABLE IF NOT EXISTS ballast (filler BLOB)")
    for _ in range(chosen.ballast_mib):
        connection.execute("INSERT INTO ballast VALUES (zeroblob(1 << 20))")
    connection.execute("COMMIT")
    for _ in range(chosen.rows):
        transact(connection)
    transact(connection)
    print("ready", flush=True)
    longest_s, end_at = 0.0, time.monotonic() + chosen.seconds
    while time.monotonic() < end_at:
        started_s = time.monotonic()
        transact(connection)
        longest_s = max(longest_s, time.monotonic() - started_s)
    if chosen.then == "spill":  # a transaction that is half on disk and never ends
        connection.execute("PRAGMA cache_size=1")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE credit SET filler = randomblob(700)")
        connection.execute("DELETE FROM debit")
        print("spilled", flush=True)
    if chosen.then != "end":
        sys.stdin.read()
    connection.close()
    print(longest_s)


def transact(connection: sqlite3.Connection) -> None:
    """One transaction, with the time at which it began."""
    now = time.time()
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO credit VALUES (?, randomblob(700))", (now,))
    connection.execute("INSERT INTO debit VALUES (?, randomblob(700))", (now,))
    connection.execute("UPDATE balance SET count = count + 1")
    connection.execute("COMMIT")


if __name__ == "__main__":
    main()
