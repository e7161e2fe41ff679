"""A notebook's Python that answers what nobody expects."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path

import pytest

from gpu_checks import frameworks
from gpu_checks.framework_facts import Situation, Wheel
from gpu_checks.frameworks import Limits, Notebook
from gpu_checks.result import Verdict


def python(tmp_path: Path, script: str) -> Notebook:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return Notebook(str(program), os.environ)


@pytest.mark.parametrize("names", [(), ("torch",), ("torch", "jax"), ("torch", "tensorflow", "torch")])
def test_other_frameworks_than_were_asked_for_are_no_answer(tmp_path: Path, names: tuple[str, ...]) -> None:
    wheels = [dataclasses.asdict(Wheel(name, installed=True)) for name in names]
    answer = json.dumps({"facts": {"python": "3.11.7", "wheels": wheels}})
    notebook = python(tmp_path, f"echo '{answer}'; echo '{json.dumps({'end': ''})}'")
    checked = frameworks.check(notebook, Situation(1, 1), Limits(5, 5))
    assert [(check.name, check.verdict) for check in checked.checks] == [("frameworks", Verdict.UNKNOWN)]
    assert checked.section.found == ()


def test_what_is_printed_without_end_takes_no_memory(tmp_path: Path) -> None:
    """A file in memory would hold all of it."""
    notebook = python(tmp_path, f"stat -Lc %F /proc/self/fd/2 >{tmp_path}/kind; head -c 3000000 /dev/zero >&2; "
                      "echo the last line >&2; exit 1")  # fmt: skip
    checked = frameworks.check(notebook, Situation(1, 1), Limits(5, 5))
    assert (tmp_path / "kind").read_text() == "fifo\n"
    (check,) = checked.checks
    assert check.verdict is Verdict.UNKNOWN
    assert "exit status 1" in check.detail


def test_who_holds_the_log_is_not_waited_for(tmp_path: Path) -> None:
    started = time.monotonic()
    notebook = python(tmp_path, "echo why >&2; setsid sleep 8 >/dev/null & exit 1")
    checked = frameworks.check(notebook, Situation(1, 1), Limits(5, 5))
    assert time.monotonic() - started < 5
    assert "why" in checked.checks[0].detail
