"""The lattice of verdicts, the exit codes, and what text may contain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_checks.result import Verdict, exit_code, plain, worst


def test_fail_beats_unknown_beats_warn_beats_pass() -> None:
    order = [Verdict.PASS, Verdict.WARN, Verdict.UNKNOWN, Verdict.FAIL]
    for position, verdict in enumerate(order):
        for other in order[: position + 1]:
            assert worst([verdict, other]) is worst([other, verdict]) is verdict


def test_nothing_checked_is_unknown() -> None:
    assert worst([]) is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("verdict", "code", "strict"),
    [(Verdict.PASS, 0, 0), (Verdict.WARN, 0, 1), (Verdict.UNKNOWN, 3, 3), (Verdict.FAIL, 2, 2)],
)
def test_exit_codes(verdict: Verdict, code: int, strict: int) -> None:
    assert exit_code(verdict, strict=False) == code
    assert exit_code(verdict, strict=True) == strict


def test_control_and_bidirectional_characters_become_visible() -> None:
    assert plain("A100\x1b[31m\n\u202egpj\u2028\x00") == "A100\\x1b[31m\\n\\u202egpj\\u2028\\x00"


def test_a_text_that_fits_stays_and_a_longer_one_says_so() -> None:
    assert plain("x" * 100, 100) == "x" * 100
    assert plain("x" * 101, 100) == "x" * 99 + "…"


@given(st.text(st.characters(), max_size=400))
def test_text_is_one_printable_line_within_the_limit(text: str) -> None:
    shown = plain(text, 100)
    assert len(shown) <= 100
    assert shown.isprintable() or not text.isprintable()
    assert len(shown.splitlines()) <= 1
