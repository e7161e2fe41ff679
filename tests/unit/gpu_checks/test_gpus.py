"""What is said about one GPU: at the edges of each rule, and in the words of the report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpu_checks.facts import CallError, CudaDevice, GpuFacts, Heard, NvmlDevice, Silence, Target, Trial
from gpu_checks.faults import PROBE_FAILED, PROBE_KILLED
from gpu_checks.gpus import LOW_MEMORY_BYTES, checks_of, described, silent, spelled
from gpu_checks.result import Check, Verdict

from .cases import MIB, TESTED, uuid

PASS, UNKNOWN, FAIL = Verdict.PASS, Verdict.UNKNOWN, Verdict.FAIL
HUNG = Silence("hung", "cuCtxSynchronize", "no answer")


def checks(silence: Silence | None = None, **changes: Any) -> dict[str, Check]:
    facts = replace(TESTED, **{"uuid": uuid(0), **changes})
    found = checks_of(Target(0, uuid(0)), Heard(facts, silence), gpu="GPU-1", nvml=0)
    return {check.name: check for check in found}


def test_low_memory_is_less_than_a_context_may_take() -> None:
    refused = Trial(error=CallError("cuMemAlloc_v2", 2, ""))
    assert LOW_MEMORY_BYTES == 512 * MIB
    assert "held by another" in checks(memory=refused, free_bytes=512 * MIB - 1)["memory"].cause
    assert "much is free" in checks(memory=refused, free_bytes=512 * MIB)["memory"].cause


def test_a_mebibyte_is_enough_and_one_byte_less_is_not() -> None:
    assert checks(memory=Trial(MIB))["memory"].verdict is PASS
    assert checks(memory=Trial(MIB - 1))["memory"].verdict is UNKNOWN
    assert checks(kernel=Trial(1))["kernel"].verdict is PASS


def test_a_test_before_which_the_gpu_hung_was_not_reached() -> None:
    found = checks(HUNG, memory=None, kernel=None)
    assert [(name, check.verdict) for name, check in found.items()] == [("memory", FAIL), ("kernel", UNKNOWN)]


def test_a_hang_in_the_kernel_is_not_one_at_the_release() -> None:
    found = checks(HUNG, kernel=None)
    assert [(name, check.verdict) for name, check in found.items()] == [("memory", PASS), ("kernel", FAIL)]


def test_a_hang_after_both_tests_is_one_at_the_release() -> None:
    found = checks(HUNG)
    assert [found[name].verdict for name in ("memory", "kernel", "release")] == [PASS, PASS, FAIL]


@pytest.mark.parametrize(("call", "detail"), [("cuInit", "no answer in cuInit"), ("", "no answer")])
def test_a_silence_says_in_which_call(call: str, detail: str) -> None:
    assert silent("memory", replace(HUNG, call=call)).detail == detail


@pytest.mark.parametrize("reason", ["hung", "unkillable", "crashed", "killed", "garbled", "not started"])
def test_a_child_that_had_not_called_the_driver_says_nothing_about_it(reason: str) -> None:
    check = silent("memory", Silence(reason, "", "no answer"))
    assert (check.verdict, check.cause) == (UNKNOWN, (PROBE_KILLED if reason == "killed" else PROBE_FAILED).cause)


@pytest.mark.parametrize(
    ("given", "mig", "shown"),
    [
        ("12ab", False, "GPU-12ab"),
        ("12ab", True, "MIG-12ab"),
        ("GPU-12ab", False, "GPU-12ab"),
        ("mig-12ab", False, "mig-12ab"),
        ("MIG-GPU-12ab/1/0", True, "MIG-GPU-12ab/1/0"),
        ("", False, ""),
    ],
)
def test_a_uuid_is_spelled_as_nvidia_smi_does(given: str, mig: bool, shown: str) -> None:
    assert spelled(given, mig=mig) == shown


CUDA = CudaDevice(1, "12ab", "A100", 80 << 30, "8.0", 108)
NVML = NvmlDevice(0, "GPU-12ab", "NVIDIA A100")


def test_a_gpu_is_described_by_whoever_knows_it() -> None:
    both = described(CUDA, NVML, TESTED, mig=False)
    assert (both.uuid, both.name, both.index, both.memory_bytes) == ("GPU-12ab", "A100", 1, 80 << 30)
    assert (both.free_bytes, both.tested_bytes, both.multiprocessors) == (70 << 30, 4 * MIB, 108)
    only_cuda = described(CUDA, None, None, mig=True)
    assert (only_cuda.uuid, only_cuda.name, only_cuda.free_bytes, only_cuda.tested_bytes) == (
        "MIG-12ab", "A100", None, 0,
    )  # fmt: skip
    only_nvml = described(None, NVML, GpuFacts(total_bytes=5), mig=False)
    assert (only_nvml.name, only_nvml.index, only_nvml.memory_bytes) == ("NVIDIA A100", None, 5)
    assert described(replace(CUDA, name=""), NVML, None, mig=False).name == "NVIDIA A100"
    assert described(replace(CUDA, name=""), None, None, mig=False).name == ""


def test_what_cuda_could_not_say_is_not_known() -> None:
    gpu = described(replace(CUDA, total_bytes=0, multiprocessors=0), NVML, None, mig=False)
    assert (gpu.memory_bytes, gpu.multiprocessors) == (None, None)
