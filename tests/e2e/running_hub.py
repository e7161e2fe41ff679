"""A real hub, as ``jupyterhub-sidecar up`` starts it, for one test module."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

PASSWORD = "correct horse battery"  # of users that exist for the length of one test


def eventually(what: str, condition: Callable[[], Any], timeout_s: float) -> Any:
    """The first true value of ``condition``. Fails with ``what`` when there is none in time."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout_s} s: {what}")


def free_port() -> int:
    """A port on 127.0.0.1 that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RunningHub:
    """``jupyterhub-sidecar up`` in a session of its own, on a free port, with everything below ``data``."""

    def __init__(self, data: Path, *, settings: dict[str, str] | None = None, environment: Path | None = None) -> None:
        """``settings`` are variables for it; ``environment`` is the virtual environment of the hub, if not this one."""
        self.data = data
        self.settings = settings or {}
        self._bin = environment / "bin" if environment else Path(sys.executable).parent
        self.url = ""
        self.healthy_after_s = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """The hub answers; ``healthy_after_s`` says how long that took."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [
            str(self._bin / "jupyterhub-sidecar"),
            "up",
            f"--port={port}",
            f"--data={self.data}",
        ]
        started_s = time.monotonic()
        self.data.parent.mkdir(parents=True, exist_ok=True)
        with (self.data.parent / "up.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, "HUB_PASSWORD": PASSWORD, **self.settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually("the hub answers", self._answers, 60)
        self.healthy_after_s = time.monotonic() - started_s

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.data.parent / "up.log").read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/hub/api", timeout=5) as reply:
                return "version" in json.load(reply)
        except (OSError, urllib.error.URLError):
            return False

    def stop(self) -> float:
        """Ctrl-C; how many seconds until no process of the hub was left."""
        assert self._process is not None
        started_s = time.monotonic()
        self._process.send_signal(signal.SIGINT)
        eventually("no process is left", lambda: not self.processes(), 30)
        self._process.wait(5)
        self._process = None
        return time.monotonic() - started_s

    def kill(self) -> None:
        """The whole tree is gone at once, as when the machine loses power."""
        assert self._process is not None
        eventually("every process is dead", self._kill_round, 20)
        self._process.wait(5)
        self._process = None

    def _kill_round(self) -> bool:
        pids = self.processes()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    def processes(self) -> list[int]:
        """The live processes of this hub: those whose command line or environment names its data directory."""
        if self._process is not None:
            self._process.poll()  # reaps it
        wanted = os.fsencode(self.data)
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal() or int(entry.name) == os.getpid():
                continue
            try:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                text = (entry / "cmdline").read_bytes() + b"\0" + (entry / "environ").read_bytes()
            except OSError:
                continue
            if wanted in text and state != "Z":
                found.append(int(entry.name))
        return found

    def clean_up(self) -> None:
        """Nothing of the hub runs any more, however the test went."""
        if self._process is not None:
            self.kill()

    # Where things lie.

    @property
    def log(self) -> str:
        return (self.data / "hub" / "hub.log").read_text(errors="replace")

    def home(self, user: str) -> Path:
        return self.data / "users" / user / "servers" / "default" / "home"

    def persist(self, user: str) -> Path:
        return self.data / "users" / user / "persist"

    def mirror(self, user: str) -> Path:
        return self.persist(user) / "Backup" / "default"
