"""A real hub on a machine whose driver is a fake: the verdict before the notebook starts, the frameworks' after it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hub.plan import Directories
from tests.hub_process import Hub, eventually

from .fake_gpu import compiled
from .test_hub_local import pytestmark as needs_a_notebook_environment

pytestmark = needs_a_notebook_environment
BLOCK = "gpu_check: {at_spawn: quick, frameworks: background, on_failure: block}\n"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Hub]]:
    """A hub on a machine with these variables, and with this in its policy."""
    started: list[Hub] = []

    def start(policy: str = "", **variables: str) -> Hub:
        libraries = tmp_path / "lib"
        libraries.mkdir()
        environ = {"LD_LIBRARY_PATH": compiled(str(libraries)), **variables}
        if policy:
            shipped = (Path(__file__).parents[2] / "hub" / "policy.yaml").read_text()
            head, _, rest = shipped.partition("gpu_check:")
            file = tmp_path / "policy.yaml"
            file.write_text(head + policy + rest[rest.index("\n\n") :])
            environ["HUB_POLICY"] = str(file)
        hub = Hub(tmp_path / "data", environ=environ)
        started.append(hub)
        hub.start()
        return hub

    yield start
    for hub in started:
        hub.end()


def spawn(hub: Hub) -> list[str]:
    """What the spawn page is told while the server starts, from the beginning to the end."""
    with ThreadPoolExecutor(1) as other:
        # The answer may come when the server has started, and then its page tells only that.
        other.submit(hub.rest, "POST", "/hub/api/users/hpc/server", "hpc", {"profile": "a100-1"})
        eventually(lambda: (hub.server("hpc") or {}).get("pending") == "spawn", 30, "the start has begun")
        answer = hub.rest("GET", "/hub/api/users/hpc/server/progress", "hpc")
    events = [json.loads(line[5:]) for line in answer.text.splitlines() if line.startswith("data:")]
    return [str(event["message"]) for event in events if "message" in event]


def gpu_status(directories: Directories) -> dict[str, Any] | None:
    """What the sidecar's status says about the GPUs."""
    command = [sys.executable, "-P", "-m", "sidecar", "status", "--json"]
    command += ["--home", directories.home, "--persist", directories.persist]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    report: dict[str, Any] | None = json.loads(said)["gpu"]
    return report


def test_the_verdict_is_told_at_the_spawn_and_the_frameworks_follow(start: Callable[..., Hub]) -> None:
    hub = start()
    began = time.monotonic()
    told = spawn(hub)
    hub.wait_ready("hpc")
    assert any(line.startswith("GPU check: passed – 1 GPU (Fake A100)") for line in told), told
    assert time.monotonic() - began < 60

    directories = hub.directories("hpc")
    first = gpu_status(directories)
    assert first is not None
    assert first["verdict"] == "pass"
    eventually(lambda: (gpu_status(directories) or {}).get("level") == "short", 60, "the frameworks were looked for")
    report = gpu_status(directories)
    assert report is not None
    assert report["frameworks"]["python"].endswith("/.venv-notebook/bin/python")
    assert {each["state"] for each in report["frameworks"]["found"]} == {"not installed"}
    assert (report["quick"]["verdict"], report["verdict"]) == ("pass", "pass")
    assert report["gpus"][0]["uuid"] == "GPU-00000000-1111-2222-3333-444444444400"


def test_a_sick_gpu_blocks_the_start_where_the_policy_says_so(start: Callable[..., Hub]) -> None:
    hub = start(BLOCK, CUDA_VISIBLE_DEVICES="-1")
    told = spawn(hub)
    assert any("CUDA_VISIBLE_DEVICES hides GPUs that are there" in line for line in told), told
    eventually(lambda: not (hub.server("hpc") or {}).get("pending"), 30, "the start has ended")
    assert not (hub.server("hpc") or {}).get("ready")
    assert "its GPUs need attention" in hub.log
    assert [line for line in hub.processes() if "singleuser" in line] == []
    report = json.loads(Path(hub.directories("hpc").gpu_report).read_text())
    assert (report["level"], report["verdict"]) == ("quick", "fail")
