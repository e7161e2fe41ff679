"""A report on paper: JSON with its schema, a table, JUnit, and a file that is whole or not there."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gpu_checks.facts import Facts, Mismatch, Trial
from gpu_checks.report import as_json, as_junit, as_table, bounded_json, write
from gpu_checks.result import Report, Versions
from gpu_checks.verdict import judge

from .cases import NO_CUDA, NO_NVML, done, healthy, uuid

WRONG = Mismatch("fill", 3, "00" * 8, "01" * 8, 1, 1)


def report(facts: Facts, expected: int | None) -> Report:
    said = judge(facts, expected)
    return Report(
        said.verdict,
        said.summary,
        "quick",
        expected,
        said.found,
        said.gpus,
        said.checks,
        0.25,
        "2026-01-02T03:04:05Z",
        Versions("0.1.0", "3.11.7", "550.54.15", "12.4"),
    )


SICK = report(replace(healthy(2), gpus=(done(0), done(1, memory=Trial(4 << 20, mismatch=WRONG)))), 2)


def test_json_has_what_the_contract_names() -> None:
    data = json.loads(as_json(SICK))
    assert data["schema"] == 1
    assert data["verdict"] == "fail"
    assert data["summary"].startswith("GPU check: failed – the GPU's memory returned wrong data.")
    assert (data["level"], data["expected"], data["found"]) == ("quick", 2, 2)
    assert [gpu["uuid"] for gpu in data["gpus"]] == ["GPU-" + uuid(0), "GPU-" + uuid(1)]
    failed = [check for check in data["checks"] if check["verdict"] == "fail"]
    assert [(check["name"], check["gpu"]) for check in failed] == [("memory", "GPU-" + uuid(1))]
    assert failed[0]["cause"]
    assert failed[0]["user_action"]
    assert failed[0]["admin_action"]
    assert data["duration_s"] == 0.25
    assert data["finished_at"] == "2026-01-02T03:04:05Z"
    assert data["versions"] == {"gpu_check": "0.1.0", "python": "3.11.7", "driver": "550.54.15", "cuda": "12.4"}


def test_json_is_ascii_for_any_log() -> None:
    assert as_json(SICK).isascii()


@pytest.mark.parametrize("limit", [300_000, 64 * 1024, 4096, 1500, 700])
def test_a_report_fits_its_limit_and_keeps_verdict_and_summary(limit: int) -> None:
    sick = [done(index, memory=Trial(4 << 20, mismatch=WRONG)) for index in range(64)]
    text = bounded_json(report(replace(healthy(64), gpus=tuple(sick)), 64), limit)
    data = json.loads(text)
    assert len(text.encode()) <= limit
    assert data["verdict"] == "fail"
    assert "wrong data" in data["summary"]
    assert data.get("truncated", False) == (limit < 300_000)


@pytest.mark.parametrize("limit", [4000, 1500])
def test_the_longest_texts_fit_into_a_message(limit: int) -> None:
    """What is not ASCII takes six or twelve bytes a character."""
    long = replace(SICK, summary="\U0001f9ea" * 400, versions=Versions(*["\U0001f9ea" * 300] * 4))
    text = bounded_json(long, limit)
    data = json.loads(text)
    assert len(text.encode()) <= limit
    assert (data["verdict"], data["schema"], data["expected"], data["truncated"]) == ("fail", 1, 2, True)
    assert data["summary"].startswith("\U0001f9ea")
    assert data["summary"].endswith("…")


def test_a_usual_report_is_not_cut_in_its_file() -> None:
    assert json.loads(bounded_json(SICK)) == json.loads(as_json(SICK))


def test_the_table_names_every_gpu_every_fault_and_the_remedies() -> None:
    table = as_table(SICK)
    assert all(gpu.uuid in table for gpu in SICK.gpus)
    assert "FAIL     memory, GPU 1" in table
    assert SICK.summary in table
    assert "For the administrator: Take the GPU out of service" in table


@pytest.mark.parametrize(
    ("case", "strict", "failures", "errors"),
    [
        (SICK, False, 1, 0),
        (report(Facts(NO_CUDA, NO_NVML), None), False, 0, 2),
        (report(replace(healthy(), nvml=NO_NVML), 1), False, 0, 0),
        (report(replace(healthy(), nvml=NO_NVML), 1), True, 1, 0),
    ],
)
def test_junit_counts_what_a_ci_shows(case: Report, strict: bool, failures: int, errors: int) -> None:
    suite = ElementTree.fromstring(as_junit(case, strict=strict))
    assert (suite.tag, suite.get("tests")) == ("testsuite", str(len(case.checks)))
    assert (suite.get("failures"), suite.get("errors")) == (str(failures), str(errors))
    assert len(suite.findall("testcase/failure")) == failures
    assert len(suite.findall("testcase/error")) == errors
    names = [test.get("name") for test in suite.findall("testcase")]
    assert len(set(names)) == len(names)


def test_junit_survives_a_hostile_name() -> None:
    case = replace(SICK, gpus=(), checks=(replace(SICK.checks[0], detail='<a>&"]]>', gpu="<&"),))
    ElementTree.fromstring(as_junit(case, strict=False))


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    target.write_text("old")
    write(str(target), "new")
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["report.json"]
    assert stat.S_IMODE(target.stat().st_mode) & 0o022 == 0


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    link = tmp_path / "report.json"
    link.symlink_to(precious)
    write(str(link), "new")
    assert precious.read_text() == "mine"
    assert not link.is_symlink()
    assert link.read_text() == "new"


def test_a_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OSError, match="link"):
        write(str(tmp_path / "link" / "report.json"), "new")
    assert os.listdir(tmp_path / "real") == []


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    target.mkdir()
    (target / "kept").touch()
    with pytest.raises(OSError, match="report"):
        write(str(target), "new")
    assert os.listdir(tmp_path) == ["report.json"]
