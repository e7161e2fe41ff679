from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.text import columns, quoted, table, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("a\nb\x1b[2J", "a\\u000ab\\u001b[2J"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
        ("a\u2028b\u200bc", "a\\u2028b\\u200bc"),
        ("\U000e0041", "\\U000e0041"),
        ("⚙️ müde 漢字", "⚙️ müde 漢字"),
        ("x" * 200, "x" * 119 + "…"),
    ],
)
def test_what_cannot_be_seen_is_made_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(st.characters(exclude_categories=())), st.integers(2, 50))
def test_any_text_becomes_one_printable_line_of_bounded_length(text: str, limit: int) -> None:
    for shown in (visible(text, limit=limit), quoted(text, limit=limit)):
        assert shown.isprintable()
        shown.encode()
        assert len(shown) <= limit + 2


@pytest.mark.parametrize(
    ("text", "wide"), [("", 0), ("abc", 3), ("💻", 2), ("⚙️", 2), ("漢字", 4), ("mu\u0308ller", 6), ("e\u0301", 1)]
)
def test_the_width_is_that_of_a_terminal(text: str, wide: int) -> None:
    assert columns(text) == wide


def test_a_table_is_aligned_whatever_is_in_it() -> None:
    lines = table([("name", "n"), ("💻 漢字", "1"), ("mu\u0308ller", "2"), ("a\nb", "3")])
    assert len(lines) == 4
    assert {columns(line[:-1]) for line in lines} == {10}
    assert lines[-1] == "a\\u000ab  3"
