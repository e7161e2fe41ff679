"""``gpu-check`` on fake drivers with real memory: each fault has its verdict and cause, in time, and nothing stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from gpu_checks import quick
from gpu_checks.result import Report

from .fake_gpu import compiled, environment, left_behind
from .fake_gpu.cases import FAIL, HANGS, HEALTHY, PASS, SICK, WARN, Case

COMMAND = [sys.executable, "-m", "gpu_checks"]
SHORT = quick.Limits(look_s=3.0, all_s=4.5, gone_s=6.0)  # so that the tests of hangs take seconds, not minutes


@pytest.fixture(scope="session")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> str:
    return compiled(str(tmp_path_factory.mktemp("fake_gpu")))


@pytest.fixture(scope="session")
def old_fakes(tmp_path_factory: pytest.TempPathFactory) -> str:
    return compiled(str(tmp_path_factory.mktemp("old_fake_gpu")), "OLD")


def nothing_left(environ: Mapping[str, str]) -> None:
    end = time.monotonic() + 2  # a killed process takes a moment
    while left_behind(environ) and time.monotonic() < end:
        time.sleep(0.02)
    assert left_behind(environ) == []


def checked(
    fakes: str, faults: Mapping[str, str], expected: int | None = 1, limits: quick.Limits | None = None
) -> Report:
    environ = environment(fakes, faults)
    report = quick.run(expected, environ, limits or quick.Limits())
    nothing_left(environ)
    return report


def command(fakes: str, *options: str, **faults: str) -> tuple[subprocess.CompletedProcess[str], float]:
    environ = environment(fakes, faults)
    started = time.monotonic()
    ended = subprocess.run([*COMMAND, *options], env=environ, capture_output=True, text=True, timeout=30, check=False)
    took_s = time.monotonic() - started
    nothing_left(environ)
    return ended, took_s


@pytest.fixture(scope="session")
def reports(fakes: str, old_fakes: str) -> dict[str, Report]:
    """The report of each case, by its title: several at a time, since most of it is waiting."""

    def report(case: Case) -> Report:
        libraries = old_fakes if case.old else fakes
        return checked(libraries, case.faults, case.expected, SHORT if case in HANGS else quick.Limits())

    cases = [*HANGS, *HEALTHY, *SICK]
    with ThreadPoolExecutor(len(HANGS)) as pool:
        return {case.title: made for case, made in zip(cases, pool.map(report, cases), strict=True)}


def test_no_two_cases_have_one_title() -> None:
    titles = [case.title for case in (*HEALTHY, *SICK, *HANGS)]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("case", HEALTHY, ids=lambda case: case.title)
def test_no_false_alarm(reports: Mapping[str, Report], case: Case) -> None:
    report = reports[case.title]
    assert report.verdict is PASS, [check for check in report.checks if check.verdict is not PASS]
    assert all(gpu.tested_bytes >= 1024 * 1024 for gpu in report.gpus)


@pytest.mark.parametrize("case", SICK, ids=lambda case: case.title)
def test_each_fault_has_its_verdict_and_its_cause(reports: Mapping[str, Report], case: Case) -> None:
    report = reports[case.title]
    assert report.verdict is case.verdict, [check for check in report.checks if check.verdict is not PASS]
    assert case.cause in report.summary
    assert report.duration_s < 9


@pytest.mark.parametrize("case", HANGS, ids=lambda case: case.title)
def test_each_hang_is_a_result(reports: Mapping[str, Report], case: Case) -> None:
    report = reports[case.title]
    assert report.verdict is case.verdict
    assert case.cause in report.summary
    assert report.duration_s < SHORT.gone_s


def test_a_hang_on_one_gpu_does_not_hide_what_the_other_said(reports: Mapping[str, Report]) -> None:
    report = reports["hang on the second"]
    memory = {check.gpu: check for check in report.checks if check.name == "memory"}
    assert [check.verdict for _, check in sorted(memory.items())] == [PASS, FAIL]
    assert "in cuMemAlloc_v2" in memory[report.gpus[1].uuid].detail


def test_hangs_end_within_ten_seconds_with_the_real_limits_and_leave_nothing(fakes: str) -> None:
    environs = [
        environment(fakes, {"FAKE_HANG": call})
        for call in ("cuInit", "cuLaunchKernel", "nvmlDeviceGetCount_v2,cuCtxSynchronize")
    ]
    started = time.monotonic()
    runs = [
        subprocess.Popen([*COMMAND, "--expect", "1", "--json"], env=environ, stdout=subprocess.PIPE, text=True)
        for environ in environs
    ]
    for run, environ in zip(runs, environs, strict=True):
        output, _ = run.communicate(timeout=20)
        assert time.monotonic() - started < 10
        assert run.returncode == 2
        assert json.loads(output)["summary"].startswith("GPU check: failed – the driver did not answer in time.")
        nothing_left(environ)


def test_a_gpu_that_nobody_asked_for_is_not_touched(fakes: str) -> None:
    report = checked(fakes, {}, 0)
    assert report.verdict is WARN
    assert [(gpu.tested_bytes, gpu.free_bytes) for gpu in report.gpus] == [(0, None)]


def test_health_reaches_the_report(fakes: str) -> None:
    (gpu,) = checked(fakes, {"FAKE_ECC": "3", "FAKE_ECC_LIFETIME": "9", "FAKE_REMAP": "4,2,1,0"}).gpus
    health = gpu.health
    assert (health.ecc_uncorrected, health.ecc_uncorrected_lifetime) == (3, 9)
    assert (health.remapped_rows_uncorrected, health.remap_pending, health.remap_failed) == (2, True, False)
    assert (gpu.compute_capability, gpu.multiprocessors, gpu.memory_bytes) == ("8.0", 108, 80 << 30)


# The command


def test_the_command_says_pass_in_json_and_nothing_else(fakes: str) -> None:
    ended, took_s = command(fakes, "quick", "--expect", "1", "--json")
    report: dict[str, Any] = json.loads(ended.stdout)
    assert (ended.returncode, ended.stderr, report["verdict"], report["found"]) == (0, "", "pass", 1)
    assert report["gpus"][0]["uuid"] == "GPU-00000000-1111-2222-3333-444444444400"
    assert report["versions"]["driver"] == "550.54.15"
    assert took_s < 5


@pytest.mark.parametrize(
    ("faults", "options", "code"),
    [
        ({}, ["--expect", "1"], 0),
        ({"FAKE_ECC": "1"}, ["--expect", "1"], 0),
        ({"FAKE_ECC": "1"}, ["--expect", "1", "--strict"], 1),
        ({"FAKE_WRONG": "-1"}, ["--expect", "1"], 2),
        ({"FAKE_FAIL": "cuModuleLoadData=221"}, ["--expect", "1", "--strict"], 3),
        ({"GPU_CHECK_EXPECT": "2"}, [], 2),
        ({"GPU_CHECK_EXPECT": "2"}, ["--expect", "1"], 0),
        ({"GPU_CHECK_EXPECT": "many"}, [], 64),
        ({}, ["medium"], 64),
        ({}, ["--expect", "-1"], 64),
        ({}, ["--expect", "one"], 64),
        ({}, ["--nonsense"], 64),
        ({}, ["--help"], 0),
        ({}, ["--version"], 0),
    ],
)
def test_exit_codes(fakes: str, faults: dict[str, str], options: list[str], code: int) -> None:
    ended, _ = command(fakes, *options, **faults)
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_help_names_the_exit_codes(fakes: str) -> None:
    ended, _ = command(fakes, "--help")
    assert all(f"  {code} " in ended.stdout for code in (0, 1, 2, 3, 64))


def test_the_report_file_is_written_for_the_hub(fakes: str, tmp_path: Path) -> None:
    place = tmp_path / "gpu.json"
    ended, _ = command(fakes, "--expect", "1", GPU_CHECK_REPORT=str(place))
    assert ended.returncode == 0
    assert json.loads(place.read_text())["verdict"] == "pass"


def test_a_report_that_cannot_be_written_changes_no_verdict(fakes: str, tmp_path: Path) -> None:
    ended, _ = command(fakes, "--expect", "1", "--json", GPU_CHECK_REPORT=str(tmp_path / "no" / "gpu.json"))
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["verdict"] == "pass"
    assert "GPU_CHECK_REPORT" in ended.stderr


def test_junit_is_written_or_the_command_does_not_succeed(fakes: str, tmp_path: Path) -> None:
    place = tmp_path / "gpu.xml"
    ended, _ = command(fakes, "--expect", "1", "--junit", str(place))
    assert ended.returncode == 0
    assert ElementTree.parse(place).getroot().get("failures") == "0"
    ended, _ = command(fakes, "--expect", "1", "--junit", str(tmp_path / "no" / "gpu.xml"))
    assert ended.returncode == 64
    ended, _ = command(fakes, "--expect", "1", "--junit", str(tmp_path / "no" / "gpu.xml"), FAKE_WRONG="-1")
    assert ended.returncode == 2


def test_a_hostile_name_is_harmless_everywhere(fakes: str, tmp_path: Path) -> None:
    name = "A\x1b]0;owned\x07100\n\u202e<script>&"
    ended, _ = command(fakes, "--expect", "1", "--junit", str(tmp_path / "gpu.xml"), FAKE_NAME=name)
    assert ended.returncode == 0
    assert not set("\x1b\x07\u202e") & set(ended.stdout)
    assert "A\\x1b]0;owned\\x07100\\n\\u202e<script>&" in ended.stdout
    ElementTree.parse(tmp_path / "gpu.xml")


def test_a_terminal_without_unicode_is_no_fault(fakes: str) -> None:
    ended, _ = command(fakes, "--expect", "1", LC_ALL="en_US.ISO-8859-1", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert ended.returncode == 0
    assert "GPU check: passed" in ended.stdout


def test_a_reader_that_goes_away_changes_no_verdict(fakes: str) -> None:
    environ = environment(fakes, {"FAKE_WRONG": "-1"})
    run = subprocess.Popen([*COMMAND, "--expect", "1"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout is not None
    run.stdout.close()
    assert run.wait(20) == 2
    assert run.stderr is not None
    assert run.stderr.read() == b""
    run.stderr.close()


@pytest.mark.parametrize("output", [">&-", ">/dev/full", ">&- 2>&-", ">/dev/full 2>/dev/full"])
@pytest.mark.parametrize(("faults", "code"), [({}, 0), ({"FAKE_WRONG": "-1"}, 2)])
def test_an_output_that_cannot_be_written_changes_no_verdict(
    fakes: str, output: str, faults: dict[str, str], code: int
) -> None:
    command = ["sh", "-c", f'exec "$@" {output}', "sh", *COMMAND, "--expect", "1"]
    ended = subprocess.run(command, env=environment(fakes, faults), capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (code, "")


# This machine, as it is


def no_driver(tmp_path: Path) -> dict[str, str]:
    """The environment of this machine, if it has no driver."""
    probe = subprocess.run(
        [sys.executable, "-c", "import ctypes; ctypes.CDLL('libcuda.so.1')"], capture_output=True, check=False
    )
    if probe.returncode == 0 or os.path.exists("/dev/nvidia0"):
        pytest.skip("this machine has a GPU driver")
    return environment(str(tmp_path), {})


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--expect", "0"], 0, "no GPU is visible, as expected"),
        (["--expect", "1"], 2, "no driver found. Choose a GPU profile"),
        ([], 3, "no driver found"),
    ],
)
def test_a_machine_without_a_gpu_is_judged_honestly(tmp_path: Path, options: list[str], code: int, words: str) -> None:
    ended = subprocess.run([*COMMAND, *options], env=no_driver(tmp_path), capture_output=True, text=True, check=False)
    assert ended.returncode == code
    assert words in ended.stdout


def test_a_library_that_is_no_library_is_no_driver(tmp_path: Path) -> None:
    environ = no_driver(tmp_path)
    (tmp_path / "libcuda.so.1").write_text("not ELF")
    ended = subprocess.run([*COMMAND, "--expect", "1"], env=environ, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "libcuda.so.1" in ended.stdout
