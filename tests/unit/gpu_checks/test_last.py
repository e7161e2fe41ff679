"""The last report comes back as it was written, or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from gpu_checks.last import NoReport, cleaned, holds, last_report
from gpu_checks.report import FILE_LIMIT_BYTES, as_data, as_json, bounded_json, write
from gpu_checks.result import Verdict

from .test_report import SICK

PASS, WARN, UNKNOWN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.UNKNOWN, Verdict.FAIL


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    place = tmp_path / "gpu.json"
    for text in (as_json(SICK), bounded_json(SICK)):
        write(str(place), text)
        assert last_report(str(place)) == SICK


def test_a_report_that_was_cut_is_still_one(tmp_path: Path) -> None:
    place = tmp_path / "gpu.json"
    write(str(place), bounded_json(SICK, 1500))
    again = last_report(str(place))
    assert (again.verdict, again.summary, again.gpus) == (SICK.verdict, SICK.summary, ())


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2}, {"verdict": "fine"}, {"verdict": 1}, {"verdict": []}, {"expected": "1"}, {"gpus": {}},
        {"checks": [{}]}, {"duration_s": None}, {"more": 1}, {"versions": None},
    ],
    ids=str,
)  # fmt: skip
def test_anything_else_is_no_report(tmp_path: Path, change: dict[str, object]) -> None:
    place = tmp_path / "gpu.json"
    place.write_text(json.dumps({**as_data(SICK), **change}))
    with pytest.raises(NoReport):
        last_report(str(place))


def test_a_file_is_read_up_to_its_limit_and_no_further(tmp_path: Path) -> None:
    place = tmp_path / "gpu.json"
    place.write_text(as_json(SICK).ljust(FILE_LIMIT_BYTES))
    assert last_report(str(place)) == SICK
    place.write_text(as_json(SICK).ljust(FILE_LIMIT_BYTES + 1))
    with pytest.raises(NoReport):
        last_report(str(place))


def test_a_pipe_is_no_report_whatever_comes_out_of_it(tmp_path: Path) -> None:
    place = tmp_path / "gpu.json"
    os.mkfifo(place)
    pipe = os.open(place, os.O_RDWR)
    try:
        os.write(pipe, as_json(SICK).encode())
        with pytest.raises(NoReport):
            last_report(str(place))
    finally:
        os.close(pipe)


@pytest.mark.parametrize(
    ("verdict", "was", "now", "holding"),
    [
        (PASS, 1, 1, PASS), (PASS, 1, None, PASS), (PASS, 1, 2, UNKNOWN), (PASS, 0, 1, UNKNOWN),
        (PASS, None, 1, UNKNOWN), (PASS, None, None, PASS), (WARN, 1, 2, UNKNOWN), (WARN, 1, 1, WARN),
        (FAIL, 1, 2, FAIL), (UNKNOWN, 1, 1, UNKNOWN), (PASS, 1, 0, UNKNOWN),
    ],
)  # fmt: skip
def test_a_report_holds_for_the_number_that_it_was_made_for(
    verdict: Verdict, was: int | None, now: int | None, holding: Verdict
) -> None:
    assert holds(replace(SICK, verdict=verdict, expected=was), now) is holding


def test_lines_stay_and_control_characters_do_not() -> None:
    assert cleaned("a\n\x1b[1mb\r\n") == "a\n\\x1b[1mb\\r\n"
