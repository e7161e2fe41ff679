"""Every decision of the checks is guarded: turned round, a test is red. Slow: some hundred mutants, seconds each."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
GUARDS = {
    "compute": ["test_compute"],
    "counters": ["test_counters"],
    "coverage": ["test_coverage"],
    "diagnosis": ["test_faults", "test_verdict"],
    "expect": ["test_expect"],
    "facts": ["test_facts", "test_verdict"],
    "gpus": ["test_gpus", "test_verdict"],
    "last": ["test_last"],
    "memory": ["test_memory"],
    "result": ["test_result"],
    "surroundings": ["test_surroundings"],
    "verdict": ["test_judgement", "test_verdict", "test_counters", "test_walk"],
}

FRAMEWORKS = {
    "architectures",
    "background",
    "framework_facts",
    "framework_faults",
    "framework_verdict",
    "frameworks",
    "preflight",
    "short",
    "smoke",
    "tensorflow_smoke",
    "torch_smoke",
    "wheels",
}

# Mutants that do the same as the original, each with the reason.
EQUIVALENT: dict[str, set[str]] = {}


@pytest.mark.slow
@pytest.mark.parametrize("module", sorted(GUARDS))
def test_every_mutant_of_a_check_is_noticed(module: str) -> None:
    tests = [os.path.join(HERE, f"{name}.py") for name in GUARDS[module]]
    command = [sys.executable, "-m", "tests.unit.gpu_checks.mutants", module, *tests]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=os.path.join(HERE, "..", "..", "..")
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["mutants"] > 5
    survivors = {words.partition(": ")[2] for words in found["survivors"]}
    assert survivors == EQUIVALENT.get(module, set())


def test_a_module_whose_mutants_nobody_looks_at_is_not_forgotten() -> None:
    """What decides is in the list; the others talk to the driver, to children or to files."""
    package = os.path.join(HERE, "..", "..", "..", "gpu_checks")
    shells = {"__init__", "__main__", "channel", "cli", "driver", "faults", "nvml", "probe", "prometheus",
              "quick", "report", "runner", "streams"}  # fmt: skip
    # What the frameworks have to say is held by the table of faults in test_gpu_check_short.
    shells |= FRAMEWORKS
    modules = {name[:-3] for name in os.listdir(package) if name.endswith(".py")}
    assert modules - shells == set(GUARDS)
