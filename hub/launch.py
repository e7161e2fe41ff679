"""What `jupyterhub-sidecar up` hands to the hub it starts: settings, by way of the environment."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field

from hub.oidc import CALLBACK_URL, CRYPT_KEY, Oidc
from hub.policy import Policy
from hub.processes import MARK

CULLER = "idle-culler"
LOGIN = "LOGIN"
"""The variable that says how people log in: ``demo`` or ``oidc``."""

TEMPLATES = os.path.join(os.path.dirname(__file__), "templates")
"""Our changes to JupyterHub's pages."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One hub on one machine. Directories are absolute; all ports are on 127.0.0.1."""

    data: str
    """Everything lives below it."""

    policy_file: str
    notebook_environment: str
    password: str = field(repr=False)
    """Of all the demo users."""

    port: int
    """Where people go."""

    hub_port: int
    """Where notebooks and services find the hub."""

    proxy_port: int
    """Where the hub tells the proxy its routes."""

    oidc: Oidc | None = None
    """How to log in with an identity provider; ``None`` for the demo users."""

    @property
    def own(self) -> str:
        """The hub's own files."""
        return hub_directory(self.data)

    def to_environ(self) -> dict[str, str]:
        """To be laid over the environment, where the rest of ``oidc`` comes from."""
        keys = {CALLBACK_URL: self.oidc.callback_url, CRYPT_KEY: ";".join(self.oidc.crypt_keys)} if self.oidc else {}
        return {
            LOGIN: "oidc" if self.oidc else "demo",
            **keys,
            "HUB_DATA": self.data,
            "HUB_POLICY": self.policy_file,
            "HUB_NOTEBOOK_ENVIRONMENT": self.notebook_environment,
            "HUB_PASSWORD": self.password,
            "HUB_PORTS": f"{self.port} {self.hub_port} {self.proxy_port}",
        }

    @classmethod
    def take_from(cls, environ: MutableMapping[str, str]) -> Launch:
        """What ``to_environ`` wrote. Secrets are gone from ``environ``: the proxy inherits the hub's environment.

        Raises ``KeyError`` or ``ValueError`` when it is not all there: this is for `jupyterhub-sidecar up` alone.
        """
        port, hub_port, proxy_port = (int(part) for part in environ["HUB_PORTS"].split())
        return cls(
            data=environ["HUB_DATA"],
            policy_file=environ["HUB_POLICY"],
            notebook_environment=environ["HUB_NOTEBOOK_ENVIRONMENT"],
            password=environ.pop("HUB_PASSWORD"),
            port=port,
            hub_port=hub_port,
            proxy_port=proxy_port,
            oidc=Oidc.take_from(environ) if environ[LOGIN] == "oidc" else None,
        )


def hub_directory(data: str) -> str:
    """Where a hub keeps its own files below ``data``."""
    return os.path.join(data, "hub")


def tools_directory(data: str) -> str:
    """What stands on the PATH of notebooks."""
    return os.path.join(data, "tools")


def proxy_command(launch: Launch) -> list[str]:
    """The pure-Python proxy beside this Python."""
    return _logged(launch, "proxy", [sys.executable, "-m", "hub.proxy"])


def culler_service(launch: Launch, policy: Policy) -> dict[str, object]:
    """The service that stops idle servers."""
    command = [sys.executable, "-m", "jupyterhub_idle_culler", f"--timeout={policy.cull.timeout_s}"]
    return {
        "name": CULLER,
        "command": _logged(launch, CULLER, command),
        "environment": {MARK: hub_mark(launch.data)},
    }


def culler_role() -> dict[str, object]:
    """The least that the culler needs."""
    scopes = ["list:users", "read:users:activity", "read:servers", "delete:servers"]
    return {"name": CULLER, "services": [CULLER], "scopes": scopes}


def hub_mark(data: str) -> str:
    """In the environment of the hub, its proxy and its services, so that they are found when the hub is gone."""
    return f"{data}#hub"


def _logged(launch: Launch, name: str, command: list[str]) -> list[str]:
    """``command``, with what it prints in a file and not on the terminal. The shell is replaced by it."""
    return ["/bin/sh", "-c", 'log=$0; exec "$@" >>"$log" 2>&1', os.path.join(launch.own, f"{name}.log"), *command]


def logging_config(launch: Launch) -> Mapping[str, object]:
    """Everything in ``hub.log``; on the terminal only errors, and what concerns a server's storage and GPUs."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "plain": {"format": "%(levelname)s %(message)s"},
            "dated": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"},
        },
        "filters": {"readable": {"()": "hub.launch.Readable"}},
        "handlers": {
            "console": {
                "class": "logging.StreamHandler",
                "level": "INFO",
                "filters": ["readable"],
                "formatter": "plain",
            },
            "file": {
                "class": "logging.FileHandler",
                "level": "INFO",
                "formatter": "dated",
                "filename": os.path.join(launch.own, "hub.log"),
                "encoding": "utf-8",
                "errors": "backslashreplace",
            },
        },
        "loggers": {
            "JupyterHub": {"level": "INFO", "handlers": ["console", "file"]},
            "hub": {"level": "INFO", "handlers": ["console", "file"], "propagate": False},
        },
    }


class Readable(logging.Filter):
    """Passes what somebody at the terminal should read: our own lines, JupyterHub's errors, and that it is up."""

    def filter(self, record: logging.LogRecord) -> bool:
        ours = record.name == "hub" or record.name.startswith("hub.")
        return ours or record.levelno >= logging.ERROR or record.msg.startswith("JupyterHub is now running")
