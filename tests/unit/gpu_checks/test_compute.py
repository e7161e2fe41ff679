"""The kernel: the CPU's short way gives what its steps give, and the PTX is accepted for every current GPU."""

from __future__ import annotations

import ctypes
import glob
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_checks import compute
from gpu_checks.driver import CallFailed, Driver
from gpu_checks.facts import CallError, Trial

WORDS = st.integers(0, 2**32 - 1)
# Turing, Ampere (A100, A10, Orin), Ada, Hopper, Blackwell (B200, B300, RTX 50)
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_100", "sm_103", "sm_120")


def step_by_step(word: int) -> int:
    """The PTX, line by line, with a real 32-bit float."""
    addend = ctypes.c_float(word & compute.ADDENDS)
    total = ctypes.c_float(0)
    for _ in range(compute.STEPS):
        word = (word * compute.MULTIPLIER + compute.INCREMENT) & 0xFFFFFFFF
        total = ctypes.c_float(addend.value * 0.5 + total.value)
    return word ^ int(total.value)


@settings(deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=8))
def test_the_closed_form_is_what_the_steps_lead_to(words: list[int]) -> None:
    made = compute.on_cpu(struct.pack(f"={len(words)}I", *words))
    assert list(struct.unpack(f"={len(words)}I", made)) == [step_by_step(word) for word in words]


@settings(deadline=None)
@given(WORDS, st.integers(0, 31))
def test_one_wrong_bit_in_the_data_changes_the_result(word: int, bit: int) -> None:
    pair = struct.pack("=2I", word, word ^ (1 << bit))
    one, other = struct.unpack("=2I", compute.on_cpu(pair))
    assert one != other


class FakeDriver(Driver):
    """A driver without a library: memory in Python, and a launch that does what it is told to."""

    def __init__(self, launch: Callable[[bytes], bytes | None], failing: str = "") -> None:
        self._launch, self._failing = launch, failing
        self._cells: dict[int, bytes] = {}
        self.calls: list[str] = []

    def call(self, name: str, *arguments: Any) -> None:
        self.calls.append(name)
        if name == self._failing:
            raise CallFailed(CallError(name, 719, ""))
        if name == "cuLaunchKernel":
            _, blocks, y, z, threads, *_ = arguments
            assert (blocks, y, z, threads) == (compute.BLOCKS, 1, 1, compute.THREADS)
            kinds = (ctypes.c_ulonglong, ctypes.c_ulonglong, ctypes.c_uint)
            source, target, count = (kind.from_address(at).value for kind, at in zip(kinds, arguments[9], strict=True))
            assert count == blocks * threads
            made = self._launch(self._cells[source])
            self._cells[target] = self._cells[target] if made is None else made

    @contextmanager
    def allocated(self, size_bytes: int) -> Iterator[int]:
        address = len(self._cells) + 1
        self._cells[address] = bytes(size_bytes)
        yield address
        self.calls.append("freed")

    def write(self, address: int, data: bytes) -> None:
        self._cells[address] = data

    def read(self, address: int, stale: bytes) -> bytes:
        return self._cells[address][: len(stale)]


def test_a_right_result_passes_with_every_word_compared_and_all_given_back() -> None:
    driver = FakeDriver(compute.on_cpu)
    assert compute.verify(driver) == Trial(4 * compute.THREADS * compute.BLOCKS)
    assert driver.calls[-3:] == ["freed", "freed", "cuModuleUnload"]
    assert driver.calls.index("cuCtxSynchronize") > driver.calls.index("cuLaunchKernel")


def wrong_at(thread: int) -> Callable[[bytes], bytes]:
    def launch(source: bytes) -> bytes:
        made = bytearray(compute.on_cpu(source))
        made[4 * thread] ^= 0x10
        return bytes(made)

    return launch


@pytest.mark.parametrize("thread", [0, 1, 255, 256, compute.THREADS * compute.BLOCKS - 1])
def test_one_wrong_thread_is_found_and_named(thread: int) -> None:
    mismatch = compute.verify(FakeDriver(wrong_at(thread))).mismatch
    assert mismatch is not None
    assert (mismatch.step, mismatch.offset, mismatch.wrong_bits) == ("kernel", 4 * thread, 1)


@pytest.mark.parametrize(
    "launch", [lambda _: None, lambda source: source, lambda source: bytes(len(source))], ids=["none", "copy", "zeros"]
)
def test_a_kernel_that_does_something_else_is_found(launch: Callable[[bytes], bytes | None]) -> None:
    assert compute.verify(FakeDriver(launch)).mismatch is not None


@pytest.mark.parametrize(
    "call", ["cuModuleLoadData", "cuModuleGetFunction", "cuLaunchKernel", "cuCtxSynchronize", "cuModuleUnload"]
)
def test_a_failing_call_is_an_error_and_no_result(call: str) -> None:
    trial = compute.verify(FakeDriver(compute.on_cpu, call))
    assert trial == Trial(error=CallError(call, 719, ""))


def test_more_blocks_run_than_any_gpu_has_multiprocessors() -> None:
    assert compute.BLOCKS > 148


def ptxas() -> str:
    """On the PATH, in a CUDA toolkit, or from the package nvidia-cuda-nvcc beside pytest."""
    packages = glob.glob(os.path.join(os.path.dirname(pytest.__path__[0]), "nvidia", "*", "bin"))
    found = shutil.which("ptxas", path=os.pathsep.join([os.environ["PATH"], "/usr/local/cuda/bin", *packages]))
    if found is None:
        pytest.skip("ptxas, NVIDIA's assembler, is not installed: pip install nvidia-cuda-nvcc brings it")
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_ptx_assembles(architecture: str, tmp_path: Path) -> None:
    source = tmp_path / "kernel.ptx"
    source.write_text(compute.PTX)
    command = [ptxas(), f"-arch={architecture}", "-o", os.devnull, str(source)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if "is not defined for option 'gpu-name'" in ended.stderr:
        pytest.skip(f"this ptxas does not know {architecture}")
    assert (ended.returncode, ended.stderr) == (0, "")
