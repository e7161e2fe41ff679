"""An OpenID provider in a process of its own, with users whose claims can change while it runs.

``python -m tests.openid_provider PORT STATE SECONDS`` is that process, with tokens of that age. What it knows outlives
it in STATE, as in the database of a real one: whoever is logged in need not log in again because it was down.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from tests.e2e.running_hub import eventually, free_port

CHECKOUT = Path(__file__).resolve().parent.parent


class OpenidProvider:
    """``oidc-provider-mock`` with groups as Authentik sends them: a list of names in the claim ``groups``."""

    def __init__(self, directory: Path, *, token_max_age_s: int = 3600) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._state = directory / "provider.state"
        self._log = directory / "provider.log"
        self._token_max_age_s = token_max_age_s
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._state.parent.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def settings(self) -> dict[str, str]:
        """The environment of a hub whose users log in here."""
        return {
            "LOGIN": "oidc",
            "OIDC_ISSUER": self.url,
            "OIDC_CLIENT_ID": "jupyterhub",
            "OIDC_CLIENT_SECRET": "the client's secret",
            "OIDC_LOGIN_SERVICE": "Authentik",
        }

    def start(self) -> None:
        arguments = [str(self.port), str(self._state), str(self._token_max_age_s)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.openid_provider", *arguments],
                env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        eventually("the provider answers", self._answers, 30)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/.well-known/openid-configuration", timeout=5) as reply:
                return bool(json.load(reply)["issuer"] == self.url)
        except OSError:
            return False

    def stop(self) -> None:
        """Nothing listens any more."""
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(10) == 0, self._log.read_text()
        self._process = None

    def freeze(self) -> None:
        """Connections are accepted, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def user(self, name: str, *groups: str, sub: str = "", **claims: Any) -> str:
        """``name`` is somebody with these groups from now on; their ``sub``. ``claims`` replace what is usual."""
        sub = sub or f"sub-of-{name}"
        self._send("PUT", sub, {"preferred_username": name, "groups": list(groups), **claims})
        return sub

    def revoke(self, sub: str) -> None:
        """Every token of ``sub`` is worth nothing any more."""
        self._send("POST", f"{sub}/revoke-tokens", {})

    def _send(self, method: str, path: str, body: object) -> None:
        request = urllib.request.Request(
            f"{self.url}/users/{urllib.parse.quote(path)}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10):
            pass


def main(port: str, state: str, token_max_age_s: str) -> None:
    """Serves until SIGTERM."""
    warnings.simplefilter("ignore")  # authlib about its own future
    os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"
    from oidc_provider_mock import _app  # type: ignore[import-untyped]  # has no type information
    from werkzeug.serving import make_server

    storage = _app.Storage()
    if Path(state).exists():
        vars(storage).update(pickle.loads(Path(state).read_bytes()))
    _app.Storage = lambda: storage  # it has no other way to keep anything
    application = _app.app(access_token_max_age=timedelta(seconds=int(token_max_age_s)))
    application.debug = False
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    server = make_server("127.0.0.1", int(port), application, threaded=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    signal.sigwait({signal.SIGTERM})
    server.shutdown()
    kept = {name: value for name, value in vars(storage).items() if name != "jwk"}
    Path(state).write_bytes(pickle.dumps(kept))


if __name__ == "__main__":
    main(*sys.argv[1:])
