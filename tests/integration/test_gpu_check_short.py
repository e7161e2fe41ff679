"""``gpu-check short``: the frameworks of the notebook's Python on every GPU, with fake drivers and fake frameworks.

The real PyTorch and TensorFlow run on the CPU in ``test_gpu_check_frameworks.py``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gpu_checks import frameworks, last, report, runner, short
from gpu_checks.framework_facts import SeenGpu, Situation
from gpu_checks.frameworks import Checked, Limits, Notebook
from gpu_checks.result import Check, Verdict

from .fake_frameworks import install_tensorflow, install_torch
from .fake_gpu import compiled, environment, left_behind

COMMAND = [sys.executable, "-m", "gpu_checks"]
PASS, WARN, UNKNOWN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.UNKNOWN, Verdict.FAIL
UUIDS = [f"GPU-00000000-1111-2222-3333-4444444444{index:02x}" for index in range(2)]
TWO = Situation(2, 2, tuple(SeenGpu(index, uuid, "8.0") for index, uuid in enumerate(UUIDS)), "12.4")
NEEDS = ('nvidia-cudnn-cu12==9.1; extra == "and-cuda"', 'nvidia-nccl-cu12; platform_machine == "pdp11"')


@pytest.fixture(scope="session")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> str:
    return compiled(str(tmp_path_factory.mktemp("fake_gpu")))


@dataclass
class Site:
    """A Python with fake frameworks."""

    path: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def notebook(self) -> Notebook:
        return Notebook(sys.executable, {**environment("/nowhere", self.environ), "PYTHONPATH": str(self.path)})

    def check(
        self, faults: Mapping[str, str] | None = None, *, situation: Situation = TWO, limits: Limits | None = None
    ) -> Checked:
        self.environ = dict(faults or {})
        notebook = self.notebook
        checked = frameworks.check(notebook, situation, limits or Limits())
        assert left_behind(notebook.environ) == []
        return checked


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def verdicts(checks: tuple[Check, ...]) -> dict[str, Verdict]:
    return {f"{check.name} {check.gpu}".strip(): check.verdict for check in checks}


def test_both_frameworks_compute_on_every_gpu(site: Site) -> None:
    install_torch(site.path)
    install_tensorflow(site.path)
    checked = site.check({"FAKE_TORCH_COUNT": "2", "FAKE_TF_COUNT": "2"})
    assert verdicts(checked.checks) == {
        "torch GPUs": PASS,
        **{f"torch product {uuid}": PASS for uuid in UUIDS},
        "tensorflow GPUs": PASS,
        **{f"tensorflow product {uuid}": PASS for uuid in UUIDS},
    }
    assert [(each.name, each.state, each.build) for each in checked.section.found] == [
        ("torch", "checked", "cuda 12.4"),
        ("tensorflow", "checked", "cuda 12.5.1"),
    ]
    assert checked.section.python == sys.executable


@dataclass(frozen=True)
class Case:
    title: str
    faults: Mapping[str, str]
    verdict: Verdict
    cause: str
    check: str = ""
    framework: Callable[[Path], None] = install_torch


def at(place: str, deed: str) -> dict[str, str]:
    return {"FAKE_TORCH_COUNT": "2", "FAKE_TORCH_AT": place, "FAKE_TORCH_DO": deed}


SECOND = f" {UUIDS[1]}"
CASES = [
    Case("one of two", {"FAKE_TORCH_COUNT": "1"}, FAIL, "sees fewer GPUs", "torch GPUs"),
    Case(
        "none, and why",
        {"FAKE_TORCH_COUNT": "0", "FAKE_TORCH_WHY": "The NVIDIA driver on your system is too old"},
        FAIL,
        "driver is too old",
        "torch GPUs",
    ),
    Case("more", {"FAKE_TORCH_COUNT": "3"}, WARN, "sees other GPUs", "torch GPUs"),
    Case(
        "the second is wrong",
        {"FAKE_TORCH_COUNT": "2", "FAKE_TORCH_WRONG": "1"},
        FAIL,
        "wrong result on the GPU",
        "torch product" + SECOND,
    ),
    Case(
        "no number",
        {"FAKE_TORCH_COUNT": "2", "FAKE_TORCH_WRONG": "1:nan"},
        FAIL,
        "wrong result on the GPU",
        "torch product" + SECOND,
    ),
    Case(
        "no kernels",
        {"FAKE_TORCH_COUNT": "2", "FAKE_TORCH_RAISE": "1:CUDA error: no kernel image is available"},
        FAIL,
        "no kernels for this GPU",
        "torch product" + SECOND,
    ),
    Case(
        "a product without own kernels",
        {"FAKE_TORCH_COUNT": "2", "FAKE_TORCH_ARCHITECTURES": "sm_90,sm_90a,compute_120"},
        FAIL,
        "no kernels for this GPU",
        "torch kernels" + SECOND,
    ),
    Case(
        "memory held",
        {"FAKE_TORCH_COUNT": "2", "FAKE_TORCH_RAISE": "1:CUDA out of memory. Tried to allocate 2.00 MiB"},
        UNKNOWN,
        "held by another process",
        "torch product" + SECOND,
    ),
    Case(
        "any error",
        {"FAKE_TORCH_COUNT": "2", "FAKE_TORCH_RAISE": "1:CUBLAS_STATUS_NOT_INITIALIZED"},
        FAIL,
        "failed on the GPU",
        "torch product" + SECOND,
    ),
    Case(
        "computed elsewhere",
        {"FAKE_TORCH_COUNT": "2", "FAKE_TORCH_ELSEWHERE": "1"},
        FAIL,
        "did not compute on the GPU",
        "torch product" + SECOND,
    ),
    Case("a library is missing", at("import", "raise"), FAIL, "does not find the CUDA libraries", "torch"),
    Case("crash at import", at("import", "crash"), FAIL, "PyTorch crashed", "torch"),
    Case("it ends the process", at("import", "exit"), FAIL, "PyTorch crashed", "torch"),
    Case("killed", at("import", "kill"), UNKNOWN, "was not checked", "torch"),
    Case("crash while counting", at("count", "crash"), FAIL, "PyTorch crashed", "torch"),
    Case("crash in the product", at("product", "crash"), FAIL, "PyTorch crashed", "torch product"),
    Case("killed in the product", at("product", "kill"), UNKNOWN, "was not checked", "torch product"),
    Case("slow to import", at("import", "hang"), UNKNOWN, "was not checked", "torch"),
    Case("hang while counting", at("count", "hang"), FAIL, "did not answer in time", "torch"),
    Case("hang in the product", at("product", "hang"), FAIL, "did not answer in time", "torch product"),
    Case(
        "TensorFlow, no libraries",
        {"FAKE_TF_COUNT": "0", "FAKE_TF_LOG": "W0000 gpu_device.cc:2343] Cannot dlopen some GPU libraries"},
        FAIL,
        "does not find the CUDA libraries",
        "tensorflow GPUs",
        install_tensorflow,
    ),
    Case(
        "TensorFlow, wrong",
        {"FAKE_TF_COUNT": "2", "FAKE_TF_WRONG": "1"},
        FAIL,
        "TensorFlow computed a wrong result",
        "tensorflow product" + SECOND,
        install_tensorflow,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_each_fault_has_its_verdict_and_its_cause(site: Site, case: Case) -> None:
    case.framework(site.path)
    hangs = "hang" in case.faults.values()
    checked = site.check(case.faults, limits=Limits(framework_s=3.0) if hangs else None)
    bad = [check for check in checked.checks if check.verdict is not PASS]
    assert [(f"{check.name} {check.gpu}".strip(), check.verdict) for check in bad][-1:] == [(case.check, case.verdict)]
    assert case.cause in bad[-1].cause
    assert bad[-1].user_action
    assert bad[-1].admin_action


def test_what_one_framework_does_not_keep_the_other_from_being_checked(site: Site) -> None:
    install_torch(site.path)
    install_tensorflow(site.path)
    checked = site.check({"FAKE_TF_COUNT": "2", **at("import", "crash")})
    assert verdicts(checked.checks)["torch"] is FAIL
    assert verdicts(checked.checks)[f"tensorflow product {UUIDS[1]}"] is PASS
    assert "the last words" in next(check for check in checked.checks if check.name == "torch").detail


def test_what_is_not_installed_is_told_and_is_no_failure(site: Site) -> None:
    site.path.mkdir()
    checked = site.check()
    assert checked.checks == ()
    assert [(each.name, each.state) for each in checked.section.found] == [
        ("torch", "not installed"),
        ("tensorflow", "not installed"),
    ]


def test_a_build_for_the_cpu_is_told_without_importing_it(site: Site) -> None:
    install_torch(site.path, cuda=None)
    install_tensorflow(site.path, cuda=None, distribution="tensorflow-cpu")
    checked = site.check(at("import", "crash"))
    assert verdicts(checked.checks) == {"torch": WARN, "tensorflow": WARN}
    assert [each.state for each in checked.section.found] == ["cpu build", "cpu build"]
    assert "cuda variant of the image" in checked.checks[0].user_action


def test_the_packages_that_are_missing_are_named(site: Site) -> None:
    install_tensorflow(site.path, needs=NEEDS)
    (count,) = site.check({"FAKE_TF_COUNT": "0"}).checks
    assert (count.name, count.verdict) == ("tensorflow GPUs", FAIL)
    assert "does not find the CUDA libraries" in count.cause
    assert "not installed: nvidia-cudnn-cu12" in count.detail
    assert "nccl" not in count.detail, "for another kind of machine"


def test_a_build_that_is_newer_than_the_driver_is_told(site: Site) -> None:
    install_torch(site.path, cuda="13.0")
    (count,) = site.check({"FAKE_TORCH_COUNT": "0", "FAKE_TORCH_CUDA": "13.0"}).checks
    assert "the driver is too old for this build of PyTorch" in count.cause


def test_no_gpu_asked_for_means_the_cpu_and_no_gpu_is_touched(site: Site) -> None:
    install_torch(site.path)
    install_tensorflow(site.path)
    checked = site.check({"FAKE_TORCH_WRONG": "0", "FAKE_TF_WRONG": "0"}, situation=Situation(0, 1, TWO.gpus[:1]))
    assert verdicts(checked.checks) == {"torch product": PASS, "tensorflow product": PASS}
    assert all(check.detail.startswith("on the CPU") for check in checked.checks)
    checked = site.check({"FAKE_TORCH_WRONG": "cpu"}, situation=Situation(0, 0))
    assert verdicts(checked.checks) == {"torch product": FAIL, "tensorflow product": PASS}


def test_without_a_usable_gpu_nothing_passes(site: Site) -> None:
    install_torch(site.path)
    install_tensorflow(site.path, cuda=None)
    checked = site.check(situation=Situation(1, 0))
    assert verdicts(checked.checks) == {"torch": UNKNOWN, "tensorflow": WARN}


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/false", "/bin/true", "/bin/cat"])
def test_a_python_that_does_not_answer_is_not_checked(site: Site, python: str) -> None:
    checked = frameworks.check(Notebook(python, site.notebook.environ), TWO, Limits(wheels_s=2.0))
    assert [(check.name, check.verdict) for check in checked.checks] == [("frameworks", UNKNOWN)]
    assert python in checked.checks[0].detail


def test_a_broken_sitecustomize_is_not_checked_and_its_words_are_told(site: Site) -> None:
    site.path.mkdir()
    (site.path / "sitecustomize.py").write_text("import os; os.write(2, b'broken here'); os._exit(0)")
    (check,) = site.check().checks
    assert check.verdict is UNKNOWN
    assert "broken here" in check.detail


def test_the_notebooks_python_keeps_its_own_packages(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours are not in front of them, and what lies in the working directory is not imported."""
    monkeypatch.chdir("/")  # an editable installation puts the checkout there
    install_torch(site.path)
    (site.path / "torch" / "__init__.py").write_text(
        "import click, os, sys\n"
        "assert click.OURS and '' not in sys.path and os.getcwd() not in sys.path\n"
        "raise RuntimeError('reached the end')\n"
    )
    (site.path / "click.py").write_text("OURS = True\n")
    (check,) = site.check().checks
    assert "reached the end" in check.detail


