"""What the facts about one GPU mean: the required tests, and the health that NVML reports. No I/O."""

from __future__ import annotations

from . import faults
from .diagnosis import CANNOT_BUILD, SILENCES, Symptoms, diagnose
from .facts import (
    CallError,
    CudaDevice,
    GpuFacts,
    Health,
    Heard,
    Mismatch,
    NvmlDevice,
    Silence,
    Target,
    Trial,
    short_uuid,
)
from .faults import Fault
from .result import Check, Gpu, Verdict, plain

LOW_MEMORY_BYTES = 512 * 1024 * 1024  # a context alone takes 300 to 500 MB on current GPUs
LEAST_FREE = 0.1  # of the whole: with less, a program of the usual size does not start
MIB = 1024 * 1024
LEAST_TESTED_BYTES = {"memory": MIB, "kernel": 1}  # the promise of ``quick``: less is not a test

# nvmlClocksEventReasons: HwSlowdown, HwThermalSlowdown, HwPowerBrakeSlowdown. Idle clocks and the software's power cap
# are how a GPU works, not faults.
HARDWARE_SLOWDOWN = 0x08 | 0x40 | 0x80

NOT_REACHED = "not checked: what comes before it did not end"


def found(name: str, verdict: Verdict, fault: Fault, *, detail: str = "", gpu: str = "") -> Check:
    """A check that did not pass, with the fault's cause and remedies."""
    return Check(
        name,
        verdict,
        detail=plain(detail),
        cause=fault.cause,
        user_action=fault.user,
        admin_action=fault.admin,
        gpu=gpu,
        audience=fault.audience,
    )


def told(error: CallError) -> str:
    """The failed call on one line."""
    return f"{error.call}: {error.code} {error.name}".strip()


def silent(name: str, silence: Silence, *, gpu: str = "") -> Check:
    """A driver that hangs or crashes is a failure; a check that was prevented is unknown. So is a child that hung or
    crashed before its first call: it had not reached the driver."""
    fault, verdict = SILENCES[silence.reason], Verdict.UNKNOWN
    if silence.reason in ("hung", "unkillable", "crashed"):
        fault, verdict = (fault, Verdict.FAIL) if silence.call else (faults.PROBE_FAILED, Verdict.UNKNOWN)
    where = f" in {silence.call}" if silence.call else ""
    return found(name, verdict, fault, detail=f"{silence.detail}{where}", gpu=gpu)


def checks_of(target: Target, heard: Heard[GpuFacts], *, gpu: str, nvml: int | None) -> tuple[Check, ...]:
    """The required tests of one GPU, which the report calls ``gpu``. ``nvml`` is NVML's error, if any."""
    seen = heard.facts or GpuFacts()
    if (seen.uuid or seen.memory) and short_uuid(seen.uuid) != short_uuid(target.uuid):
        detail = f"expected {target.uuid}, found {seen.uuid}"
        return tuple(
            found(name, Verdict.UNKNOWN, faults.WRONG_DEVICE, detail=detail, gpu=gpu) for name in ("memory", "kernel")
        )
    low = seen.free_bytes is None or seen.free_bytes < LOW_MEMORY_BYTES
    judge = _Judge(gpu, nvml, low)
    stopped = seen.setup
    memory = judge.test("memory", seen.memory, heard.silence, stopped)
    if seen.memory is None:
        return (memory, judge.not_reached("kernel"))
    kernel = judge.test("kernel", seen.kernel, heard.silence, stopped)
    if seen.kernel is None:
        return (memory, kernel)
    return (memory, kernel, *judge.spare(seen), *judge.release(heard.silence, stopped))


