"""Counters: what has grown is told, and only growth that means lost data is a warning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpu_checks.counters import SERIOUS, USUAL, counter_check
from gpu_checks.facts import Facts, Health, Heard
from gpu_checks.result import Check, Verdict
from gpu_checks.verdict import judge

from .cases import WELL, healthy, nvml, uuid


def well(name: str, value: int | None) -> Health:
    """All is well, and this counter stands there."""
    changes: dict[str, Any] = {name: value}
    return replace(WELL, **changes)


def compared(before: Health, now: Health) -> Check:
    return counter_check("GPU-1", before, now, before_at="yesterday")


@pytest.mark.parametrize("name", sorted({**SERIOUS, **USUAL}))
def test_growth_is_told_and_serious_growth_warns(name: str) -> None:
    check = compared(well(name, 2), well(name, 5))
    assert check.verdict is (Verdict.WARN if name in SERIOUS else Verdict.PASS)
    assert check.detail == f"{ {**SERIOUS, **USUAL}[name] } 2 → 5 since yesterday"
    assert bool(check.user_action and check.admin_action) == (name in SERIOUS)


@pytest.mark.parametrize("name", sorted({**SERIOUS, **USUAL}))
@pytest.mark.parametrize(("before", "now"), [(5, 5), (5, 2), (None, 5), (5, None), (None, None)])
def test_what_has_not_grown_or_is_not_known_is_no_change(name: str, before: int | None, now: int | None) -> None:
    check = compared(well(name, before), well(name, now))
    assert (check.verdict, check.detail) == (Verdict.PASS, "no higher than in the last report")


def facts(gpu: str, before: Health) -> Facts:
    return replace(
        healthy(),
        nvml=Heard(nvml(health=replace(WELL, retired_pages=3))),
        before=((gpu, before),),
        before_at="yesterday",
    )


def test_the_same_gpu_is_known_by_its_uuid() -> None:
    judgement = judge(facts("GPU-" + uuid(0), WELL), 1)
    assert judgement.verdict is Verdict.WARN
    assert [check.gpu for check in judgement.checks if check.name == "counters"] == ["GPU-" + uuid(0)]


@pytest.mark.parametrize("gpu", ["GPU-" + uuid(1), ""])
def test_another_gpu_is_not_compared(gpu: str) -> None:
    judgement = judge(facts(gpu, WELL), 1)
    assert judgement.verdict is Verdict.PASS
    assert all(check.name != "counters" for check in judgement.checks)
