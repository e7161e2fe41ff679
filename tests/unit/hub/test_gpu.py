from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from hub.gpu import check_gpus, follow_up, read_message

STANDIN = str(Path(__file__).with_name("standin.py"))
ENVIRON = {"PATH": os.environ["PATH"]}


@pytest.mark.parametrize(
    ("report", "verdict", "line"),
    [
        ({"verdict": "pass", "summary": "GPU check: passed – 1 GPU"}, "pass", "GPU check: passed – 1 GPU"),
        ({"verdict": "fail", "summary": "no driver"}, "fail", "GPU check: fail – no driver"),
        ({"verdict": "warn"}, "warn", "GPU check: warn"),
        ({"verdict": "unknown", "summary": "a\nb"}, "unknown", r"GPU check: unknown – a\u000ab"),
    ],
)
def test_the_reports_verdict_and_summary_are_told_in_one_line(report: dict[str, str], verdict: str, line: str) -> None:
    told = read_message(json.dumps({"schema": 1, "expected": 1, **report}), expected=1)
    assert (told.verdict, told.line) == (verdict, line)
    assert json.loads(told.report)["verdict"] == verdict


@pytest.mark.parametrize(
    "message",
    [
        None,
        "",
        "no JSON",
        "[]",
        "{}",
        '{"verdict": "pass"}',
        '{"schema": 2, "expected": 1, "verdict": "pass"}',
        '{"schema": true, "expected": 1, "verdict": "pass"}',
        '{"schema": 1, "verdict": "pass"}',
        '{"schema": 1, "expected": null, "verdict": "pass"}',
        '{"schema": 1, "expected": true, "verdict": "pass"}',
        '{"schema": 1, "expected": 0, "verdict": "pass"}',
        '{"schema": 1, "expected": 2, "verdict": "fail"}',
        '{"schema": 1, "expected": 1, "verdict": "pass"}' + " " * (64 << 10),
        '{"schema": 1, "verdict": "good"}',
        '{"schema": 1, "verdict": ["pass"]}',
        '{"schema": 1, "verdict": "pass", "summary": "cut off aft',
        "\ufffd",
        "[" * 100_000,
    ],
)
def test_what_is_no_report_is_unknown_and_never_passed(message: str | None) -> None:
    told = read_message(message, expected=1)
    assert told.verdict == json.loads(told.report)["verdict"] == "unknown"
    assert told.line.startswith("GPU check: unknown")


def test_a_program_that_is_missing_is_unknown() -> None:
    told = asyncio.run(check_gpus(["/nowhere/gpu-preflight"], expected=1, environ=ENVIRON))
    assert told.verdict == "unknown"


@pytest.mark.parametrize("code", [1, 2, 137])
def test_a_program_that_does_not_end_well_has_checked_nothing(tmp_path: Path, code: int) -> None:
    """Preflight always exits 0: whatever it printed, it was not its end."""
    told = asyncio.run(
        check_gpus(
            standin(tmp_path, output='{"schema": 1, "expected": 1, "verdict": "pass"}', exit=code),
            expected=1,
            environ=ENVIRON,
        )
    )
    assert told.verdict == "unknown"
    assert f"exit code {code}" in told.line


def test_a_program_that_hangs_is_unknown_and_killed(tmp_path: Path) -> None:
    told = asyncio.run(check_gpus(standin(tmp_path, hang=True), expected=1, environ=ENVIRON, longest_s=0.5))
    assert told.verdict == "unknown"
    assert "did not answer" in told.line


def test_a_program_that_never_stops_talking_is_ended() -> None:
    told = asyncio.run(check_gpus(["yes"], expected=1, environ=ENVIRON, longest_s=5))
    assert told.verdict == "unknown"
    assert "too long" in told.line


def test_a_follow_up_that_does_not_detach_is_ended_and_told(tmp_path: Path) -> None:
    assert "did not detach" in asyncio.run(follow_up(standin(tmp_path, hang=True), environ=ENVIRON, longest_s=0.5))
    assert asyncio.run(follow_up(standin(tmp_path, exit=64), environ=ENVIRON)) == "exit code 64"
    assert asyncio.run(follow_up(["/nowhere/gpu-check"], environ=ENVIRON)) == "No such file or directory"
    assert asyncio.run(follow_up(standin(tmp_path), environ=ENVIRON)) == ""


def standin(tmp_path: Path, **rules: object) -> list[str]:
    file = tmp_path / "gpu.json"
    file.write_text(json.dumps(rules))
    return [sys.executable, STANDIN, "gpu", str(file)]
