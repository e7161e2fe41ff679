"""Facts to be judged: a healthy machine, from which each test takes something away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gpu_checks.facts import (
    CallError,
    CudaDevice,
    CudaFacts,
    Facts,
    GpuFacts,
    Health,
    Heard,
    NvmlDevice,
    NvmlFacts,
    Silence,
    Target,
    Trial,
)

WELL = Health(
    ecc_uncorrected=0,
    ecc_uncorrected_lifetime=0,
    ecc_corrected_lifetime=0,
    remapped_rows_uncorrected=0,
    remapped_rows_corrected=0,
    remap_pending=False,
    remap_failed=False,
    retired_pages=0,
    retired_pages_pending=False,
    pcie_replays=0,
    clock_event_reasons=1,
    temperature_c=40,
)
MIB = 1024 * 1024
TESTED = GpuFacts("", 70 << 30, 80 << 30, None, Trial(4 * MIB), Trial(MIB))


def uuid(index: int) -> str:
    return f"00000000-1111-2222-3333-4444444444{index:02x}"


def cuda(count: int = 1) -> CudaFacts:
    devices = tuple(CudaDevice(index, uuid(index), "A100", 80 << 30, "8.0", 108) for index in range(count))
    return CudaFacts(True, driver_version=12040, count=count, devices=devices)


def nvml(count: int = 1, health: Health = WELL) -> NvmlFacts:
    devices = tuple(NvmlDevice(index, "GPU-" + uuid(index), "A100", health=health) for index in range(count))
    return NvmlFacts(True, "550.54.15", devices=devices)


def done(index: int = 0, **changes: Any) -> tuple[Target, Heard[GpuFacts]]:
    return Target(index, uuid(index)), Heard(replace(TESTED, **{"uuid": uuid(index), **changes}))


def healthy(count: int = 1) -> Facts:
    gpus = tuple(done(index) for index in range(count))
    return Facts(Heard(cuda(count)), Heard(nvml(count)), gpus)


def cuda_failed(code: int, call: str = "cuInit") -> Heard[CudaFacts]:
    count = 0 if code in (34, 100) else None
    return Heard(CudaFacts(True, driver_version=12040, error=CallError(call, code, ""), count=count))


def nvml_failed(code: int) -> Heard[NvmlFacts]:
    return Heard(NvmlFacts(code != 12, error=CallError("nvmlInit", code, "")))


NO_CUDA: Heard[CudaFacts] = Heard(CudaFacts(False, load_error="libcuda.so.1: cannot open", count=0))
NO_NVML = nvml_failed(12)


def silence(reason: str, call: str = "cuInit") -> Silence:
    return Silence(reason, call, "for a reason")