# The notebook's Python


def test_the_python_that_is_named_is_meant() -> None:
    environ = {"GPU_CHECK_PYTHON": "/opt/x/bin/python", "PATH": "/bin"}
    assert frameworks.notebook(environ, after_start=True) == Notebook("/opt/x/bin/python", environ)


def test_an_installed_package_means_its_own_python() -> None:
    assert frameworks.notebook({"PATH": "/bin"}, after_start=False).python == sys.executable


@pytest.mark.parametrize("after_start", [True, False])
def test_in_a_container_it_is_process_1s_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after_start: bool
) -> None:
    """The archive stands for the container: there the environment of process 1 is the notebook's."""
    archive, conda, login = tmp_path / "gpu-check.pyz", tmp_path / "conda", tmp_path / "login"
    archive.touch()
    for directory in (conda, login):
        directory.mkdir()
        (directory / "python3").touch(0o755)
    init = tmp_path / "environ"
    init.write_bytes(f"PATH=relative:{conda}\0LD_LIBRARY_PATH=/cuda\0".encode())
    monkeypatch.setattr(runner, "__file__", f"{archive}/compiled/cpython-39/gpu_checks/runner.pyc")
    environ = {"PATH": str(login), "TERM": "x"}
    found = frameworks.notebook(environ, after_start=after_start, init=str(init))
    assert found.python == str(conda / "python3")
    assert ("LD_LIBRARY_PATH" in found.environ) is after_start
    unreadable = frameworks.notebook(environ, after_start=after_start, init=str(tmp_path / "nothing"))
    assert unreadable == Notebook(str(login / "python3"), environ)


