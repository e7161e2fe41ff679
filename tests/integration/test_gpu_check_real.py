"""``gpu-check`` on a real GPU. Run with ``pytest -m gpu``; skipped where there is none, and never a pass by default."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "gpu_checks"]

# Takes nearly all memory of the first GPU in one process, says "held", and keeps it until its input ends.
HOG = """
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
def call(name, *arguments):
    code = getattr(cuda, name)(*arguments)
    if code: sys.exit(f"{name}: {code}")
device, context, free, total = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
call("cuInit", 0)
call("cuDeviceGet", ctypes.byref(device), 0)
call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
call("cuCtxPushCurrent_v2", context)
leave, step = int(sys.argv[1]), 1 << 28
while True:
    call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    size = min(step, free.value - leave)
    address = ctypes.c_ulonglong()
    if size < 1 << 21 or cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size)): break
print("held", flush=True)
sys.stdin.read()
"""

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _a_gpu() -> None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        pytest.skip("no CUDA driver here")
    if not os.path.exists("/dev/nvidia0"):
        pytest.skip("no GPU here")


def checked(*options: str) -> tuple[int, dict[str, Any], float]:
    """Exit code, report, and the seconds that it took."""
    started = time.monotonic()
    ended = subprocess.run([*COMMAND, "--json", *options], capture_output=True, text=True, timeout=20, check=False)
    return ended.returncode, json.loads(ended.stdout), time.monotonic() - started


def test_a_real_gpu_passes_in_time(record_property: Callable[[str, object], None]) -> None:
    code, report, took_s = checked()
    record_property("quick_s", round(took_s, 3))
    print(f"quick: {took_s:.2f} s for {report['found']} GPU", file=sys.stderr)
    assert (code, report["verdict"] in ("pass", "warn")) == (0, True), report
    assert all(gpu["tested_bytes"] >= 1 << 20 for gpu in report["gpus"])
    assert all(gpu["uuid"].startswith(("GPU-", "MIG-")) for gpu in report["gpus"])
    assert took_s < 10


def test_a_second_run_is_quick_and_says_the_same() -> None:
    (first_code, first, _), (code, report, took_s) = checked(), checked()
    assert (first_code, first["verdict"], first["found"]) == (code, report["verdict"], report["found"])
    assert took_s < 5


def test_one_gpu_more_than_there_are_is_a_failure() -> None:
    _, report, _ = checked()
    code, report, _ = checked("--expect", str(report["found"] + 1))
    assert (code, report["verdict"]) == (2, "fail")


@pytest.fixture
def hog(request: pytest.FixtureRequest) -> Iterator[None]:
    """Somebody else holds all memory of the first GPU but so many bytes."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOG, str(request.param)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


@pytest.mark.parametrize("hog", [1 << 20, 3 << 30], indirect=True, ids=["all", "all but 3 GiB"])
@pytest.mark.usefixtures("hog")
def test_a_process_that_holds_nearly_all_memory_is_diagnosed() -> None:
    code, report, took_s = checked()
    causes = [check["cause"] for check in report["checks"] if check["name"] in ("memory", "kernel", "free memory")]
    assert any("nearly all memory" in cause for cause in causes), report
    assert report["verdict"] == ("fail" if code == 2 else "warn")
    assert took_s < 10


def test_hidden_gpus_are_diagnosed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    code, report, _ = checked("--expect", "1")
    assert code == 2
    assert "CUDA_VISIBLE_DEVICES" in report["summary"]
