"""``gpu-check`` is stopped in the middle, at whatever moment: no process of it is left, and no GPU memory is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from .fake_gpu import compiled, environment, left_behind

COMMAND = [sys.executable, "-m", "gpu_checks"]


@pytest.fixture(scope="session")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> str:
    return compiled(str(tmp_path_factory.mktemp("fake_gpu")))


def nothing_left(environ: Mapping[str, str]) -> None:
    end = time.monotonic() + 5  # a process that was just started notices as soon as it runs
    while left_behind(environ) and time.monotonic() < end:
        time.sleep(0.02)
    assert left_behind(environ) == []


def started(environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, "--expect", "1"], env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_check_that_is_stopped_takes_its_hanging_children_with_it(
    fakes: str, how: signal.Signals, tmp_path: Path
) -> None:
    faults = {"FAKE_HANG": "cuInit,nvmlInitWithFlags", "FAKE_HANG_MARK": str(tmp_path)}
    environ = environment(fakes, faults)
    run = started(environ)
    end = time.monotonic() + 20
    while len(os.listdir(tmp_path)) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    assert sorted(os.listdir(tmp_path)) == ["cuInit", "nvmlInitWithFlags"]
    run.send_signal(how)
    assert run.wait(8) != 0
    nothing_left(environ)


@pytest.mark.parametrize(
    "how",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_check_that_is_stopped_at_any_moment_leaves_no_process(fakes: str, how: signal.Signals) -> None:
    """From the first instruction to the end, in steps: among them the moments at which its children just start."""
    environs = [environment(fakes, {"FAKE_SLOW": "cuMemcpyDtoH_v2=100"}) for _ in range(12)]
    for step, environ in enumerate(environs):
        run = started(environ)
        try:
            run.wait(0.08 * step)
        except subprocess.TimeoutExpired:
            run.send_signal(how)
        run.wait(10)
    for environ in environs:
        nothing_left(environ)


@pytest.mark.parametrize("call", ["cuInit", "cuMemAlloc_v2", "cuLaunchKernel", "cuDevicePrimaryCtxRelease_v2"])
@pytest.mark.parametrize("how", ["FAKE_KILL", "FAKE_CRASH", "FAKE_EXIT"])
def test_a_probe_that_dies_leaves_no_process(fakes: str, how: str, call: str) -> None:
    environ = environment(fakes, {how: call})
    run = started(environ)
    assert run.wait(20) == (3 if how == "FAKE_KILL" else 2)
    nothing_left(environ)


@pytest.mark.parametrize(
    "faults",
    [{}, {"FAKE_WRONG": "-1"}, {"FAKE_FLIP": "0:5:0x1"}, {"FAKE_FAIL": "cuModuleLoadData=221"},
     {"FAKE_FAIL": "cuMemcpyDtoD_v2=719"}, {"FAKE_FAIL": "cuCtxSynchronize=719"}],
    ids=["healthy", "wrong", "flipped", "no JIT", "a copy fails", "the kernel fails"],
)  # fmt: skip
def test_a_gpu_gets_all_of_its_memory_back(fakes: str, faults: dict[str, str], tmp_path: Path) -> None:
    """Of every context and every allocation, also where a test has failed."""
    environ = environment(fakes, {**faults, "FAKE_LEDGER": str(tmp_path)})
    started(environ).wait(20)
    held = (tmp_path / "0").read_text()
    assert held.startswith("contexts 0, allocations 0 of ")
    assert not held.endswith(" of 0\n"), "the ledger must have seen allocations"
    nothing_left(environ)
