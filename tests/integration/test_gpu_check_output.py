"""What ``gpu-check`` leaves behind: the last report and what has changed since, metrics, JUnit, the same bytes."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from .fake_gpu import compiled, environment, left_behind

COMMAND = [sys.executable, "-m", "gpu_checks"]
UUID = "GPU-00000000-1111-2222-3333-444444444400"


@pytest.fixture(scope="session")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> str:
    return compiled(str(tmp_path_factory.mktemp("fake_gpu")))


def run(fakes: str, *options: str, **faults: str) -> subprocess.CompletedProcess[str]:
    environ = environment(fakes, faults)
    ended = subprocess.run([*COMMAND, *options], env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert left_behind(environ) == []
    return ended


def counters(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(check["verdict"], check["detail"]) for check in report["checks"] if check["name"] == "counters"]


# The same GPU, some time ago


def test_what_has_grown_since_the_last_report_of_the_same_gpu_is_reported(fakes: str, tmp_path: Path) -> None:
    place = {"GPU_CHECK_REPORT": str(tmp_path / "gpu.json")}
    options = ("--expect", "1", "--json")
    first = json.loads(run(fakes, *options, **place, FAKE_REPLAYS="3", FAKE_RETIRED="1").stdout)
    assert counters(first) == [], "there was no report to compare with"
    same = json.loads(run(fakes, *options, **place, FAKE_REPLAYS="3", FAKE_RETIRED="1").stdout)
    assert counters(same) == [("pass", "no higher than in the last report")]
    usual = json.loads(run(fakes, *options, **place, FAKE_REPLAYS="9", FAKE_RETIRED="1", FAKE_ECC_CORRECTED="2").stdout)
    ((verdict, detail),) = counters(usual)
    assert (usual["verdict"], verdict) == ("pass", "pass")
    assert detail.startswith("corrected errors in its life 0 → 2, PCIe replays 3 → 9 since 2")
    serious = json.loads(run(fakes, *options, **place, FAKE_REPLAYS="9", FAKE_RETIRED="2", FAKE_REMAP="0,4,0,0").stdout)
    ((verdict, detail),) = counters(serious)
    assert (serious["verdict"], verdict) == ("warn", "warn")
    assert "rows remapped after uncorrectable errors 0 → 4, retired pages 1 → 2 since 2" in detail
    assert "counted more errors since the last check" in serious["summary"]


def test_another_gpu_in_its_place_is_not_compared(fakes: str, tmp_path: Path) -> None:
    place = {"GPU_CHECK_REPORT": str(tmp_path / "gpu.json")}
    run(fakes, "--expect", "1", **place)
    report = json.loads((tmp_path / "gpu.json").read_text())
    report["gpus"][0]["uuid"] = "GPU-77777777-1111-2222-3333-444444444400"
    (tmp_path / "gpu.json").write_text(json.dumps(report))
    assert counters(json.loads(run(fakes, "--json", **place, FAKE_RETIRED="9").stdout)) == []


@pytest.mark.parametrize("content", ["", "{}", "[1", '{"schema": 2}', "null", "[" * 30_000, '{"schema": 1, "gpus": 3}'])
def test_a_last_report_that_is_none_is_no_fault(fakes: str, tmp_path: Path, content: str) -> None:
    place = tmp_path / "gpu.json"
    place.write_text(content)
    ended = run(fakes, "--expect", "1", "--json", GPU_CHECK_REPORT=str(place))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert counters(json.loads(ended.stdout)) == []
    assert json.loads(place.read_text())["verdict"] == "pass"


# The last report, shown again


def test_the_last_report_is_shown_with_its_exit_code_and_nothing_is_checked(fakes: str, tmp_path: Path) -> None:
    place = {"GPU_CHECK_REPORT": str(tmp_path / "gpu.json")}
    made = run(fakes, "--expect", "1", "--json", **place, FAKE_WRONG="-1")
    shown = run("/nowhere", "--last", "--json", **place)
    assert (shown.returncode, shown.stderr) == (2, "")
    assert json.loads(shown.stdout) == json.loads(made.stdout)
    table = run("/nowhere", "--last", **place)
    assert table.returncode == 2
    assert "the GPU computed a wrong result" in table.stdout
    assert f"This was the report of {json.loads(made.stdout)['finished_at']}." in table.stdout


@pytest.mark.parametrize(
    ("checked_for", "asked_for", "code"), [("1", "1", 0), ("1", "", 0), ("0", "1", 3), ("1", "2", 3), ("2", "1", 2)]
)
def test_a_last_report_for_another_number_of_gpus_is_no_pass(
    fakes: str, tmp_path: Path, checked_for: str, asked_for: str, code: int
) -> None:
    place = {"GPU_CHECK_REPORT": str(tmp_path / "gpu.json")}
    run(fakes, "--expect", checked_for, **place)
    ended = run("/nowhere", "--last", **place, GPU_CHECK_EXPECT=asked_for)
    assert ended.returncode == code
    assert ("check again" in ended.stderr) == (code == 3)


@pytest.mark.parametrize("make", ["nothing", "garbage", "directory", "pipe", "link", "huge", "stranger"])
def test_without_a_last_report_nothing_is_known(fakes: str, tmp_path: Path, make: str) -> None:
    place = tmp_path / "gpu.json"
    if make == "garbage":
        place.write_bytes(b"\xff\x00\x1b[2J")
    elif make == "directory":
        place.mkdir()
    elif make == "pipe":
        os.mkfifo(place)
    elif make == "link":
        run(fakes, GPU_CHECK_REPORT=str(tmp_path / "real.json"))
        place.symlink_to(tmp_path / "real.json")
    elif make == "huge":
        place.write_text(json.dumps({"schema": 1, "x": "y" * 70_000}))
    elif make == "stranger":
        place.write_text(json.dumps({"schema": 1, "verdict": "pass"}))
    ended = run("/nowhere", "--last", GPU_CHECK_REPORT=str(place))
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr.startswith("gpu-check: no last report: ")
    assert len(ended.stderr.splitlines()) == 1


def test_a_last_report_needs_to_know_where_it_is(fakes: str) -> None:
    ended = run(fakes, "--last")
    assert ended.returncode == 64
    assert "GPU_CHECK_REPORT" in ended.stderr


@pytest.mark.parametrize("option", ["--junit", "--prometheus"])
def test_a_last_report_is_never_passed_on_as_a_new_one(tmp_path: Path, option: str) -> None:
    ended = run("/nowhere", "--last", option, str(tmp_path / "x"), GPU_CHECK_REPORT=str(tmp_path / "gpu.json"))
    assert ended.returncode == 64
    assert os.listdir(tmp_path) == []


def test_a_hostile_last_report_sends_nothing_to_the_terminal(fakes: str, tmp_path: Path) -> None:
    place = tmp_path / "gpu.json"
    run(fakes, GPU_CHECK_REPORT=str(place))
    report = json.loads(place.read_text())
    report["summary"] = report["gpus"][0]["name"] = "\x1b]0;owned\x07\u202e"
    place.write_text(json.dumps(report))
    ended = run("/nowhere", "--last", GPU_CHECK_REPORT=str(place))
    assert not set("\x1b\x07\u202e") & set(ended.stdout)
    assert "\\x1b]0;owned" in ended.stdout


# Prometheus


def metrics(text: str) -> dict[str, float]:
    """The samples of a text file, by name and labels. Checks the exposition format's rules on the way."""
    assert text.endswith("\n")
    samples: dict[str, float] = {}
    current = ""
    seen: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# "):
            kind, name = re.fullmatch(r"# (HELP|TYPE) ([a-z_:][a-z0-9_:]*) .+", line).groups()  # type: ignore[union-attr]
            assert kind == "TYPE" or name not in seen, "each metric stands in one piece"
            assert kind == "HELP" or line.endswith(" gauge")
            current = name
            seen.add(name)
            continue
        parts = re.fullmatch(r'([a-z_]+)(\{(?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)*\})? ([-+.e0-9]+)', line)
        assert parts, line
        assert parts[1] == current
        assert line.rsplit(" ", 1)[0] not in samples
        samples[line.rsplit(" ", 1)[0]] = float(parts[3])
    return samples


