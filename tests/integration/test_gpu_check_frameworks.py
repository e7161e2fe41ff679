"""The real PyTorch and TensorFlow, on the CPU: imported, run and verified; and their builds told for what they are.

They stay out of the locks (the CPU and the CUDA build of one version differ in their hashes): `make test-all` installs
them into ``.venv-frameworks``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpu_checks import frameworks
from gpu_checks.framework_facts import Situation
from gpu_checks.frameworks import Notebook
from gpu_checks.result import Verdict

from .fake_gpu import compiled, environment, left_behind

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-frameworks" / "bin" / "python"
VERSIONS = {"torch": "2.13", "tensorflow": "2.21"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-frameworks here: `make test-all` makes it"),
]


def short(environ: dict[str, str], *options: str) -> tuple[int, dict[str, Any], str]:
    """``gpu-check short`` on that Python: its exit code, its report, and what it complained about."""
    environ = {**environ, "GPU_CHECK_PYTHON": str(PYTHON)}
    command = [sys.executable, "-m", "gpu_checks", "short", *options, "--json"]
    ended = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert left_behind(environ) == []
    return ended.returncode, json.loads(ended.stdout), ended.stderr


def test_both_are_imported_and_compute_right_on_the_cpu() -> None:
    code, report, complaints = short(environment("/nowhere", {}), "--expect", "0")
    assert (code, report["verdict"], complaints) == (0, "pass", ""), report
    for framework in report["frameworks"]["found"]:
        assert framework["state"] == "checked"
        assert framework["version"].startswith(VERSIONS[framework["name"]])
    products = [check for check in report["checks"] if check["name"].endswith(" product")]
    assert [check["name"] for check in products] == ["torch product", "tensorflow product"]
    for check in products:
        error = float(check["detail"].split()[6].rstrip(","))
        assert 0 < error < 5e-6, "single precision was really used, and is far better than its bound"


@pytest.fixture
def fakes(tmp_path: Path) -> str:
    return compiled(str(tmp_path))


@pytest.mark.parametrize(("options", "code"), [([], 0), (["--strict"], 1)])
def test_their_cpu_wheels_are_told_when_a_gpu_was_asked_for(fakes: str, options: list[str], code: int) -> None:
    """The GPU, here a fake, works: a warning, and what to do."""
    ended, report, _ = short(environment(fakes, {}), "--expect", "1", *options)
    if any(framework["build"].startswith("cuda") for framework in report["frameworks"]["found"]):
        pytest.skip("a CUDA build was installed here")
    assert (ended, report["verdict"], report["quick"]["verdict"]) == (code, "warn", "pass")
    assert "PyTorch here is a build for the CPU only. Choose the cuda variant" in report["summary"]
    told = {check["name"]: check for check in report["checks"] if check["verdict"] == "warn"}
    assert set(told) == {"torch", "tensorflow"}
    assert told["tensorflow"]["detail"].replace("_", "-").startswith("tensorflow-cpu 2.21")


def test_a_cpu_wheel_does_not_turn_a_missing_gpu_into_a_warning() -> None:
    if os.path.exists("/dev/nvidia0"):
        pytest.skip("this machine has a GPU")
    code, report, _ = short(environment("/nowhere", {}), "--expect", "1")
    assert (code, report["verdict"]) == (2, "fail")
    assert "no driver found" in report["summary"]
    assert {check["verdict"] for check in report["checks"] if check["name"] in VERSIONS} == {"warn"}


TORCH = """
from gpu_checks.torch_smoke import Torch
smoke = Torch()
smoke.load()
import torch
right = torch.Tensor.__matmul__
def wrong(a, b):
    product = right(a, b)
    if a.dtype is torch.float32:
        product[3, 7] *= 1.001
    return product
torch.Tensor.__matmul__ = wrong
"""
TENSORFLOW = """
from gpu_checks.tensorflow_smoke import TensorFlow
smoke = TensorFlow()
smoke.load()
import tensorflow as tf
right = tf.matmul
def wrong(a, b):
    product = right(a, b)
    factor = tf.tensor_scatter_nd_update(tf.ones_like(product), [[3, 7]], [tf.constant(1.001, a.dtype)])
    return product * factor if a.dtype == tf.float32 else product
tf.matmul = wrong
"""
JUDGE = "product = smoke.product(None); print(product.error / product.tolerance)"


@pytest.mark.parametrize("spoilt", [TORCH, TENSORFLOW], ids=["torch", "tensorflow"])
def test_one_wrong_element_of_a_million_is_found(spoilt: str) -> None:
    """The comparison is with double precision, not of a device with itself."""
    environ = {**environment("/nowhere", {}), "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [PYTHON, "-c", spoilt + JUDGE], env=environ, cwd="/", capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert 9 < float(ended.stdout) < 11, "an error of 1e-3, where 1e-4 is allowed"


@pytest.mark.parametrize("situation", [Situation(1, 1), Situation(2, 2), Situation(None, 1), Situation(1, 0)])
def test_asking_for_gpus_never_passes_on_a_cpu_wheel(situation: Situation) -> None:
    checked = frameworks.check(Notebook(str(PYTHON), environment("/nowhere", {})), situation)
    assert checked.checks
    assert all(check.verdict is not Verdict.PASS for check in checked.checks)
