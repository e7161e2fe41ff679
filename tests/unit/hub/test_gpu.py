from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from hub.gpu import check_gpus, read_report

STANDIN = str(Path(__file__).with_name("standin.py"))
ENVIRON = {"PATH": os.environ["PATH"]}


@pytest.mark.parametrize(
    ("report", "exit_code", "verdict", "line"),
    [
        ({"verdict": "pass", "summary": "GPU check: passed – 1 GPU"}, 0, "pass", "GPU check: passed – 1 GPU"),
        ({"verdict": "fail", "summary": "no driver"}, 2, "fail", "GPU check: fail – no driver"),
        ({"verdict": "warn"}, 0, "warn", "GPU check: warn"),
        ({"verdict": "unknown", "summary": "a\nb"}, 3, "unknown", r"GPU check: unknown – a\u000ab"),
    ],
)
def test_the_reports_verdict_and_summary_are_told_in_one_line(
    report: object, exit_code: int, verdict: str, line: str
) -> None:
    told = read_report(json.dumps(report).encode(), exit_code)
    assert (told.verdict, told.line) == (verdict, line)


@pytest.mark.parametrize(
    ("output", "exit_code"),
    [
        (b"", 0),
        (b"no JSON", 0),
        (b"[]", 0),
        (b"{}", 0),
        (b'{"verdict": "good"}', 0),
        (b'{"verdict": ["pass"]}', 0),
        (b'{"verdict": "pass", "summary": "GPU check: passed"}', 2),
        (b'{"verdict": "pass", "summary": "GPU check: passed"}', None),
        (b'{"verdict": "pass", "summary": "GPU check: passed"}', -11),
        (b"\xff\xfe", 0),
        (b"[" * 100_000, 0),
    ],
)
def test_what_is_no_verdict_is_unknown_and_never_passed(output: bytes, exit_code: int | None) -> None:
    told = read_report(output, exit_code)
    assert told.verdict == "unknown"
    assert told.line.startswith("GPU check: unknown")


def test_a_program_that_is_missing_is_unknown() -> None:
    told = asyncio.run(check_gpus(["/nowhere/gpu-check"], environ=ENVIRON, expected=1))
    assert told.verdict == "unknown"


def test_a_program_that_hangs_is_unknown_and_killed(tmp_path: Path) -> None:
    rules = tmp_path / "gpu.json"
    rules.write_text('{"hang": true}')
    command = [sys.executable, STANDIN, "gpu", str(rules)]
    told = asyncio.run(check_gpus(command, environ=ENVIRON, expected=1, longest_s=0.5))
    assert told.verdict == "unknown"
    assert "did not answer" in told.line
