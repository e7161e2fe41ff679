"""On a machine with GPUs, as a CI runner has them: `pytest -m gpu`. A red build means a sick image or a sick node.

The frameworks are those of the Python in GPU_CHECK_PYTHON, or else of the one that runs the tests. How many GPUs there
must be is GPU_CHECK_EXPECT's to say; without it, one at least.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpu_checks import frameworks, last, quick, short
from gpu_checks.frameworks import Notebook
from gpu_checks.result import Verdict

COMMAND = [sys.executable, "-m", "gpu_checks"]
FRAMEWORKS = ("torch", "tensorflow")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not quick.device_files(), reason="no GPU here: none in /dev"),
]


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """What ``gpu-check short`` says, with its exit code."""
    ended = subprocess.run([*COMMAND, "short", "--json"], capture_output=True, text=True, timeout=500, check=False)
    said: dict[str, Any] = json.loads(ended.stdout)
    return {**said, "exit_code": ended.returncode}


def seen(report: dict[str, Any]) -> list[str]:
    """The GPUs that one process can see, by UUID."""
    return [gpu["uuid"] for gpu in report["gpus"] if gpu["index"] is not None]


def test_the_driver_level_check_passes(report: dict[str, Any]) -> None:
    assert report["quick"]["verdict"] in ("pass", "warn"), report["quick"]
    assert seen(report)


def test_what_the_frameworks_say_is_no_failure(report: dict[str, Any]) -> None:
    assert report["exit_code"] == 0, report["summary"]


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_every_framework_that_is_here_computes_right_on_every_gpu(report: dict[str, Any], name: str) -> None:
    (framework,) = [each for each in report["frameworks"]["found"] if each["name"] == name]
    if framework["state"] == "not installed":
        pytest.skip(f"{name} is not installed in {report['frameworks']['python']}")
    if framework["state"] == "cpu build":
        pytest.skip(f"{name} {framework['version']} is a build for the CPU: no GPU was tested with it")
    products = [check for check in report["checks"] if check["name"] == f"{name} product"]
    assert sorted(check["gpu"] for check in products) == sorted(seen(report))
    assert {check["verdict"] for check in products} == {"pass"}, products


def test_a_framework_that_sees_no_gpu_fails(report: dict[str, Any], tmp_path: Path) -> None:
    """The driver was asked with all GPUs, the framework runs in a Python to which they are hidden."""
    if not any(each["state"] == "checked" for each in report["frameworks"]["found"]):
        pytest.skip("no framework here that can use a GPU")
    place = tmp_path / "report.json"
    place.write_text(json.dumps({name: value for name, value in report.items() if name != "exit_code"}))
    python = os.environ.get("GPU_CHECK_PYTHON") or sys.executable
    blind = Notebook(python, {**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    checked = frameworks.check(blind, short.situation(last.last_report(str(place)), None, hidden=True))
    counts = {check.verdict for check in checked.checks if check.name.endswith(" GPUs")}
    assert counts == {Verdict.FAIL}, checked
