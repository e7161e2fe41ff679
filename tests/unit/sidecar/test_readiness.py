from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sidecar.readiness import container_age_s, wait_until_ready
from sidecar.server import answering, only_writer

RESTORING = {"state": "restoring", "detail": "bringing back 10 of 500 files"}


@pytest.mark.parametrize("state", ["watching", "degraded", "draining"])
def test_a_notebook_can_start_as_soon_as_its_work_is_back_or_cannot_come(state: str) -> None:
    answers = iter([None, {"state": "starting"}, RESTORING, {"state": state}])
    assert wait_until_ready(lambda: next(answers), wait_s=30, within_s=60, age_s=lambda: 1.0) == ""


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (RESTORING, "restoring: bringing back 10 of 500 files"),
        ({"state": "starting", "detail": ""}, "starting"),
        (None, "the sidecar does not answer yet"),
    ],
)
def test_what_is_still_going_on_is_told_once_the_patience_is_over(status: Mapping[str, Any] | None, told: str) -> None:
    assert wait_until_ready(lambda: status, wait_s=0.0, within_s=60, age_s=lambda: 1.0) == told


@pytest.mark.parametrize("status", [RESTORING, None])
def test_nothing_is_waited_for_beyond_the_bound(status: Mapping[str, Any] | None) -> None:
    assert wait_until_ready(lambda: status, wait_s=30, within_s=60, age_s=lambda: 60.0) == ""


def test_the_age_is_that_of_process_1() -> None:
    age_s = container_age_s()
    assert 0 < age_s <= time.clock_gettime(time.CLOCK_BOOTTIME)


def ready(directory: Path, *arguments: str) -> tuple[int, str, str]:
    environ = {
        **os.environ,
        "SIDECAR_HOME": str(directory),
        "SIDECAR_PERSIST": str(directory),
        "SIDECAR_SOCKET": str(directory / "socket"),
    }
    command = [sys.executable, "-m", "sidecar", "ready", *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_command_asks_the_sidecar_that_runs(tmp_path: Path) -> None:
    status = dict(RESTORING, detail="bringing back \x1b[2J\u202e")
    socket = str(tmp_path / "socket")
    with only_writer(socket), answering(socket, lambda *_: status):
        waiting = ready(tmp_path, "--wait", "0", "--within", "1e9")
        assert waiting == (1, "restoring: bringing back \\x1b[2J\\u202e\n", "")
        assert ready(tmp_path, "--wait", "0", "--within", "0") == (0, "", "")
        status["state"] = "watching"
        assert ready(tmp_path, "--within", "1e9") == (0, "", "")


def test_without_a_sidecar_nothing_is_ready_before_the_bound(tmp_path: Path) -> None:
    assert ready(tmp_path, "--wait", "0", "--within", "1e9") == (1, "the sidecar does not answer yet\n", "")
    assert ready(tmp_path, "--wait", "0", "--within", "0")[0] == 0


def test_garbage_on_the_socket_is_no_answer(tmp_path: Path) -> None:
    socket = str(tmp_path / "socket")
    with only_writer(socket), answering(socket, lambda *_: {"state": ["x"], "detail": 5}):
        code, out, _ = ready(tmp_path, "--wait", "0", "--within", "1e9")
    assert (code, out) == (1, "the sidecar does not answer yet\n")