class _Judge:
    """Judges the tests of one GPU."""

    def __init__(self, gpu: str, nvml: int | None, low_memory: bool) -> None:
        self._gpu = gpu
        self._nvml = nvml
        self._low_memory = low_memory

    def test(self, name: str, tested: Trial | None, silence: Silence | None, stopped: CallError | None) -> Check:
        if tested is None:
            if silence is not None:
                return silent(name, silence, gpu=self._gpu)
            return self.not_reached(name) if stopped is None else self._error(name, stopped)
        if tested.error is not None:
            return self._error(name, tested.error)
        if tested.mismatch is not None:
            return self._wrong(name, tested.mismatch)
        if tested.tested_bytes < LEAST_TESTED_BYTES[name]:
            return self.not_reached(name)
        return Check(name, Verdict.PASS, detail=f"{tested.tested_bytes} bytes compared", gpu=self._gpu)

    def not_reached(self, name: str) -> Check:
        return found(name, Verdict.UNKNOWN, faults.PROBE_FAILED, detail=NOT_REACHED, gpu=self._gpu)

    def spare(self, seen: GpuFacts) -> tuple[Check, ...]:
        """Whether somebody else holds so much that a program will find next to nothing."""
        if seen.free_bytes is None or not seen.total_bytes:
            return ()
        detail = f"{seen.free_bytes // MIB} of {seen.total_bytes // MIB} MiB free"
        well = seen.free_bytes >= seen.total_bytes * LEAST_FREE
        return (_healthy("free memory", well, faults.FEW_SPARE_BYTES, detail, self._gpu),)

    def release(self, silence: Silence | None, stopped: CallError | None) -> tuple[Check, ...]:
        """What went wrong after both tests had ended, while the GPU was given back."""
        if silence is not None:
            return (silent("release", silence, gpu=self._gpu),)
        return () if stopped is None else (self._error("release", stopped),)

    def _error(self, name: str, error: CallError) -> Check:
        if error.call == "cuModuleLoadData" and error.code in CANNOT_BUILD:
            return found(name, Verdict.UNKNOWN, faults.NO_JIT, detail=told(error), gpu=self._gpu)
        seen = Symptoms(cuda=error.code, nvml=self._nvml, low_memory=self._low_memory)
        return found(name, Verdict.FAIL, diagnose(seen), detail=told(error), gpu=self._gpu)

    def _wrong(self, name: str, wrong: Mismatch) -> Check:
        fault = faults.WRONG_MEMORY if name == "memory" else faults.WRONG_RESULT
        detail = (
            f"{wrong.step}: at byte {wrong.offset} {wrong.actual} instead of {wrong.expected}; "
            f"{wrong.wrong_bytes} bytes, {wrong.wrong_bits} bits differ"
        )
        return found(name, Verdict.FAIL, fault, detail=detail, gpu=self._gpu)


def health_checks(uuid: str, health: Health) -> tuple[Check, ...]:
    """A check for each thing that NVML reports about this GPU; what it does not report is left out."""
    checks: list[Check] = []
    if health.ecc_uncorrected is not None:
        detail = f"{health.ecc_uncorrected} uncorrectable errors since the driver was loaded"
        checks.append(_healthy("ecc", health.ecc_uncorrected == 0, faults.ECC_COUNTED, detail, uuid))
    if health.remap_failed is not None:
        checks.append(_healthy("row remapping", not health.remap_failed, faults.REMAP_FAILED, "", uuid))
    for name, pending in (("rows pending", health.remap_pending), ("pages pending", health.retired_pages_pending)):
        if pending is not None:
            checks.append(_healthy(name, not pending, faults.REMAP_PENDING, "", uuid))
    if health.clock_event_reasons is not None:
        slowed = health.clock_event_reasons & HARDWARE_SLOWDOWN
        detail = f"clock event reasons 0x{health.clock_event_reasons:x}"
        checks.append(_healthy("clocks", not slowed, faults.HW_SLOWDOWN, detail, uuid))
    return tuple(checks)


def _healthy(name: str, well: bool, fault: Fault, detail: str, gpu: str) -> Check:
    return (
        Check(name, Verdict.PASS, detail, gpu=gpu) if well else found(name, Verdict.WARN, fault, detail=detail, gpu=gpu)
    )


def described(cuda: CudaDevice | None, nvml: NvmlDevice | None, tested: GpuFacts | None, *, mig: bool) -> Gpu:
    """The GPU for the report, from whoever knows it."""
    uuid = nvml.uuid if nvml is not None and nvml.uuid else spelled(cuda.uuid if cuda else "", mig=mig)
    name = (cuda.name if cuda else "") or (nvml.name if nvml else "")
    return Gpu(
        uuid=plain(uuid, 80),
        name=plain(name, 100),
        index=cuda.index if cuda else None,
        mig=mig,
        memory_bytes=(cuda.total_bytes or None) if cuda else (tested.total_bytes if tested else None),
        free_bytes=tested.free_bytes if tested else None,
        compute_capability=cuda.capability if cuda else "",
        multiprocessors=(cuda.multiprocessors or None) if cuda else None,
        tested_bytes=tested.memory.tested_bytes if tested and tested.memory else 0,
        health=nvml.health if nvml else Health(),
    )


def spelled(uuid: str, *, mig: bool = False) -> str:
    """A UUID as nvidia-smi writes it."""
    return uuid if not uuid or uuid.upper().startswith(("GPU-", "MIG-")) else f"{'MIG' if mig else 'GPU'}-{uuid}"
