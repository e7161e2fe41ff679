"""The table of faults: what a fake driver does, and what ``gpu-check`` must say about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpu_checks.result import Verdict

PASS, WARN, UNKNOWN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.UNKNOWN, Verdict.FAIL
GIB = 1 << 30


@dataclass(frozen=True)
class Case:
    """``old`` is a driver from before 470, which lacks functions."""

    title: str
    faults: Mapping[str, str]
    verdict: Verdict
    cause: str = ""
    expected: int | None = 1
    old: bool = False


def failing(**calls: int) -> dict[str, str]:
    return {"FAKE_FAIL": ",".join(f"{call}={code}" for call, code in calls.items())}


HEALTH_CALLS = (
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetRemappedRows",
    "nvmlDeviceGetRetiredPages",
    "nvmlDeviceGetRetiredPagesPendingStatus",
    "nvmlDeviceGetPcieReplayCounter",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetName",
)
SLOW_COPIES = ",".join(f"cuMemcpy{way}_v2={{0}}" for way in ("HtoD", "DtoH", "DtoD"))

HEALTHY = [
    Case("one GPU", {}, PASS),
    Case("one GPU, nobody said how many", {}, PASS, expected=None),
    Case("two GPUs", {"FAKE_DEVICES": "2"}, PASS, expected=2),
    Case("eight GPUs", {"FAKE_DEVICES": "8"}, PASS, expected=8),
    Case("another order", {"FAKE_DEVICES": "2", "FAKE_REVERSED": "1"}, PASS, expected=2),
    Case("one MIG instance", {"FAKE_MIG": "1"}, PASS),
    Case("two MIG instances", {"FAKE_MIG": "2"}, PASS, expected=2),
    Case("an instance that may not ask its GPU", {"FAKE_MIG": "1", **failing(**dict.fromkeys(HEALTH_CALLS, 4))}, PASS),
    Case("GPUs of other containers", {"FAKE_NVML_FORBIDDEN": "3"}, PASS),
    Case("time-sliced, half of the memory held", {"FAKE_FREE": str(40 * GIB)}, PASS),
    Case("MPS", {"CUDA_MPS_PIPE_DIRECTORY": "/tmp/nvidia-mps"}, PASS),
    Case("one of one is visible", {"CUDA_VISIBLE_DEVICES": "0"}, PASS),
    Case("an old NVML", {"FAKE_OLD_NVML": "1"}, PASS),
    Case("an old driver", {}, PASS, old=True),
    Case("two GPUs and an old driver", {"FAKE_DEVICES": "2"}, PASS, expected=2, old=True),
    Case("nothing is supported", failing(**dict.fromkeys(HEALTH_CALLS, 3)), PASS),
    Case("errors of long ago", {"FAKE_ECC_LIFETIME": "9", "FAKE_REMAP": "1,1,0,0", "FAKE_RETIRED": "2"}, PASS),
    Case("idle and power-capped clocks", {"FAKE_REASONS": "0x5"}, PASS),
    Case("a driver that prints", {"FAKE_PRINT": "cuInit,cuLaunchKernel,nvmlInitWithFlags"}, PASS),
    Case("slow copies", {"FAKE_SLOW": SLOW_COPIES.format(50)}, PASS),
    Case("an image with an older CUDA", {"CUDA_VERSION": "11.8.0"}, PASS),
]

# Each code of the table of faults, where the driver gives it, and by which words its cause is known.
_AT_START = [
    (34, "stub"), (35, "too old"), (36, "too old"), (46, "exclusive"), (100, "CUDA finds no GPU, though"),
    (101, "CUDA finds no GPU, though"), (214, "uncorrectable"), (304, "a call of the driver failed"),
    (802, "fabric"), (803, "compatibility library"), (804, "compatibility library"),
    *((code, "MPS") for code in range(805, 811)), (999, "unknown error"),
]  # fmt: skip
_WITH_NVML = [
    (100, 4, "no permission"), (100, 9, "kernel module is not loaded"), (999, 9, "kernel module is not loaded"),
    (100, 15, "fallen off the bus"), (999, 15, "fallen off the bus"), (100, 16, "must be reset"),
    (100, 17, "no permission"), (803, 18, "differ in version"), (804, 18, "differ in version"),
    (999, 18, "differ in version"), (100, 999, "daemon-reload"), (999, 999, "daemon-reload"),
    (100, 12, "finds no GPU"), (802, 999, "fabric"), (35, 12, "too old"),
]  # fmt: skip
_IN_THE_TEST = [
    ("cuDevicePrimaryCtxRetain", 46, "exclusive"), ("cuDevicePrimaryCtxRetain", 2, "held by another process"),
    ("cuDevicePrimaryCtxRetain", 807, "MPS"), ("cuMemAlloc_v2", 2, "gave no memory, though much is free"),
    ("cuMemsetD32_v2", 214, "uncorrectable"), ("cuMemcpyHtoD_v2", 719, "a call of the driver failed"),
    ("cuMemcpyDtoH_v2", 214, "uncorrectable"), ("cuMemcpyDtoD_v2", 999, "unknown error"),
    ("cuModuleLoadData", 999, "unknown error"), ("cuModuleGetFunction", 500, "a call of the driver failed"),
    ("cuLaunchKernel", 701, "a call of the driver failed"), ("cuCtxSynchronize", 719, "a call of the driver failed"),
    ("cuCtxSynchronize", 214, "uncorrectable"), ("cuMemFree_v2", 719, "a call of the driver failed"),
    ("cuDevicePrimaryCtxRelease_v2", 719, "a call of the driver failed"),
]  # fmt: skip

SICK = [
    *(Case(f"cuInit {code}", failing(cuInit=code), FAIL, cause) for code, cause in _AT_START),
    *(Case(f"cuInit {cuda}, NVML {nvml}", failing(cuInit=cuda, nvmlInitWithFlags=nvml), FAIL, cause)
      for cuda, nvml, cause in _WITH_NVML),
    *(Case(f"{call} {code}", failing(**{call: code}), FAIL, cause) for call, code, cause in _IN_THE_TEST),
    *(Case(f"no JIT {code}", failing(cuModuleLoadData=code), UNKNOWN, "cannot compile")
      for code in (209, 218, 221, 222, 223)),
    *(Case(f"only NVML {code}", failing(nvmlInitWithFlags=code), WARN, cause)
      for code, cause in ((12, "NVML"), (15, "fallen off"), (18, "differ in version"), (999, "daemon-reload"))),
    Case("no module behind the library", {**failing(cuInit=35, nvmlInitWithFlags=12), "FAKE_VERSION": "0"}, FAIL,
         "no driver found"),
    Case("fallen off the bus", failing(cuInit=999, nvmlDeviceGetHandleByIndex_v2=15), FAIL, "fallen off the bus"),
    Case("the second has fallen off the bus", {"FAKE_NVML_DEVICES": "2", "FAKE_NVML_SICK": "1",
         **failing(nvmlDeviceGetHandleByIndex_v2=15)}, FAIL, "fallen off the bus", 2),
    Case("MIG without instances", {**failing(cuInit=100), "FAKE_MIG_PARENTS": "1"}, FAIL, "no instance"),
    Case("only GPUs of other containers",
         {**failing(cuInit=100), "FAKE_NVML_DEVICES": "0", "FAKE_NVML_FORBIDDEN": "2"}, FAIL, "no permission"),
    Case("memory held", {"FAKE_FREE": "1000000"}, FAIL, "held by another process"),
    Case("nearly all memory held", {"FAKE_FREE": str(7 * GIB)}, WARN, "in use by somebody else"),
    Case("fewer", {}, FAIL, "fewer GPUs", expected=2),
    Case("fewer of eight", {"FAKE_DEVICES": "7"}, FAIL, "fewer GPUs", expected=8),
    Case("one counted that is not there", {"FAKE_COUNT": "2"}, FAIL, "", expected=2),
    Case("one GPU twice", {"FAKE_DEVICES": "2", "FAKE_TWIN": "1"}, FAIL, "fewer GPUs", expected=2),
    Case("a device without a UUID", {"FAKE_DEVICES": "2", **failing(cuDeviceGetUuid_v2=999)}, FAIL, "unknown", 2),
    Case("hidden", {"CUDA_VISIBLE_DEVICES": ""}, FAIL, "CUDA_VISIBLE_DEVICES"),
    Case("hidden by -1", {"CUDA_VISIBLE_DEVICES": "-1"}, FAIL, "CUDA_VISIBLE_DEVICES"),
    Case("a second one hidden", {"FAKE_DEVICES": "2", "CUDA_VISIBLE_DEVICES": "0"}, FAIL, "CUDA_VISIBLE_DEVICES", 2),
    Case("the first flipped bit", {"FAKE_FLIP": "0:0:0x01"}, FAIL, "returned wrong data"),
    Case("the last flipped bit", {"FAKE_FLIP": "1:1048575:0x80"}, FAIL, "returned wrong data"),
    Case("a flipped bit in the kernel's data", {"FAKE_FLIP": "2:4097:0x10"}, FAIL, "computed a wrong result"),
    Case("a bit stuck at 0", {"FAKE_STUCK": "0:77:0x20:0"}, FAIL, "returned wrong data"),
    Case("a bit stuck at 1", {"FAKE_STUCK": "1:524288:0x01:0x01"}, FAIL, "returned wrong data"),
    Case("an unwired address line", {"FAKE_ALIAS": "0x80000"}, FAIL, "returned wrong data"),
    Case("the lowest address line of a word", {"FAKE_ALIAS": "0x8"}, FAIL, "returned wrong data"),
    Case("two buffers at one place", {"FAKE_ONE_BUFFER": "1"}, FAIL, "returned wrong data"),
    Case("a fill that does nothing", {"FAKE_LAZY": "cuMemsetD32_v2"}, FAIL, "returned wrong data"),
    Case("a copy to the device that does nothing", {"FAKE_LAZY": "cuMemcpyHtoD_v2"}, FAIL, "returned wrong data"),
    Case("a copy on the device that does nothing", {"FAKE_LAZY": "cuMemcpyDtoD_v2"}, FAIL, "returned wrong data"),
    Case("a copy back that does nothing", {"FAKE_LAZY": "cuMemcpyDtoH_v2"}, FAIL, "returned wrong data"),
    Case("a kernel that does not run", {"FAKE_LAZY": "cuLaunchKernel"}, FAIL, "computed a wrong result"),
    Case("the first thread wrong", {"FAKE_WRONG": "0"}, FAIL, "computed a wrong result"),
    Case("the last thread wrong", {"FAKE_WRONG": "65535"}, FAIL, "computed a wrong result"),
    Case("a consistently wrong GPU", {"FAKE_WRONG": "-1"}, FAIL, "computed a wrong result"),
    Case("the second is sick", {"FAKE_DEVICES": "2", "FAKE_BAD_DEVICE": "1", "FAKE_WRONG": "-1"}, FAIL, "wrong", 2),
    Case("crash at start", {"FAKE_CRASH": "cuInit"}, FAIL, "the driver crashed"),
    Case("crash in the memory test", {"FAKE_CRASH": "cuMemcpyDtoH_v2"}, FAIL, "the driver crashed"),
    Case("crash in the kernel", {"FAKE_CRASH": "cuLaunchKernel"}, FAIL, "the driver crashed"),
    Case("crash at the end", {"FAKE_CRASH": "cuDevicePrimaryCtxRelease_v2"}, FAIL, "the driver crashed"),
    Case("the driver ends the process", {"FAKE_EXIT": "cuInit"}, FAIL, "the driver crashed"),
    Case("another order in each process", {"FAKE_DEVICES": "2", "FAKE_UNSTABLE": "1"}, UNKNOWN, "not the one", 2),
    Case("killed from outside", {"FAKE_KILL": "cuMemAlloc_v2"}, UNKNOWN, "killed from outside"),
    Case("scribbling into every descriptor", {"FAKE_SCRIBBLE": "cuInit"}, UNKNOWN, "could not be carried out"),
    Case("more", {"FAKE_DEVICES": "2"}, WARN, "more GPUs than expected"),
    Case("one that nobody asked for", {}, WARN, "more GPUs than expected", expected=0),
    Case("NVML crashes", {"FAKE_CRASH": "nvmlDeviceGetUUID"}, WARN, "crashed"),
    Case("NVML is killed", {"FAKE_KILL": "nvmlDeviceGetUUID"}, WARN, "killed from outside"),
    Case("NVML lists others", {"FAKE_NVML_STRANGERS": "1"}, WARN, "list different GPUs"),
    Case("NVML lists one more", {"FAKE_NVML_DEVICES": "2"}, WARN, "list different GPUs"),
    Case("NVML lists one less", {"FAKE_DEVICES": "2", "FAKE_NVML_DEVICES": "1"}, WARN, "list different GPUs", 2),
    Case("ECC", {"FAKE_ECC": "3"}, WARN, "memory errors were counted"),
    Case("remapping failed", {"FAKE_REMAP": "0,1,0,1"}, WARN, "no spare is left"),
    Case("remapping pending", {"FAKE_REMAP": "0,1,1,0"}, WARN, "waits to be replaced"),
    Case("page pending", {"FAKE_PAGES_PENDING": "1"}, WARN, "waits to be replaced"),
    Case("hardware slowdown", {"FAKE_REASONS": "0x8"}, WARN, "slows the GPU down"),
    Case("thermal slowdown", {"FAKE_REASONS": "0x41"}, WARN, "slows the GPU down"),
    Case("power brake", {"FAKE_REASONS": "0x80"}, WARN, "slows the GPU down"),
    Case("an image for a newer CUDA", {"CUDA_VERSION": "13.0.1"}, WARN, "newer CUDA than the driver"),
]  # fmt: skip

HANGS = [
    Case("hang at start", {"FAKE_HANG": "cuInit"}, FAIL, "did not answer in time"),
    Case("hang at start, none expected", {"FAKE_HANG": "cuInit"}, UNKNOWN, "did not answer in time", expected=0),
    Case("hang in the copy", {"FAKE_HANG": "cuMemcpyDtoH_v2"}, FAIL, "did not answer in time"),
    Case("hang in the kernel", {"FAKE_HANG": "cuCtxSynchronize"}, FAIL, "did not answer in time"),
    Case("hang at the end", {"FAKE_HANG": "cuDevicePrimaryCtxRelease_v2"}, FAIL, "did not answer in time"),
    Case("copies that never come to an end", {"FAKE_SLOW": SLOW_COPIES.format(60_000)}, FAIL, "did not answer in time"),
    Case("hang on the second", {"FAKE_HANG": "cuMemAlloc_v2", "FAKE_BAD_DEVICE": "1", "FAKE_DEVICES": "2"}, FAIL,
         "did not answer in time", 2),
    Case("hang in NVML", {"FAKE_HANG": "nvmlInitWithFlags"}, WARN, "did not answer in time"),
    Case("hang in NVML's health", {"FAKE_HANG": "nvmlDeviceGetRemappedRows"}, WARN, "did not answer in time"),
]  # fmt: skip
