"""The sick file system does what it is told, or no test on it means anything."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.mounts.fuse import ALL, WRITING
from tests.mounts.places import FusePlace
from tests.processes import tree, wait_until


def _point(place: FusePlace) -> Path:
    return place.seen(place.persist_inside)


def test_what_is_done_on_it_is_done_behind_it(sick: FusePlace) -> None:
    point = _point(sick)
    content = os.urandom(1_000_000)
    (point / "a" / "b").mkdir(parents=True)
    (point / "a" / "b" / "file").write_bytes(content)
    (point / "a" / "b" / "file").rename(point / "moved")
    (point / "hard").hardlink_to(point / "moved")
    (point / "link").symlink_to("a/b")
    (point / "moved").chmod(0o640)
    os.utime(point / "moved", ns=(10**18, 10**18 + 1))
    for number in range(300):
        (point / "a" / f"a-rather-long-name-{number}").touch()
    assert (point / "hard").read_bytes() == content
    assert tree(point) == tree(sick.persist)
    (point / "hard").unlink()
    (point / "a" / "b").rmdir()
    assert tree(point) == tree(sick.persist)


def test_each_operation_fails_as_it_is_told_until_it_is_well_again(sick: FusePlace) -> None:
    point = _point(sick)
    fd = os.open(point / "file", os.O_WRONLY | os.O_CREAT)
    try:
        sick.sickness.fail(errno.EIO, ["fsync"])
        os.write(fd, b"x")
        with pytest.raises(OSError, match="Input/output"):
            os.fsync(fd)
        sick.sickness.fail(errno.EPERM, ["chown"])
        os.fchmod(fd, 0o600)
        with pytest.raises(PermissionError):
            os.fchown(fd, os.getuid(), os.getgid())
        sick.sickness.fail(errno.EROFS, WRITING)
        for attempt in (lambda: os.write(fd, b"y"), lambda: os.mkdir(point / "d"), lambda: os.unlink(point / "file")):
            with pytest.raises(OSError, match="Read-only"):
                attempt()
        assert (point / "file").read_bytes() == b"x"
        sick.sickness.well()
        os.fsync(fd)
    finally:
        os.close(fd)


def test_it_is_slow_and_it_fills(sick: FusePlace) -> None:
    point = _point(sick)
    sick.sickness.slow(0.05)
    started = time.monotonic()
    os.mkdir(point / "d")  # looked up, and made
    assert time.monotonic() - started >= 0.1
    sick.sickness.fill(100_000)
    (point / "first").write_bytes(bytes(60_000))
    with pytest.raises(OSError, match="No space"):
        (point / "second").write_bytes(bytes(60_000))
    (point / "first").unlink()
    (point / "second").write_bytes(bytes(60_000))
    assert os.statvfs(point).f_bavail * os.statvfs(point).f_frsize <= 40_000


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_process_that_it_hangs_cannot_be_killed_before_it_answers(sick: FusePlace) -> None:
    sick.sickness.hang(ALL)
    program = f"import os; print(flush=True); os.listdir({str(_point(sick))!r})"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        wait_until(lambda: _state(process.pid) == "S", "it waits")
        process.send_signal(signal.SIGKILL)
        wait_until(lambda: _state(process.pid) == "D", "it is in D state")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        sick.sickness.well()
        assert process.wait(5) == -signal.SIGKILL
    finally:
        sick.sickness.close()
        process.communicate()