def test_the_metrics_say_what_the_report_says(fakes: str, tmp_path: Path) -> None:
    place = tmp_path / "gpu.prom"
    options = ("--expect", "2", "--json", "--prometheus", str(place))
    ended = run(fakes, *options, FAKE_DEVICES="2", FAKE_BAD_DEVICE="1", FAKE_WRONG="-1", FAKE_ECC="3")
    report = json.loads(ended.stdout)
    samples = metrics(place.read_text())
    assert ended.returncode == 2
    verdicts = {name: value for name, value in samples.items() if name.startswith("gpu_check_verdict")}
    assert [name for name, value in verdicts.items() if value] == ['gpu_check_verdict{level="quick",verdict="fail"}']
    assert len(verdicts) == 4
    assert (samples["gpu_check_gpus_expected"], samples["gpu_check_gpus_found"]) == (2, 2)
    assert samples[f'gpu_check_gpu_ecc_uncorrected{{gpu="{UUID}"}}'] == 3
    severities = [samples[f'gpu_check_severity{{check="kernel",gpu="{gpu["uuid"]}",level="quick"}}']
                  for gpu in report["gpus"]]  # fmt: skip
    assert severities == [0, 3]
    assert stat.S_IMODE(place.stat().st_mode) == 0o644, "node exporter is another user"
    assert os.listdir(tmp_path) == ["gpu.prom"]


