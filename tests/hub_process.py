"""A real hub on this machine, `jupyterhub-sidecar up`, asked over HTTP: by REST, and as a browser asks by its forms."""

from __future__ import annotations

import contextlib
import http.cookiejar
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub.plan import Directories, local_directories
from hub.processes import MARK
from hub.up import NOTEBOOK_ENVIRONMENT

PASSWORD = "correct horse"
COMMAND = os.path.join(os.path.dirname(sys.executable), "jupyterhub-sidecar")


def eventually(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Answer:
    status: int
    text: str

    @property
    def message(self) -> str:
        return str(json.loads(self.text)["message"])


class Browser:
    """As much of one as a form needs: cookies, and the token against cross-site requests."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._jar = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self._jar))

    def get(self, path: str) -> Answer:
        return self._open(urllib.request.Request(self._base + path))

    def post(self, path: str, fields: list[tuple[str, str]]) -> Answer:
        return self.send(path, urllib.parse.urlencode(fields).encode())

    def send(self, path: str, body: bytes, headers: Mapping[str, str] = {}) -> Answer:
        """Posts ``body`` as it is; as a form, where ``headers`` do not say otherwise."""
        token = next((cookie.value or "" for cookie in self._jar if cookie.name == "_xsrf"), "")
        headers = {"X-XSRFToken": token, **headers}
        return self._open(urllib.request.Request(self._base + path, data=body, headers=dict(headers)))

    def log_in(self, user: str) -> None:
        self.get("/hub/login")
        answer = self.post("/hub/login", [("username", user), ("password", PASSWORD)])
        assert answer.status == 200
        assert "/hub/logout" in answer.text

    def _open(self, request: urllib.request.Request) -> Answer:
        try:
            with self._opener.open(request, timeout=60) as response:
                return Answer(response.status, response.read().decode())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read().decode())


@dataclass
class Hub:
    """One `up` on a free port, as often as it is started."""

    data: Path
    port: int = field(default_factory=free_port)
    notebook: str = NOTEBOOK_ENVIRONMENT
    process: subprocess.Popen[bytes] | None = None
    tokens: dict[str, str] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    """Variables of the machine, beside those of the tests."""

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return self.data.with_name("output").read_text(errors="replace")

    @property
    def log(self) -> str:
        return (self.data / "hub" / "hub.log").read_text(errors="replace")

    def start(self) -> float:
        """The hub is healthy; the seconds it took."""
        began = time.monotonic()
        with self.data.with_name("output").open("ab") as output:
            self.process = subprocess.Popen(
                self._command(),
                env=self._environ(),
                cwd=self._directory(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        eventually(self._healthy, 30, f"healthy: {self.output}")
        return time.monotonic() - began

    def _command(self) -> list[str]:
        where = ["--port", str(self.port), "--data", str(self.data), "--notebook", self.notebook]
        return [COMMAND, "up", *where]

    def _directory(self) -> str | None:
        return None

    def _environ(self) -> dict[str, str]:
        return {**os.environ, "HUB_PASSWORD": PASSWORD, "A_SECRET_OF_THE_HUB": "hidden", **self.environ}

    def _healthy(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.output
        try:
            with urllib.request.urlopen(f"{self.base}/hub/health", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def signal(self, signum: signal.Signals) -> float:
        """The hub has ended; the seconds it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signum)
        self.process.wait(timeout=30)
        return time.monotonic() - began

    def rest(self, method: str, path: str, user: str, body: Any = None, *, raw: bytes | None = None) -> Answer:
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        return self.send(method, path, data, {"Authorization": f"token {self.token(user)}"})

    def token(self, user: str) -> str:
        """A token with which ``user`` may do over REST whatever they may do."""
        if user not in self.tokens:
            auth = {"auth": {"username": user, "password": PASSWORD}}
            path = f"/hub/api/users/{urllib.parse.quote(user)}/tokens"
            made = self.send("POST", path, json.dumps(auth).encode())
            assert made.status == 201, made.text
            self.tokens[user] = json.loads(made.text)["token"]
        return self.tokens[user]

    def send(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        headers: Mapping[str, str] = {},
        *,
        base: str = "",
    ) -> Answer:
        request = urllib.request.Request(f"{base or self.base}{path}", data=data, method=method, headers=dict(headers))
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return Answer(response.status, response.read().decode())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read().decode())

    def server(self, user: str, name: str = "") -> dict[str, Any] | None:
        found: dict[str, Any] | None = json.loads(self.rest("GET", f"/hub/api/users/{user}", user).text)["servers"].get(
            name
        )
        return found

    def wait_ready(self, user: str) -> None:
        eventually(lambda: bool((self.server(user) or {}).get("ready")), 60, f"ready: {self.log[-3000:]}")

    def wait_stopped(self, user: str) -> None:
        eventually(lambda: self.server(user) is None, 30, "stopped")

    def directories(self, user: str, name: str = "") -> Directories:
        return local_directories(str(self.data), user, name)

    def processes(self) -> list[str]:
        """Everything that runs for this hub: what it started inherited one of its marks."""
        found = []
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                environ = Path(f"/proc/{entry}/environ").read_bytes()
                if entry.isdigit() and f"{MARK}={self.data}".encode() in environ:
                    found.append(f"{entry} {Path(f'/proc/{entry}/cmdline').read_bytes()!r}")
        return found

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout=25)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for line in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)
