"""What each single check of a judgement says, where the verdict has several reasons."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpu_checks.facts import CallError, Facts, Heard
from gpu_checks.result import Check, Verdict
from gpu_checks.verdict import judge

from .cases import NO_CUDA, NO_NVML, WELL, cuda, cuda_failed, done, healthy, nvml, nvml_failed, silence, uuid
from .test_verdict import NOTHING, with_forbidden

PASS, WARN, UNKNOWN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.UNKNOWN, Verdict.FAIL


def named(facts: Facts, expected: int | None) -> dict[str, Check]:
    return {check.name: check for check in judge(facts, expected).checks}


@pytest.mark.parametrize(
    ("facts", "expected", "summary"),
    [
        (NOTHING, 0, "GPU check: passed – no GPU is visible, as expected."),
        (healthy(1), 1, "GPU check: passed – 1 GPU (A100): memory and a kernel's result verified."),
        (healthy(2), 2, "GPU check: passed – 2 GPUs (A100): memory and a kernel's result verified."),
    ],
)
def test_a_pass_says_what_was_verified(facts: Facts, expected: int, summary: str) -> None:
    assert judge(facts, expected).summary == summary


@pytest.mark.parametrize("expected", [0, 1])
def test_a_silent_driver_passes_neither_check(expected: int) -> None:
    checks = named(Facts(Heard(None, silence("hung")), Heard(nvml(1))), expected)
    assert checks["driver"].verdict is (FAIL if expected else UNKNOWN)
    assert checks["count"].verdict is UNKNOWN
    assert "agreement" not in checks


def test_a_driver_that_said_nothing_passes_neither_check() -> None:
    checks = named(Facts(Heard(None), Heard(nvml(1))), 1)
    assert (checks["driver"].verdict, checks["count"].verdict) == (UNKNOWN, UNKNOWN)


def test_a_count_of_nothing_that_nobody_asked_for_is_not_known() -> None:
    assert named(NOTHING, None)["count"].verdict is UNKNOWN


def test_the_count_has_the_cause_of_the_driver() -> None:
    checks = named(Facts(cuda_failed(802), Heard(nvml(1))), 1)
    assert named(Facts(cuda_failed(100), NO_NVML), 1)["count"].cause == "the driver is there, but finds no GPU"
    assert checks["driver"].cause == "the node's NVSwitch fabric is not ready"
    counted = named(Facts(cuda_failed(34), Heard(nvml(1))), 1)["count"]
    assert (counted.verdict, "stub" in counted.cause, counted.audience) == (FAIL, True, "user")


def test_a_device_that_cannot_be_asked_is_named_and_not_said_to_be_untested() -> None:
    broken = replace(cuda(2).devices[1], error=CallError("cuDeviceGetName", 999, ""))
    facts = replace(healthy(2), cuda=Heard(replace(cuda(2), devices=(cuda().devices[0], broken))), gpus=(done(0),))
    checks = [check for check in judge(facts, 2).checks if check.gpu == "GPU-" + uuid(1)]
    assert [(check.name, check.verdict) for check in checks if check.verdict is not PASS] == [("device", FAIL)]
    assert checks[0].detail == "cuDeviceGetName: 999"
    unknown = replace(facts, cuda=Heard(replace(cuda(2), devices=(cuda().devices[0], replace(broken, uuid="")))))
    assert "index 1" in {check.gpu for check in judge(unknown, 2).checks if check.name == "device"}


def test_a_gpu_that_was_not_tested_is_said_to_be() -> None:
    check = named(replace(healthy(), gpus=()), 1)["memory"]
    assert (check.verdict, check.detail, check.gpu) == (UNKNOWN, "not tested", "GPU-" + uuid(0))


def test_a_gpu_that_only_nvml_sees_is_in_the_report_once() -> None:
    gpus = judge(replace(healthy(1), nvml=Heard(nvml(2))), 1).gpus
    assert [(gpu.uuid, gpu.index) for gpu in gpus] == [("GPU-" + uuid(0), 0), ("GPU-" + uuid(1), None)]


def test_what_nobody_asked_for_is_named() -> None:
    assert named(Facts(NO_CUDA, Heard(nvml(1))), 0)["count"].detail == "visible: GPU-" + uuid(0)
    files = replace(NOTHING, device_files=("/dev/nvidia0", "/dev/nvidia1"))
    assert named(files, 0)["count"].detail == "visible: /dev/nvidia0, /dev/nvidia1"


@pytest.mark.parametrize(
    "facts",
    [
        replace(healthy(1), nvml=nvml_failed(999)),
        replace(healthy(1), nvml=Heard(nvml(1), silence("crashed"))),
        Facts(Heard(cuda(0)), Heard(nvml(0))),
        Facts(cuda_failed(999), Heard(nvml(1))),
    ],
)
def test_where_one_of_them_says_nothing_there_is_nothing_to_compare(facts: Facts) -> None:
    assert "agreement" not in named(facts, 1)


def test_one_that_is_empty_disagrees_with_one_that_is_not() -> None:
    assert named(replace(healthy(1), nvml=Heard(nvml(0))), 1)["agreement"].verdict is WARN
    assert named(Facts(Heard(cuda(0)), Heard(nvml(1))), 1)["agreement"].verdict is WARN


def test_gpus_of_others_are_told_without_blame() -> None:
    said = named(replace(healthy(1), nvml=Heard(with_forbidden(1, 2))), 1)
    assert said["nvml"].detail == "driver 550.54.15; 2 of the node's GPUs may not be asked here"
    assert said["agreement"].verdict is PASS
    assert named(healthy(1), 1)["nvml"].detail == "driver 550.54.15"


def test_a_gpu_that_nvml_cannot_read_has_no_counters() -> None:
    device = replace(nvml().devices[0], error=CallError("nvmlDeviceGetUUID", 15, ""))
    before = (("GPU-" + uuid(0), WELL),)
    facts = replace(healthy(1), nvml=Heard(replace(nvml(), devices=(device,))), before=before)
    assert "counters" not in named(facts, 1)