def test_a_hostile_name_stays_inside_its_label(fakes: str, tmp_path: Path) -> None:
    place = tmp_path / "gpu.prom"
    run(fakes, "--prometheus", str(place), FAKE_NAME='A"} 1\ngpu_check_verdict{verdict="pass"} 1 \\')
    samples = metrics(place.read_text())
    assert sum("gpu_check_gpu_info" in name for name in samples) == 1
    assert 'gpu_check_verdict{verdict="pass"}' not in samples


@pytest.mark.parametrize("option", ["--prometheus", "--junit"])
def test_only_a_regular_file_is_ever_replaced(fakes: str, tmp_path: Path, option: str) -> None:
    """As root, a file renamed onto /dev/stdout would take it from everybody on the machine."""
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "link").symlink_to("kept")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        ended = run(fakes, "--expect", "1", option, str(tmp_path / name))
        assert ended.returncode == 64
        assert "not a regular file" in ended.stderr
    assert (tmp_path / "link").is_symlink()
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["kept", "link", "pipe"]
    assert run(fakes, "--expect", "1", option, str(tmp_path / "kept")).returncode == 0
    assert (tmp_path / "kept").read_text() != "kept"


# JUnit

JUNIT_SUITE = {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"}


@pytest.mark.parametrize(
    ("faults", "failures", "errors"),
    [
        ({}, 0, 0),
        ({"FAKE_WRONG": "-1"}, 1, 0),
        ({"FAKE_FAIL": "cuModuleLoadData=221"}, 0, 1),
        ({"FAKE_ECC": "1"}, 0, 0),
        ({"FAKE_NAME": "\x01\x1b\ufffe]]>&<\"'"}, 0, 0),
    ],
)
def test_junit_has_the_shape_that_a_ci_reads(
    fakes: str, tmp_path: Path, faults: dict[str, str], failures: int, errors: int
) -> None:
    """The shape of the usual schema for JUnit XML (Jenkins, GitLab): a suite of cases with at most one outcome each."""
    place = tmp_path / "gpu.xml"
    run(fakes, "--expect", "1", "--junit", str(place), **faults)
    suite = ElementTree.parse(place).getroot()
    assert suite.tag == "testsuite"
    assert set(suite.attrib) == JUNIT_SUITE
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
    assert [case.tag for case in suite] == ["testcase"] * int(suite.attrib["tests"])
    assert (suite.attrib["failures"], suite.attrib["errors"]) == (str(failures), str(errors))
    for case in suite:
        assert set(case.attrib) == {"classname", "name", "time"}
        assert float(case.attrib["time"]) >= 0
        assert [child.tag for child in case] in ([], ["failure"], ["error"], ["system-out"])
        for child in case:
            assert set(child.attrib) == (set() if child.tag == "system-out" else {"message", "type"})


# The same input, the same bytes

VARIES = re.compile(r'("duration_s": )[0-9.]+|("finished_at": )"[^"]+"|(time=)"[0-9.]+"|(timestamp=)"[^"]+"|'
                    r"(gpu_check_(?:duration|finished_timestamp)_seconds\S* )\S+")  # fmt: skip


@pytest.mark.parametrize(
    "faults", [{"FAKE_DEVICES": "3"}, {"FAKE_WRONG": "65535", "FAKE_DEVICES": "2"}, {"FAKE_FAIL": "cuInit=999"}]
)
def test_the_same_input_gives_the_same_bytes_but_for_the_times(
    fakes: str, tmp_path: Path, faults: dict[str, str]
) -> None:
    outputs = set()
    for _ in range(3):
        files = [tmp_path / "gpu.xml", tmp_path / "gpu.prom"]
        options = ("--expect", "2", "--json", "--junit", str(files[0]), "--prometheus", str(files[1]))
        text = "".join([run(fakes, *options, **faults).stdout, *(file.read_text() for file in files)])
        # which of its bits came back wrong depends on the random data that went in
        text = re.sub(r"at byte \d+ \w+ instead of \w+", "", text)
        outputs.add(VARIES.sub(lambda match: next(filter(None, match.groups())), text))
    assert len(outputs) == 1
