"""The lease between real processes: on one machine, in PID namespaces of their own, stopped, and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar.errors import EXIT_PERSIST
from tests.integration.lease_holder import INTERVAL_S
from tests.processes import CHECKOUT, wait_until

_NAMESPACE = ["unshare", *([] if os.geteuid() == 0 else ["-Ur"]), "--pid", "--fork", "--mount-proc", "--kill-child"]


class _Process:
    """One that wants the lease, and what it has said so far."""

    def __init__(self, directory: Path, *, pod_uid: str = "", rounds: int = 0, alone: bool = False) -> None:
        """``alone``: it is process 1 of a PID namespace of its own."""
        words = [sys.executable, "-m", "tests.integration.lease_holder", str(directory), pod_uid, str(rounds)]
        self._log = directory.parent / f"log-{time.monotonic_ns()}"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*(_NAMESPACE if alone else []), *words],
                cwd=CHECKOUT,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        self.says("looking")

    @property
    def lines(self) -> list[str]:
        return self._log.read_text().splitlines()

    def says(self, beginning: str, deadline_s: float = 20.0) -> str:
        """The line that begins so, once it is there."""
        wait_until(lambda: any(line.startswith(beginning) for line in self.lines), beginning, deadline_s)
        return next(line for line in self.lines if line.startswith(beginning))

    def send(self, number: signal.Signals) -> None:
        """To all of its group: its PID namespace too."""
        os.killpg(self._process.pid, number)

    def wait(self) -> int:
        return self._process.wait(20)

    def close(self) -> None:
        if self._process.poll() is None:
            self.send(signal.SIGKILL)
            self._process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., _Process]]:
    (tmp_path / "state").mkdir()
    started: list[_Process] = []

    def begin(*, pod_uid: str = "", rounds: int = 0, alone: bool = False) -> _Process:
        started.append(_Process(tmp_path / "state", pod_uid=pod_uid, rounds=rounds, alone=alone))
        return started[-1]

    yield begin
    for process in started:
        process.close()


def _may_have_namespaces() -> bool:
    return subprocess.run([*_NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


def test_a_clean_end_makes_way_at_once(start: Callable[..., _Process]) -> None:
    first = start(rounds=3)
    assert first.says("taken") == "taken 1 FREE"
    assert first.wait() == 0
    assert start().says("taken") == "taken 2 RELEASED"


def test_one_that_was_killed_is_followed_at_once_and_one_that_lives_is_not(start: Callable[..., _Process]) -> None:
    first = start()
    first.says("taken")
    second = start()
    time.sleep(4 * INTERVAL_S)  # more than the three after which a dead one would be followed
    assert second.lines == ["looking"]
    first.send(signal.SIGKILL)
    assert second.says("taken", 2.5) == "taken 2 GONE"


def test_one_that_is_stopped_is_followed_after_three_intervals_and_learns_it(start: Callable[..., _Process]) -> None:
    first = start()
    first.says("taken")
    second = start()
    first.send(signal.SIGSTOP)
    stopped_s = time.monotonic()
    assert second.says("taken") == "taken 2 STILL"
    assert time.monotonic() - stopped_s >= 2 * INTERVAL_S  # the last beat was up to one before
    first.send(signal.SIGCONT)
    assert "has taken over" in first.says("fenced", 2.0)
    assert first.wait() == EXIT_PERSIST
    time.sleep(2 * INTERVAL_S)
    assert [line for line in second.lines if line.startswith("fenced")] == []


def test_a_container_that_starts_again_takes_over_from_itself_and_another_pod_does_not(
    start: Callable[..., _Process],
) -> None:
    if not _may_have_namespaces():
        pytest.skip("a PID namespace of one's own is not allowed here")
    first = start(pod_uid="pod-a", alone=True)
    first.says("taken")
    other = start(pod_uid="pod-b", alone=True)
    again = start(pod_uid="pod-a", alone=True)
    assert again.says("taken", 2.5) == "taken 2 OURS"
    first.says("fenced")
    time.sleep(4 * INTERVAL_S)  # as above
    assert other.lines == ["looking"]


def test_the_same_pid_in_another_namespace_is_another_process(start: Callable[..., _Process]) -> None:
    """Each is process 1. What one sees of the other's pid proves nothing: neither that it lives nor that it is gone."""
    if not _may_have_namespaces():
        pytest.skip("a PID namespace of one's own is not allowed here")
    first = start(alone=True)
    first.says("taken")
    second = start(alone=True)
    time.sleep(4 * INTERVAL_S)  # as above
    assert second.lines == ["looking"]
    first.send(signal.SIGKILL)
    assert second.says("taken") == "taken 2 STILL"


def test_of_many_at_the_same_moment_one_has_it(start: Callable[..., _Process], tmp_path: Path) -> None:
    """And when it is killed, another one, each time; nobody was ever fenced."""
    processes = [start() for _ in range(5)]

    def holders() -> list[_Process]:
        return [process for process in processes if any(line.startswith("taken") for line in process.lines)]

    while processes:
        wait_until(holders, "somebody has the lease")
        time.sleep(3 * INTERVAL_S / 10)  # three looks of the others
        (holder,) = holders()
        assert not any(line.startswith("fenced") for process in processes for line in process.lines)
        holder.close()
        processes.remove(holder)
    assert sorted(os.listdir(tmp_path / "state")) == ["lease"]
