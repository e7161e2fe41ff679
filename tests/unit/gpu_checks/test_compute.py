"""The kernel: the CPU's short way gives what its steps give, and the PTX is accepted for every current GPU."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_checks import compute

WORDS = st.integers(0, 2**32 - 1)
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")


def step_by_step(word: int) -> int:
    """The PTX, line by line, with a real 32-bit float."""
    addend = ctypes.c_float(word & compute.ADDENDS)
    total = ctypes.c_float(0)
    for _ in range(compute.STEPS):
        word = (word * compute.MULTIPLIER + compute.INCREMENT) & 0xFFFFFFFF
        total = ctypes.c_float(addend.value * 0.5 + total.value)
    return word ^ int(total.value)


@given(st.lists(WORDS, min_size=1, max_size=8))
def test_the_closed_form_is_what_the_steps_lead_to(words: list[int]) -> None:
    made = compute.on_cpu(struct.pack(f"={len(words)}I", *words))
    assert list(struct.unpack(f"={len(words)}I", made)) == [step_by_step(word) for word in words]


@given(WORDS, st.integers(0, 31))
def test_one_wrong_bit_in_the_data_changes_the_result(word: int, bit: int) -> None:
    pair = struct.pack("=2I", word, word ^ (1 << bit))
    one, other = struct.unpack("=2I", compute.on_cpu(pair))
    assert one != other


def test_more_blocks_run_than_any_gpu_has_multiprocessors() -> None:
    assert compute.BLOCKS > 148


def ptxas() -> str:
    found = shutil.which("ptxas") or shutil.which("ptxas", path="/usr/local/cuda/bin")
    if found is None:
        pytest.skip("ptxas, NVIDIA's assembler, is not installed")
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_ptx_assembles(architecture: str, tmp_path: Path) -> None:
    command = [ptxas(), f"-arch={architecture}", "-o", os.devnull, "-"]
    source = tmp_path / "kernel.ptx"
    source.write_text(compute.PTX)
    command[-1] = str(source)
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if "is not defined for option 'gpu-name'" in ended.stderr:
        pytest.skip(f"this ptxas does not know {architecture}")
    assert (ended.returncode, ended.stderr) == (0, "")
