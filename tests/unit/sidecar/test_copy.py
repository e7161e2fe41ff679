"""A copy counts only where nothing touched the source while it was read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar.clock import Clock
from sidecar.copy import TICK_NS, Copier, Source, Staged, untouched
from sidecar.entry import Entry
from sidecar.fsops import FileSystem

_START, _END = 10 * TICK_NS, 12 * TICK_NS


def _status(*, size: int = 5, mtime_ns: int = 0, ctime_ns: int = 0) -> os.stat_result:
    fields = (0o100644, 1, 1, 1, 0, 0, size, 0, mtime_ns // 10**9, ctime_ns // 10**9)
    return os.stat_result((*fields, 0.0, 0.0, 0.0, 0, mtime_ns, ctime_ns))


@pytest.mark.parametrize(
    ("before", "after", "is_untouched"),
    [
        (_status(), _status(), True),
        (_status(), _status(size=6), False),
        (_status(), _status(mtime_ns=1), False),
        (_status(), _status(ctime_ns=1), False),  # touch -r sets mtime back, and never ctime
        (_status(ctime_ns=_START), _status(ctime_ns=_START), False),  # within the reading's own tick
        (_status(ctime_ns=_START - TICK_NS), _status(ctime_ns=_START - TICK_NS), False),
        (_status(ctime_ns=_START - TICK_NS - 1), _status(ctime_ns=_START - TICK_NS - 1), True),
        (_status(ctime_ns=_END + TICK_NS), _status(ctime_ns=_END + TICK_NS), False),
        (_status(ctime_ns=_END + TICK_NS + 1), _status(ctime_ns=_END + TICK_NS + 1), True),  # the clock was set back
    ],
)
def test_whether_a_source_was_touched_while_it_was_read(
    before: os.stat_result, after: os.stat_result, is_untouched: bool
) -> None:
    assert untouched(before, after, _START, _END) is is_untouched


class _Shifted(Clock):
    """Reads ``offset_ns`` later than the clock that stamps files; waiting moves it."""

    def __init__(self, offset_ns: int) -> None:
        self.offset_ns = offset_ns
        self.waited_s: list[float] = []

    def now_ns(self) -> int:
        return super().now_ns() + self.offset_ns

    def sleep(self, seconds: float) -> None:
        self.waited_s.append(seconds)
        self.offset_ns += int(seconds * 1e9)


class _Reading(FileSystem):
    """Counts how often something was read."""

    def __init__(self) -> None:
        self.reads = 0

    def read(self, fd: int, count: int) -> bytes:
        self.reads += 1
        return super().read(fd, count)


@pytest.mark.parametrize(
    ("age_ns", "waits"), [(0, True), (TICK_NS // 2, True), (-TICK_NS // 2, True), (10**9, False), (-(10**9), False)]
)
def test_what_has_just_changed_is_read_once_and_no_sooner_than_that_proves_something(
    tmp_path: Path, age_ns: int, waits: bool
) -> None:
    (tmp_path / "file").write_text("content")
    status = (tmp_path / "file").stat()
    clock, fs = _Shifted(0), _Reading()
    clock.offset_ns = status.st_ctime_ns + age_ns - clock.now_ns()
    entry = Entry.of(status)
    assert entry is not None
    directory_fd = os.open(tmp_path, os.O_RDONLY)
    try:
        copier = Copier(fs, clock, directory_fd, 1 << 20, clock.sleep, lambda: False)
        staged = copier.stage(Source(b"file", directory_fd, entry), b"staged", harden_later=False)
    finally:
        os.close(directory_fd)
    assert isinstance(staged, Staged)
    assert fs.reads == 1
    assert len(clock.waited_s) == waits
    assert sum(clock.waited_s) < 2 * TICK_NS / 1e9
    assert (tmp_path / "staged").read_text() == "content"
