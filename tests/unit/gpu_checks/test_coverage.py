"""The last gate: of all states in which the checks of a run can be, only a whole run is a pass."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from gpu_checks.coverage import shortfall
from gpu_checks.result import Check, Verdict, exit_code, worst

PASS, WARN, UNKNOWN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.UNKNOWN, Verdict.FAIL
STATES = (*Verdict, None)  # None: the check is missing, or was skipped
REQUIRED = (("driver", ""), ("count", ""), ("memory", "A"), ("kernel", "A"), ("memory", "B"), ("kernel", "B"))
EXPECTATIONS = (None, 0, 1, 2, 3)


def verdict_of(checks: tuple[Check, ...], expected: int | None) -> Verdict:
    return worst(check.verdict for check in (*checks, *shortfall(checks, expected)))


def every_run() -> Iterator[tuple[dict[tuple[str, str], Verdict | None], int | None, Verdict | None]]:
    for states in itertools.product(STATES, repeat=len(REQUIRED)):
        for expected, optional in itertools.product(EXPECTATIONS, (PASS, None)):
            yield dict(zip(REQUIRED, states, strict=True)), expected, optional


def test_of_all_runs_only_a_whole_one_exits_with_0_for_somebody_who_asked_for_gpus() -> None:
    walked = passed = 0
    for states, expected, optional in every_run():
        checks = tuple(Check(name, state, gpu=gpu) for (name, gpu), state in states.items() if state is not None)
        if optional is not None:
            checks += (Check("nvml", optional),)
        walked += 1
        if exit_code(verdict_of(checks, expected), strict=False) != 0:
            continue
        if expected == 0:
            assert all(state in (PASS, WARN, None) for state in states.values())
            continue
        passed += 1
        whole = [gpu for gpu in "AB" if all(states[name, gpu] in (PASS, WARN) for name in ("memory", "kernel"))]
        begun = [gpu for gpu in "AB" if any(states[name, gpu] for name in ("memory", "kernel"))]
        assert states["driver", ""] in (PASS, WARN), states
        assert states["count", ""] in (PASS, WARN), states
        assert len(whole) >= (expected or 1), states
        assert begun == whole, states
    assert walked == 5**6 * 5 * 2
    assert passed == 2**2 * 2 * (2 * 2 * 4 + 2 * 16 + 16), "expected None and 1: one GPU or both; 2: both; never 3"


def test_what_is_whole_has_no_shortfall() -> None:
    checks = tuple(Check(name, PASS, gpu=gpu) for name, gpu in REQUIRED)
    for expected in (None, 0, 1, 2):
        assert shortfall(checks, expected) == ()
        assert shortfall((), 0) == ()


def test_the_shortfall_says_what_is_missing() -> None:
    (check,) = shortfall((Check("count", PASS), Check("memory", PASS, gpu="A")), 2)
    assert check.verdict is UNKNOWN
    assert check.detail == "not carried out: driver, the tests of 2 GPU"
    assert check.cause
    assert check.user_action


def test_a_gpu_that_was_tested_is_not_missing() -> None:
    checks = tuple(Check(name, PASS, gpu=gpu) for name, gpu in REQUIRED if gpu != "B")
    assert [check.detail for check in shortfall(checks, 3)] == ["not carried out: the tests of 2 GPU"]


def test_a_check_that_stands_there_twice_must_hold_twice() -> None:
    checks = tuple(Check(name, PASS, gpu=gpu) for name, gpu in REQUIRED)
    assert shortfall((*checks, Check("memory", FAIL, gpu="A")), 1)
