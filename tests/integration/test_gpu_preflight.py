"""``gpu-preflight``: the check before a notebook starts. It leaves its report in three places and always exits 0."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .fake_gpu import compiled, environment, left_behind

COMMAND = [sys.executable, "-m", "gpu_checks.preflight"]


@pytest.fixture(scope="session")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> str:
    return compiled(str(tmp_path_factory.mktemp("fake_gpu")))


@dataclass
class Pod:
    """The places of an init container, as the kubelet makes them."""

    fakes: str
    directory: Path

    def __post_init__(self) -> None:
        self.message.touch()

    @property
    def message(self) -> Path:
        return self.directory / "termination-log"

    @property
    def report(self) -> Path:
        return self.directory / "gpu-report.json"

    def environ(self, faults: dict[str, str]) -> dict[str, str]:
        places = {"GPU_CHECK_TERMINATION_LOG": str(self.message), "GPU_CHECK_REPORT": str(self.report)}
        return environment(self.fakes, {"GPU_CHECK_EXPECT": "1", **places, **faults})

    def run(self, faults: dict[str, str]) -> subprocess.CompletedProcess[str]:
        environ = self.environ(faults)
        ended = subprocess.run(COMMAND, env=environ, capture_output=True, text=True, timeout=20, check=False)
        assert ended.returncode == 0
        assert left_behind(environ) == []
        return ended

    def told(self) -> dict[str, Any]:
        text = self.message.read_bytes()
        assert len(text) < 4096
        told: dict[str, Any] = json.loads(text)
        return told


@pytest.fixture
def pod(fakes: str, tmp_path: Path) -> Pod:
    return Pod(fakes, tmp_path)


@pytest.mark.parametrize(
    ("faults", "verdict", "words"),
    [
        ({}, "pass", "memory and a kernel's result verified"),
        ({"FAKE_ECC": "2"}, "warn", "memory errors were counted"),
        ({"FAKE_WRONG": "-1"}, "fail", "computed a wrong result"),
        ({"GPU_CHECK_EXPECT": "2"}, "fail", "fewer GPUs"),
        ({"FAKE_FAIL": "cuModuleLoadData=221"}, "unknown", "cannot compile"),
        ({"FAKE_CRASH": "cuInit"}, "fail", "crashed"),
        ({"FAKE_HANG": "cuInit"}, "fail", "did not answer in time"),
        ({"GPU_CHECK_EXPECT": "many"}, "unknown", "GPU_CHECK_EXPECT must be a number"),
        ({"LD_LIBRARY_PATH": "/nowhere"}, "fail", "no driver found"),
    ],
)
def test_every_verdict_is_left_in_all_three_places_and_the_exit_is_0(
    pod: Pod, faults: dict[str, str], verdict: str, words: str
) -> None:
    if "LD_LIBRARY_PATH" in faults and os.path.exists("/dev/nvidia0"):
        pytest.skip("this machine has a GPU")
    ended = pod.run(faults)
    assert (pod.told()["verdict"], pod.told()["schema"]) == (verdict, 1)
    assert words in pod.told()["summary"]
    assert json.loads(ended.stdout) == pod.told()
    assert json.loads(pod.report.read_text())["verdict"] == verdict


def test_thirty_two_sick_gpus_fit_into_a_message(pod: Pod) -> None:
    """With the longest names that a driver may give."""
    pod.run({"FAKE_DEVICES": "32", "GPU_CHECK_EXPECT": "32", "FAKE_WRONG": "-1", "FAKE_NAME": "\u202eé" * 60})
    assert pod.told()["verdict"] == "fail"
    assert pod.told()["truncated"] is True
    assert len(json.loads(pod.report.read_text())["gpus"]) == 32


@pytest.mark.parametrize("output", [">&-", ">/dev/full", ">&- 2>&-"])
def test_an_output_that_cannot_be_written_changes_no_exit_code(pod: Pod, output: str) -> None:
    command = ["sh", "-c", f'exec "$@" {output}', "sh", *COMMAND]
    ended = subprocess.run(command, env=pod.environ({}), capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert pod.told()["verdict"] == "pass"


@pytest.mark.parametrize("where", ["GPU_CHECK_TERMINATION_LOG", "GPU_CHECK_REPORT"])
def test_a_place_that_cannot_be_written_does_not_keep_the_others_from_it(pod: Pod, where: str) -> None:
    ended = pod.run({where: str(pod.directory / "no" / "file")})
    assert where in ended.stderr
    assert json.loads(ended.stdout)["verdict"] == "pass"
    assert pod.message.stat().st_size == 0 or pod.told()["verdict"] == "pass"
    assert pod.message.stat().st_size + (pod.report.stat().st_size if pod.report.exists() else 0) > 0


def test_a_message_is_written_in_place_and_through_no_link(pod: Pod) -> None:
    """In a pod the file is a mount of its own: replacing it would leave the kubelet's empty."""
    before = pod.message.stat().st_ino
    pod.message.write_text("x" * 9000)
    pod.run({})
    assert (pod.message.stat().st_ino, pod.told()["verdict"]) == (before, "pass")
    elsewhere = pod.directory / "elsewhere"
    elsewhere.write_text("precious")
    pod.message.unlink()
    pod.message.symlink_to(elsewhere)
    pod.run({})
    assert elsewhere.read_text() == "precious"


def test_a_pod_that_is_deleted_meanwhile_leaves_unknown_and_no_process(pod: Pod) -> None:
    marks = pod.directory / "marks"
    marks.mkdir()
    environ = pod.environ({"FAKE_HANG": "cuInit,nvmlInitWithFlags", "FAKE_HANG_MARK": str(marks)})
    run = subprocess.Popen(COMMAND, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 10
    while len(os.listdir(marks)) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    run.send_signal(signal.SIGTERM)
    assert run.wait(10) == 0
    assert left_behind(environ) == []
    assert pod.told()["verdict"] == "unknown"
    assert "it was stopped before its end" in pod.told()["summary"]