# The command


def command(fakes: str, site: Site, *options: str, **faults: str) -> tuple[int, dict[str, Any]]:
    environ = {**environment(fakes, faults), "PYTHONPATH": os.pathsep.join([str(site.path), os.getcwd()])}
    ended = subprocess.run(
        [*COMMAND, *options, "--json"], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stderr == ""
    assert left_behind(environ) == []
    return ended.returncode, json.loads(ended.stdout)


def test_short_is_quick_and_the_frameworks(fakes: str, site: Site) -> None:
    install_torch(site.path)
    code, said = command(fakes, site, "short", "--expect", "1")
    assert (code, said["verdict"], said["level"], said["quick"]["verdict"]) == (0, "pass", "short", "pass")
    names = [check["name"] for check in said["checks"]]
    assert names[:2] == ["driver", "count"]
    assert names[-2:] == ["torch GPUs", "torch product"]
    assert said["checks"][-1]["gpu"] == UUIDS[0]
    assert said["summary"].endswith("verified. PyTorch 2.13.0+cu124 computed right.")


@pytest.mark.parametrize(
    ("cuda", "faults", "options", "code", "words"),
    [
        (None, {}, [], 0, "PyTorch here is a build for the CPU only"),
        (None, {}, ["--strict"], 1, "PyTorch here is a build for the CPU only"),
        ("12.4", {"FAKE_TORCH_WRONG": "0"}, [], 2, "PyTorch computed a wrong result"),
        ("12.4", {"FAKE_TORCH_COUNT": "0"}, [], 2, "PyTorch sees fewer GPUs"),
        ("12.4", at("import", "kill"), [], 3, "PyTorch was not checked"),
        ("12.4", {"FAKE_WRONG": "-1"}, [], 2, "the GPU computed a wrong result"),
        ("12.4", {"FAKE_FAIL": "cuModuleLoadData=221"}, [], 3, "the driver cannot compile a kernel"),
        ("12.4", {"FAKE_FAIL": "cuInit=100"}, [], 2, "CUDA finds no GPU"),
        (None, {"FAKE_FAIL": "cuInit=100"}, [], 2, "CUDA finds no GPU"),
    ],
)
def test_the_worse_part_makes_the_verdict_and_the_exit_code(
    fakes: str, site: Site, cuda: str | None, faults: dict[str, str], options: list[str], code: int, words: str
) -> None:
    install_torch(site.path, cuda=cuda)
    ended, said = command(fakes, site, "short", "--expect", "1", *options, **faults)
    assert (ended, words in said["summary"]) == (code, True), said["summary"]


def test_a_mig_instance_is_all_that_a_process_can_see(fakes: str, site: Site) -> None:
    install_torch(site.path)
    code, said = command(fakes, site, "short", "--expect", "2", FAKE_MIG="2", FAKE_TORCH_COUNT="1")
    assert (code, said["verdict"]) == (0, "pass"), said["summary"]


# After the start


def background(site: Site, place: Path, **faults: str) -> dict[str, str]:
    """The detached check has been started; its environment."""
    paths = os.pathsep.join([str(site.path), os.getcwd()])
    environ = {**environment("/nowhere", faults), "PYTHONPATH": paths, "GPU_CHECK_REPORT": str(place)}
    started = time.monotonic()
    ended = subprocess.run(
        [*COMMAND, "short", "--background", "--expect", "1"], env=environ, capture_output=True, timeout=20, check=False
    )
    # capture_output waits for the pipes' end: none of them was left open in what goes on
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    assert time.monotonic() - started < 10
    return environ


def ended(environ: Mapping[str, str]) -> None:
    limit = time.monotonic() + 30
    while left_behind(environ):
        assert time.monotonic() < limit
        time.sleep(0.05)


@pytest.fixture
def quick_report(fakes: str, site: Site, tmp_path: Path) -> Path:
    """What the check at the spawn left behind."""
    place = tmp_path / "gpu-report.json"
    command(fakes, site, "quick", "--expect", "1", GPU_CHECK_REPORT=str(place))
    return place


def test_the_frameworks_result_joins_the_spawns_report(site: Site, quick_report: Path, tmp_path: Path) -> None:
    install_torch(site.path)
    before = json.loads(quick_report.read_text())
    niceness = tmp_path / "nice"
    ended(background(site, quick_report, FAKE_TORCH_WRONG="0", FAKE_TORCH_REMEMBER=str(niceness)))
    after = json.loads(quick_report.read_text())
    assert (before["verdict"], before["level"]) == ("pass", "quick")
    assert (after["verdict"], after["level"]) == ("fail", "short")
    assert after["quick"] == {name: before[name] for name in ("verdict", "summary", "finished_at")}
    assert after["checks"][: len(before["checks"])] == before["checks"]
    assert after["gpus"] == before["gpus"]
    assert "PyTorch computed a wrong result" in after["summary"]
    assert niceness.read_text() == "19"


def test_a_bad_verdict_of_the_spawn_stays(fakes: str, site: Site, tmp_path: Path) -> None:
    install_torch(site.path)
    place = tmp_path / "gpu-report.json"
    command(fakes, site, "quick", "--expect", "1", GPU_CHECK_REPORT=str(place), FAKE_WRONG="-1")
    before = json.loads(place.read_text())
    ended(background(site, place))
    after = json.loads(place.read_text())
    assert (after["level"], after["verdict"], after["summary"]) == ("short", "fail", before["summary"])
    assert after["checks"][-1]["name"] == "torch product"


def test_a_longer_run_of_the_user_is_not_overwritten(site: Site, quick_report: Path) -> None:
    install_torch(site.path)
    newer = {**json.loads(quick_report.read_text()), "level": "short"}
    quick_report.write_text(json.dumps(newer))
    ended(background(site, quick_report))
    assert json.loads(quick_report.read_text()) == newer


@pytest.mark.parametrize("planted", ["nothing", "garbage", "link", "pipe", "huge", "no verdict"])
def test_what_is_no_report_is_replaced_by_one_of_both_parts(
    site: Site, quick_report: Path, tmp_path: Path, planted: str
) -> None:
    """Without a driver here: nothing that the user put there makes it pass, or wait."""
    install_torch(site.path)
    good = json.loads(quick_report.read_text())
    quick_report.unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(json.dumps(good))
    if planted == "garbage":
        quick_report.write_text('{"schema": 1, "verdict": "pass", "checks": [[')
    elif planted == "link":
        quick_report.symlink_to(elsewhere)
    elif planted == "pipe":
        os.mkfifo(quick_report)
    elif planted == "huge":
        quick_report.write_text(json.dumps({**good, "padding": "x" * 70_000}))
    elif planted == "no verdict":
        quick_report.write_text(json.dumps({**good, "verdict": "splendid"}))
    ended(background(site, quick_report))
    after = json.loads(quick_report.read_text())
    assert not quick_report.is_symlink()
    assert json.loads(elsewhere.read_text()) == good
    assert (after["level"], after["verdict"]) == ("short", "fail")
    assert "no driver found" in after["summary"]


def test_a_check_that_is_killed_leaves_the_spawns_report_and_no_process(site: Site, quick_report: Path) -> None:
    install_torch(site.path)
    before = quick_report.read_text()
    environ = background(site, quick_report, **at("import", "hang"))
    limit = time.monotonic() + 20
    while not any("framework torch" in line for line in left_behind(environ)):
        assert time.monotonic() < limit
        time.sleep(0.05)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path("/proc", pid, "environ").read_bytes()
            line = Path("/proc", pid, "cmdline").read_bytes()
        except OSError:
            continue
        if f"GPU_CHECK_TEST_RUN={environ['GPU_CHECK_TEST_RUN']}".encode() in words and b"--background" in line:
            os.kill(int(pid), signal.SIGKILL)
    ended(environ)
    assert quick_report.read_text() == before


@pytest.mark.parametrize(
    "options", [["quick", "--background"], ["short", "--background", "--json"], ["short", "--background", "--strict"]]
)
def test_background_goes_with_short_and_a_place_alone(tmp_path: Path, options: list[str]) -> None:
    environ = {**environment("/nowhere", {}), "GPU_CHECK_REPORT": str(tmp_path / "report")}
    assert subprocess.run([*COMMAND, *options], env=environ, capture_output=True, check=False).returncode == 64
    environ = environment("/nowhere", {})
    options = ["short", "--background"]
    assert subprocess.run([*COMMAND, *options], env=environ, capture_output=True, check=False).returncode == 64


def test_a_joined_report_stays_within_its_limit(site: Site, quick_report: Path) -> None:
    many = tuple(Check("torch product", FAIL, "x" * 290, "cause", gpu=f"index {number}") for number in range(400))
    checked = Checked(frameworks.check(Notebook("/bin/false", {}), TWO).section, many)
    text = report.bounded_json(short.joined(last.last_report(str(quick_report)), checked))
    assert len(text) <= report.FILE_LIMIT_BYTES
    assert json.loads(text)["verdict"] == "fail"
    assert json.loads(text)["truncated"] is True
