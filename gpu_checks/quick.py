"""The ``quick`` level: is every GPU there, and does each of them hold data and compute right? Seconds, no framework."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from . import VERSION, surroundings
from .facts import CudaFacts, Facts, GpuFacts, Heard, Malformed, NvmlFacts, Silence, Target, decode, short_uuid
from .result import Report, Versions, plain
from .runner import Answer, Child, Children
from .verdict import cuda_version, judge

LEVEL = "quick"
VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
MOST_TESTED = 64  # one process each; no node has more

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """Seconds after the process's start by which each part has answered; the promise is 10 s for all of it."""

    look_s: float = 6.0  # a first start without persistence mode takes 1 to 3 s for each GPU
    all_s: float = 8.0
    gone_s: float = 8.7  # by then the children have been killed and waited for


def run(
    expected: int | None,
    environ: Mapping[str, str],
    limits: Limits = Limits(),
    *,
    started: float | None = None,
    before: Report | None = None,
) -> Report:
    """The report of one run.

    ``started`` is the monotonic time from which the limits count; None: now. ``before`` is the last report, with which
    the counters of the same GPUs are compared.
    """
    started = time.monotonic() if started is None else started
    facts = gather(expected, environ, limits, started=started)
    if before is not None:
        counted = tuple((gpu.uuid, gpu.health) for gpu in before.gpus)
        facts = replace(facts, before=counted, before_at=plain(before.finished_at, 40))
    judgement = judge(facts, expected)
    return Report(
        verdict=judgement.verdict,
        summary=plain(judgement.summary, 400),
        level=LEVEL,
        expected=expected,
        found=judgement.found,
        gpus=judgement.gpus,
        checks=judgement.checks,
        duration_s=round(time.monotonic() - started, 3),
        finished_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        versions=_versions(facts),
    )


def gather(expected: int | None, environ: Mapping[str, str], limits: Limits, *, started: float) -> Facts:
    """What all probes said. GPUs that nobody asked for are counted, not touched."""
    # The driver keeps compiled kernels in the user's home: without that, the compiler is really asked.
    settings = {**environ, "CUDA_CACHE_DISABLE": "1"}
    with Children(end=started + limits.gone_s, environ=settings) as children:
        asked_nvml = children.start("nvml", deadline=started + limits.look_s)
        asked_cuda = children.start("cuda", deadline=started + limits.look_s)
        cuda = _heard(asked_cuda.answer(), CudaFacts)
        testing: list[tuple[Target, Child]] = []

        def test(target: Target, extra: Mapping[str, str]) -> None:
            child = children.start("gpu", str(target.index), target.uuid, deadline=started + limits.all_s, extra=extra)
            testing.append((target, child))

        if expected != 0:
            for target in targets(cuda):
                test(target, {})
        nvml = _heard(asked_nvml.answer(), NvmlFacts)
        if expected != 0 and VISIBLE_DEVICES not in environ:
            for target in hidden_instances(cuda, nvml):
                test(target, {VISIBLE_DEVICES: target.uuid})
        tested = tuple((target, _heard(child.answer(), GpuFacts)) for target, child in testing)
    return Facts(
        cuda,
        nvml,
        tested,
        hidden=VISIBLE_DEVICES in environ,
        device_files=device_files(),
        surroundings=surroundings.look(environ),
    )


def targets(cuda: Heard[CudaFacts]) -> tuple[Target, ...]:
    """The devices that CUDA lists and that could be asked for."""
    devices = cuda.facts.devices if cuda.facts and cuda.silence is None else ()
    return tuple(Target(device.index, device.uuid) for device in devices if device.error is None)[:MOST_TESTED]


def hidden_instances(cuda: Heard[CudaFacts], nvml: Heard[NvmlFacts]) -> tuple[Target, ...]:
    """MIG instances that NVML lists and CUDA does not: it shows a process one instance at a time (MIG user guide)."""
    if cuda.facts is None or nvml.facts is None or cuda.silence is not None or not cuda.facts.count:
        return ()
    shown = {short_uuid(device.uuid) for device in cuda.facts.devices}
    instances = (device for device in nvml.facts.usable if device.parent)
    return tuple(
        Target(0, device.uuid, mig_only=True)
        for device in instances
        if short_uuid(device.uuid) not in shown and short_uuid(device.parent) not in shown
    )[:MOST_TESTED]


def device_files(directory: str = "/dev") -> tuple[str, ...]:
    """The device files through which a GPU can be reached."""
    try:
        names = os.listdir(directory)
    except OSError:
        return ()
    return tuple(f"{directory}/{name}" for name in sorted(names) if re.fullmatch("nvidia[0-9]+|dxg", name))


def _heard(answer: Answer, kind: type[T]) -> Heard[T]:
    if answer.facts is None:
        return Heard(None, answer.silence or Silence("garbled", detail="no facts"))
    try:
        return Heard(decode(kind, answer.facts), answer.silence)
    except Malformed as malformed:
        return Heard(None, answer.silence or Silence("garbled", detail=str(malformed)))


def _versions(facts: Facts) -> Versions:
    cuda, nvml = facts.cuda.facts, facts.nvml.facts
    return Versions(
        gpu_check=VERSION,
        python=".".join(str(part) for part in sys.version_info[:3]),
        driver=plain(nvml.driver_version, 40) if nvml else "",
        cuda=cuda_version(cuda.driver_version) if cuda and cuda.driver_version else "",
    )
