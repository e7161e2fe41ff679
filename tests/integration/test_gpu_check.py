"""``gpu-check`` on fake drivers with real memory: each fault has its verdict and cause, in time, and nothing stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from gpu_checks import quick
from gpu_checks.result import Report, Verdict

from .fake_gpu import compiled, environment, left_behind

COMMAND = [sys.executable, "-m", "gpu_checks"]
PASS, WARN, UNKNOWN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.UNKNOWN, Verdict.FAIL
SHORT = quick.Limits(look_s=3.0, all_s=4.5, gone_s=6.0)  # so that the tests of hangs take seconds, not minutes


@pytest.fixture(scope="session")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> str:
    return compiled(str(tmp_path_factory.mktemp("fake_gpu")))


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


@dataclass(frozen=True)
class Case:
    title: str
    faults: Mapping[str, str]
    verdict: Verdict
    cause: str = ""
    expected: int | None = 1


def failing(**calls: int) -> dict[str, str]:
    return {"FAKE_FAIL": ",".join(f"{call}={code}" for call, code in calls.items())}


HEALTHY = [
    Case("one GPU", {}, PASS),
    Case("one GPU, nobody said how many", {}, PASS, expected=None),
    Case("two GPUs", {"FAKE_DEVICES": "2"}, PASS, expected=2),
    Case("eight GPUs", {"FAKE_DEVICES": "8"}, PASS, expected=8),
    Case("another order", {"FAKE_DEVICES": "2", "FAKE_REVERSED": "1"}, PASS, expected=2),
    Case("one MIG instance", {"FAKE_MIG": "1"}, PASS),
    Case("two MIG instances", {"FAKE_MIG": "2"}, PASS, expected=2),
    Case("an old NVML", {"FAKE_OLD_NVML": "1"}, PASS),
    Case("no ECC on this card", failing(nvmlDeviceGetTotalEccErrors=3, nvmlDeviceGetRemappedRows=3), PASS),
    Case("an instance that may not ask its GPU", {"FAKE_MIG": "1", **failing(nvmlDeviceGetTemperature=4)}, PASS),
    Case("errors of long ago", {"FAKE_ECC_LIFETIME": "9", "FAKE_REMAP": "1,1,0,0"}, PASS),
    Case("idle and power-capped clocks", {"FAKE_REASONS": "0x5"}, PASS),
    Case("a driver that prints", {"FAKE_PRINT": "cuInit,cuLaunchKernel,nvmlInitWithFlags"}, PASS),
]
SICK = [
    Case("nothing shown", failing(cuInit=100, nvmlInitWithFlags=9), FAIL, "kernel module is not loaded"),
    Case("unknown error", failing(cuInit=999), FAIL, "unknown error"),
    Case("fallen off the bus", failing(cuInit=999, nvmlDeviceGetHandleByIndex_v2=15), FAIL, "fallen off the bus"),
    Case("versions differ", failing(cuInit=803, nvmlInitWithFlags=18), FAIL, "differ in version"),
    Case("compat library", failing(cuInit=804), FAIL, "compatibility library"),
    Case("daemon-reload", failing(cuInit=100, nvmlInitWithFlags=999), FAIL, "daemon-reload"),
    Case("fabric manager", failing(cuInit=802), FAIL, "fabric"),
    Case("stub", failing(cuInit=34), FAIL, "stub"),
    Case("MPS", failing(cuInit=805), FAIL, "MPS"),
    Case("MIG without instances", {**failing(cuInit=100), "FAKE_MIG_PARENTS": "1"}, FAIL, "no instance"),
    Case("exclusive mode", failing(cuDevicePrimaryCtxRetain=46), FAIL, "exclusive"),
    Case("memory held", {**failing(cuMemAlloc_v2=2), "FAKE_FREE": "1000000"}, FAIL, "held by another process"),
    Case("ECC while reading", failing(cuMemcpyDtoH_v2=214), FAIL, "uncorrectable memory error"),
    Case("the kernel fails", failing(cuCtxSynchronize=719), FAIL, "a call of the driver failed"),
    Case("fewer", {}, FAIL, "fewer GPUs", expected=2),
    Case("one GPU twice", {"FAKE_DEVICES": "2", "FAKE_TWIN": "1"}, FAIL, "fewer GPUs", expected=2),
    Case("fewer, NVML knows why", {"FAKE_DEVICES": "2", **failing(cuDeviceGetUuid_v2=999)}, FAIL, "unknown", 2),
    Case("hidden", {"CUDA_VISIBLE_DEVICES": ""}, FAIL, "CUDA_VISIBLE_DEVICES"),
    Case("hidden by -1", {"CUDA_VISIBLE_DEVICES": "-1"}, FAIL, "CUDA_VISIBLE_DEVICES"),
    Case("a second one hidden", {"FAKE_DEVICES": "2", "CUDA_VISIBLE_DEVICES": "0"}, FAIL, "CUDA_VISIBLE_DEVICES", 2),
    Case("one flipped bit", {"FAKE_FLIP": "1:1048575:0x80"}, FAIL, "returned wrong data"),
    Case("a stuck bit", {"FAKE_STUCK": "0:77:0x20:0"}, FAIL, "returned wrong data"),
    Case("an unwired address line", {"FAKE_ALIAS": "0x80000"}, FAIL, "returned wrong data"),
    Case("two buffers at one place", {"FAKE_ONE_BUFFER": "1"}, FAIL, "returned wrong data"),
    Case("a fill that does nothing", {"FAKE_LAZY": "cuMemsetD32_v2"}, FAIL, "returned wrong data"),
    Case("a copy to the device that does nothing", {"FAKE_LAZY": "cuMemcpyHtoD_v2"}, FAIL, "returned wrong data"),
    Case("a copy on the device that does nothing", {"FAKE_LAZY": "cuMemcpyDtoD_v2"}, FAIL, "returned wrong data"),
    Case("a copy back that does nothing", {"FAKE_LAZY": "cuMemcpyDtoH_v2"}, FAIL, "returned wrong data"),
    Case("a kernel that does not run", {"FAKE_LAZY": "cuLaunchKernel"}, FAIL, "computed a wrong result"),
    Case("one thread wrong", {"FAKE_WRONG": "65535"}, FAIL, "computed a wrong result"),
    Case("a consistently wrong GPU", {"FAKE_WRONG": "-1"}, FAIL, "computed a wrong result"),
    Case("the second is sick", {"FAKE_DEVICES": "2", "FAKE_BAD_DEVICE": "1", "FAKE_WRONG": "-1"}, FAIL, "wrong", 2),
    Case("crash at start", {"FAKE_CRASH": "cuInit"}, FAIL, "the driver crashed"),
    Case("crash in the kernel", {"FAKE_CRASH": "cuLaunchKernel"}, FAIL, "the driver crashed"),
    Case("crash at the end", {"FAKE_CRASH": "cuDevicePrimaryCtxRelease_v2"}, FAIL, "the driver crashed"),
    Case("the driver ends the process", {"FAKE_EXIT": "cuInit"}, FAIL, "the driver crashed"),
    Case("no JIT", failing(cuModuleLoadData=221), UNKNOWN, "cannot compile"),
    Case("JIT turned off", failing(cuModuleLoadData=223), UNKNOWN, "cannot compile"),
    Case("another order in each process", {"FAKE_DEVICES": "2", "FAKE_UNSTABLE": "1"}, UNKNOWN, "not the one", 2),
    Case("killed from outside", {"FAKE_KILL": "cuMemAlloc_v2"}, UNKNOWN, "killed from outside"),
    Case("scribbling into every descriptor", {"FAKE_SCRIBBLE": "cuInit"}, UNKNOWN, "could not be carried out"),
    Case("more", {"FAKE_DEVICES": "2"}, WARN, "more GPUs than expected"),
    Case("one that nobody asked for", {}, WARN, "more GPUs than expected", expected=0),
    Case("NVML unreadable", failing(nvmlInitWithFlags=18), WARN, "differ in version"),
    Case("NVML crashes", {"FAKE_CRASH": "nvmlDeviceGetUUID"}, WARN, "crashed"),
    Case("NVML lists others", {"FAKE_NVML_STRANGERS": "1"}, WARN, "list different GPUs"),
    Case("NVML lists one more", {"FAKE_NVML_DEVICES": "2"}, WARN, "list different GPUs"),
    Case("ECC", {"FAKE_ECC": "3"}, WARN, "memory errors were counted"),
    Case("remapping failed", {"FAKE_REMAP": "0,1,0,1"}, WARN, "no spare is left"),
    Case("remapping pending", {"FAKE_REMAP": "0,1,1,0"}, WARN, "waits to be replaced"),
    Case("page pending", {"FAKE_PAGES_PENDING": "1"}, WARN, "waits to be replaced"),
    Case("hardware slowdown", {"FAKE_REASONS": "0x48"}, WARN, "slows the GPU down"),
]  # fmt: skip
HANGS = [
    Case("hang at start", {"FAKE_HANG": "cuInit"}, FAIL, "did not answer in time"),
    Case("hang at start, none expected", {"FAKE_HANG": "cuInit"}, UNKNOWN, "did not answer in time", expected=0),
    Case("hang in the copy", {"FAKE_HANG": "cuMemcpyDtoH_v2"}, FAIL, "did not answer in time"),
    Case("hang in the kernel", {"FAKE_HANG": "cuCtxSynchronize"}, FAIL, "did not answer in time"),
    Case(
        "hang on the second", {"FAKE_HANG": "cuMemAlloc_v2", "FAKE_BAD_DEVICE": "1", "FAKE_DEVICES": "2"}, FAIL, "", 2
    ),
    Case("hang in NVML", {"FAKE_HANG": "nvmlInitWithFlags"}, WARN, "did not answer in time"),
]


@pytest.fixture(scope="session")
def reports(fakes: str) -> dict[str, Report]:
    """The report of each case, by its title: several at a time, since most of it is waiting."""

    def report(case: Case) -> Report:
        return checked(fakes, case.faults, case.expected, SHORT if case in HANGS else quick.Limits())

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


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_check_that_is_stopped_takes_its_hanging_children_with_it(
    fakes: str, how: signal.Signals, tmp_path: Path
) -> None:
    faults = {"FAKE_HANG": "cuInit,nvmlInitWithFlags", "FAKE_HANG_MARK": str(tmp_path)}
    environ = environment(fakes, faults)
    run = subprocess.Popen([*COMMAND, "--expect", "1"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 5
    while len(os.listdir(tmp_path)) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    assert sorted(os.listdir(tmp_path)) == ["cuInit", "nvmlInitWithFlags"]
    run.send_signal(how)
    assert run.wait(5) != 0
    assert run.stdout is not None
    run.stdout.close()
    nothing_left(environ)


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


@pytest.mark.gpu
def test_a_real_gpu_passes(tmp_path: Path) -> None:
    if not os.path.exists("/dev/nvidia0"):
        pytest.skip("no GPU here")
    ended = subprocess.run([*COMMAND, "--json"], capture_output=True, text=True, timeout=15, check=False)
    report = json.loads(ended.stdout)
    assert (ended.returncode, report["verdict"]) == (0, "pass"), report
    assert report["duration_s"] < 9
