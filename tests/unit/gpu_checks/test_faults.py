"""The table of faults: each known symptom leads to its cause, and each cause to a remedy for two people."""

from __future__ import annotations

import pytest

from gpu_checks import faults
from gpu_checks.diagnosis import RULES, Symptoms, diagnose
from gpu_checks.faults import Fault

ALL = {name: value for name, value in vars(faults).items() if isinstance(value, Fault)}


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        (Symptoms(cuda=35), faults.DRIVER_TOO_OLD),
        (Symptoms(cuda=35, versionless=True), faults.NO_DRIVER),
        (Symptoms(cuda=36), faults.DRIVER_TOO_OLD),
        (Symptoms(cuda=-1), faults.DRIVER_TOO_OLD),
        (Symptoms(cuda=34), faults.STUB_LIBRARY),
        (Symptoms(cuda=803, nvml=0), faults.COMPAT_CLASH),
        (Symptoms(cuda=804), faults.COMPAT_CLASH),
        (Symptoms(cuda=804, nvml=18), faults.VERSION_MISMATCH),
        (Symptoms(cuda=999, nvml=18), faults.VERSION_MISMATCH),
        (Symptoms(cuda=999, nvml=15), faults.FALLEN_OFF),
        (Symptoms(cuda=100, nvml=15), faults.FALLEN_OFF),
        (Symptoms(cuda=999, nvml=999), faults.ACCESS_LOST),
        (Symptoms(cuda=100, nvml=999), faults.ACCESS_LOST),
        (Symptoms(cuda=100, nvml=0, mig_empty=True), faults.MIG_EMPTY),
        (Symptoms(cuda=802, nvml=0), faults.FABRIC_MANAGER),
        (Symptoms(cuda=46, nvml=0), faults.BUSY),
        (Symptoms(cuda=805), faults.MPS),
        (Symptoms(cuda=810), faults.MPS),
        (Symptoms(cuda=2, low_memory=True), faults.MEMORY_HELD),
        (Symptoms(cuda=2, low_memory=False), faults.OUT_OF_MEMORY),
        (Symptoms(cuda=214, nvml=0), faults.ECC_ERROR),
        (Symptoms(cuda=100, nvml=0, nvml_lists=True, hidden=True), faults.HIDDEN),
        (Symptoms(cuda=100, nvml=0, nvml_lists=True), faults.CUDA_BLIND),
        (Symptoms(cuda=100, nvml=0), faults.NO_DEVICE),
        (Symptoms(cuda=100, nvml=9), faults.MODULE_NOT_LOADED),
        (Symptoms(cuda=100, nvml=4), faults.NO_PERMISSION),
        (Symptoms(cuda=999, nvml=0), faults.DRIVER_UNKNOWN),
        (Symptoms(cuda=999, nvml=None), faults.DRIVER_UNKNOWN),
        (Symptoms(cuda=719, nvml=0), faults.DRIVER_ERROR),
    ],
)
def test_each_symptom_leads_to_its_cause(seen: Symptoms, fault: Fault) -> None:
    assert diagnose(seen) is fault


@pytest.mark.parametrize("name", sorted(ALL))
def test_each_fault_has_a_cause_and_two_remedies_on_one_line(name: str) -> None:
    for text in (ALL[name].cause, ALL[name].user, ALL[name].admin):
        assert text
        assert text.isprintable()
    assert not ALL[name].cause.endswith("."), "the summary puts the full stop"
    assert ALL[name].user.endswith(".")
    assert ALL[name].admin.endswith(".")
    assert ALL[name].audience in ("user", "administrator")


def test_no_rule_is_hidden_behind_an_earlier_one() -> None:
    for position, rule in enumerate(RULES):
        witnesses = [
            Symptoms(cuda, nvml, lists, empty, hidden, low, versionless)
            for cuda in (rule.cuda or {719})
            for nvml in (rule.nvml or {0, None})
            for lists in (False, True)
            for empty in (False, True)
            for hidden in (False, True)
            for low in (False, True)
            for versionless in (False, True)
        ]
        first = {RULES.index(next(r for r in RULES if r.matches(seen))) for seen in witnesses if rule.matches(seen)}
        assert position in first, f"no symptom leads to {rule}"
