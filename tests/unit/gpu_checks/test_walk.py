"""Every combination of what each probe can say, judged, and compared with what was really verified."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from gpu_checks.facts import CallError, CudaFacts, Facts, GpuFacts, Health, Heard, NvmlFacts, Target, Trial
from gpu_checks.result import exit_code
from gpu_checks.verdict import Judgement, judge

from .cases import MIB, NO_CUDA, TESTED, cuda, cuda_failed, done, nvml, nvml_failed, silence, uuid
from .test_verdict import PASS, WRONG, failing

CUDA_SAYS: list[Heard[CudaFacts]] = [
    NO_CUDA,
    *(cuda_failed(code) for code in (-1, 34, 100, 999)),
    *(Heard(cuda(count)) for count in (0, 1, 2)),
    Heard(replace(cuda(2), devices=cuda(2).devices[:1])),
    Heard(replace(cuda(1), devices=(replace(cuda(1).devices[0], error=CallError("cuDeviceGet", 999, "")),))),
    *(Heard(None, silence(reason)) for reason in ("hung", "killed", "not started")),
    Heard(cuda(2), silence("hung")),
    Heard(None, None),
]
NVML_SAYS: list[Heard[NvmlFacts]] = [
    *(nvml_failed(code) for code in (9, 12, 15)),
    *(Heard(nvml(count)) for count in (0, 1, 2)),
    Heard(nvml(2, Health())),
    Heard(None, silence("hung")),
    Heard(None, None),
]
FIRST_SAYS: list[Heard[GpuFacts]] = [
    Heard(facts, quiet)
    for facts in (
        None,
        replace(TESTED, uuid=uuid(0)),
        replace(TESTED, uuid=uuid(0), kernel=None),
        replace(TESTED, uuid=uuid(0), memory=None, kernel=None),
        replace(TESTED, uuid=uuid(0), memory=None, kernel=None, setup=CallError("cuCtxPushCurrent_v2", 201, "")),
        replace(TESTED, uuid=uuid(0), kernel=failing(221, "cuModuleLoadData")),
        replace(TESTED, uuid=uuid(0), memory=Trial(MIB, mismatch=WRONG)),
        replace(TESTED, uuid=uuid(0), kernel=Trial(MIB, mismatch=WRONG)),
        replace(TESTED, uuid=uuid(0), memory=Trial(0)),
        replace(TESTED, uuid=uuid(7)),
        replace(TESTED, uuid=""),
    )
    for quiet in (None, silence("crashed"), silence("garbled"))
]


def verified(facts: Facts) -> int:
    """How many GPUs were really tested to the end without a fault. Not the product's way to find out."""
    good = 0
    for target, heard in facts.gpus:
        seen = heard.facts
        if heard.silence or seen is None or seen.setup or seen.uuid != target.uuid:
            continue
        tests = (seen.memory, seen.kernel)
        good += all(t is not None and t.tested_bytes and not t.error and not t.mismatch for t in tests)
    return good


def every_combination() -> Iterator[tuple[Facts, int]]:
    for heard_cuda, heard_nvml, first, expected in itertools.product(CUDA_SAYS, NVML_SAYS, FIRST_SAYS, (1, 2)):
        count = len(heard_cuda.facts.devices) if heard_cuda.facts else 0
        for gpus in ((), ((Target(0, uuid(0)), first),), ((Target(0, uuid(0)), first), done(1))):
            if len(gpus) <= count:
                yield Facts(heard_cuda, heard_nvml, gpus), expected


def test_nothing_unchecked_ever_exits_with_0_for_somebody_who_asked_for_gpus() -> None:
    walked = passed = 0
    for facts, expected in every_combination():
        judgement: Judgement = judge(facts, expected)
        walked += 1
        if exit_code(judgement.verdict, strict=False) == 0:
            passed += 1
            assert verified(facts) >= expected, (facts, expected)
        if judgement.verdict is PASS:
            assert facts.nvml.silence is None
            assert len(judgement.gpus) == expected
    assert walked > 5_000
    assert passed > 0, "the walk must meet the healthy case as well"
