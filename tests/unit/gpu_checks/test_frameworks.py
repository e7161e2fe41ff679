"""A notebook's Python that answers what nobody expects."""

from __future__ import annotations

import dataclasses
import json
import os
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
