"""Where the expectation comes from."""

from __future__ import annotations

import pytest

from gpu_checks.expect import ExpectationUnreadable, expectation


@pytest.mark.parametrize(
    ("option", "variable", "expected"),
    [
        (None, None, None),
        (None, "", None),
        (None, " 2 ", 2),
        (None, "0", 0),
        (1, "2", 1),
        (0, "2", 0),
        (2, "nonsense", 2),
        (None, "1024", 1024),
    ],
)
def test_the_option_beats_the_environment(option: int | None, variable: str | None, expected: int | None) -> None:
    environ = {} if variable is None else {"GPU_CHECK_EXPECT": variable}
    assert expectation(option, environ) == expected


@pytest.mark.parametrize("variable", ["-1", "two", "1.0", "99999", "1025", "٢", "1 2", "0x1"])
def test_an_unreadable_expectation_is_no_expectation_of_zero(variable: str) -> None:
    with pytest.raises(ExpectationUnreadable, match="GPU_CHECK_EXPECT"):
        expectation(None, {"GPU_CHECK_EXPECT": variable})
