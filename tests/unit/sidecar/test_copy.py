"""A copy counts only where nothing touched the source while it was read."""

from __future__ import annotations

import os

import pytest

from sidecar.copy import TICK_NS, untouched

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
