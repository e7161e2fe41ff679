"""What docs/ends.md says of each way in which a pod ends is what happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kubelet.ends import ENDS, GRACE_S, End, fate
from tests.kubelet.table import PAGE, row, rows

SHORT_GRACE_S = 12.0
"""A tenth of the grace of the shipped policy: most ends need far less, and some use up all of it."""


def _case(end: End) -> object:
    return pytest.param(end, SHORT_GRACE_S, id=end.name, marks=[pytest.mark.slow] if end.slow else [])


def _in_full(name: str) -> object:
    end = next(end for end in ENDS if end.name == name)
    return pytest.param(end, GRACE_S, id=f"{name}-in-full", marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("end", "grace_s"), [*map(_case, ENDS), *map(_in_full, ("stop", "stays", "node-shutdown", "before-1.29"))]
)
def test_what_the_page_says_of_an_end_is_what_happens(end: End, grace_s: float, tmp_path: Path) -> None:
    known = fate(end, tmp_path, grace_s)
    assert row(end, known) in rows()
    assert known.told != "all is safe" or known.lost == "nothing", "false comfort"


def test_the_page_has_every_end_once_and_promises_no_more_than_it_shows() -> None:
    assert [line.split("|")[1].strip() for line in rows()] == [end.title for end in ENDS]
    text = PAGE.read_text()
    assert "**" not in text, "more was lost than is promised"
