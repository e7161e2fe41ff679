"""The spawner on one machine: the same profiles, validation and plan; its containers are processes."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

from traitlets import Unicode, default

from hub.admission import FailedStart
from hub.gpu import MACHINE_GPU_VARIABLES
from hub.identity import subject_of
from hub.local_server import LocalServer, Programs, StartRefused
from hub.plan import Directories, local_directories, local_plan
from hub.processes import Process
from hub.quantity import Size
from hub.resolve import Decision
from hub.spawner import SidecarSpawner

_PASSED_ON = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM", *MACHINE_GPU_VARIABLES)
_NOTEBOOK_CONFIG = os.path.join(os.path.dirname(os.path.abspath(__file__)), "notebook_config")
"""Defaults for JupyterLab, below the user's own settings: no question about news, no look for a newer version."""

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_UNKNOWN = Decision(profile="unknown", image="unknown", size=Size())
"""Stands for what a server was granted that runs already, when nobody can say it: it must end like any other."""


class LocalSpawner(SidecarSpawner):
    """Starts servers below ``data`` on this machine, all under the hub's own account."""

    data = Unicode(config=True, help="The directory everything lives in; absolute.")
    notebook_environment = Unicode(config=True, help="A virtual environment with jupyterhub-singleuser.")
    tools = Unicode(config=True, help="A directory with gpu-check, for the PATH of notebooks.")

    enforced = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._local: LocalServer | None = None
        self._told: list[dict[str, Any]] = []
        self._news = asyncio.Event()
        super().__init__(*args, **kwargs)

    @default("ip")
    def _loopback(self) -> str:
        return "127.0.0.1"

    @default("start_timeout")
    def _start_timeout(self) -> int:
        return 300  # a restore of much work takes its time

    @default("poll_interval")
    def _poll_interval(self) -> int:
        return 5

    @property
    def directories(self) -> Directories:
        return local_directories(self.data, self.user.name, self.name)

    async def start(self) -> tuple[str, int]:
        """The server runs and answers at the address returned. Raises an HTTP error that says why it does not."""
        await self.load_user_options()
        self._told.clear()
        self.port = _free_port()
        # JupyterHub formats it.
        self.notebook_dir = self.directories.home.replace("{", "{{").replace("}", "}}")
        server = self._new_server()
        try:
            await server.start(self._environ(), port=self.port)
        except StartRefused as error:
            raise FailedStart(str(error)) from error
        return self.ip, self.port

    async def poll(self) -> int | None:
        """``None`` while the server runs; its exit code once it has ended and is drained."""
        return 0 if self._local is None else await self._local.poll()

    async def stop(self, now: bool = False) -> None:  # noqa: ARG002  the drain is never cut short: it is bounded
        if self._local is not None:
            await self._local.end()

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        seen = 0
        while True:
            for event in self._told[seen:]:
                yield event
            seen = len(self._told)
            self._news.clear()
            await self._news.wait()

    def is_ending(self) -> bool:
        """Never: a start ends what is left of an earlier one itself, or is refused."""
        return False

    def _gone(self) -> bool:
        notebook = self._local.notebook if self._local else None
        return notebook is None or not notebook.alive()

    async def delete_forever(self) -> None:
        """Nothing is destroyed with a server's record."""

    def get_state(self) -> dict[str, Any]:
        state = super().get_state()
        notebook = self._local.notebook if self._local else None
        if notebook is not None:
            state["notebook"] = {"pid": notebook.pid, "birth": notebook.birth}
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        notebook = state.get("notebook")
        if isinstance(notebook, dict) and (self.granted is not None or self.unreadable):
            self._new_server().adopt(Process(int(notebook["pid"]), str(notebook["birth"])))

    def clear_state(self) -> None:
        super().clear_state()
        self._local = None

    def _new_server(self) -> LocalServer:
        self._local = LocalServer(
            local_plan(
                self.granted or _UNKNOWN,
                self.directories,
                self.policy,
                user=self.user.name,
                subject=subject_of(self.user),
            ),
            self._programs(),
            say=self._say,
            log=_ServerLog(logging.getLogger("hub"), {"server": self._log_name}),
        )
        return self._local

    def _programs(self) -> Programs:
        arguments = ["--allow-root"] if os.getuid() == 0 else []
        return Programs(
            # -P: what lies in the working directory is not imported
            sidecar=(sys.executable, "-P", "-m", "sidecar"),
            gpu_preflight=(sys.executable, "-P", "-m", "gpu_checks.preflight"),
            gpu_check=(sys.executable, "-P", "-m", "gpu_checks"),
            notebook=(os.path.join(self.notebook_environment, "bin", "jupyterhub-singleuser"), *arguments, *self.args),
        )

    def _environ(self) -> dict[str, str]:
        """The notebook's environment: the hub's addresses and token for it, and nothing of the hub's own."""
        directories = self.directories
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        return {
            **passed_on,
            **{name: str(value) for name, value in self.get_env().items()},
            "PATH": notebook_path(self.notebook_environment, self.tools, os.environ),
            "HOME": directories.home,
            "USER": self.user.name,
            "SHELL": shutil.which("bash") or "/bin/sh",
            "JUPYTER_CONFIG_PATH": _NOTEBOOK_CONFIG,
            "JUPYTER_RUNTIME_DIR": os.path.join(directories.run, "jupyter"),
            "GPU_CHECK_EXPECT": str(self.granted.size.gpus if self.granted else 0),
            "GPU_CHECK_REPORT": directories.gpu_report,
            "GPU_CHECK_PYTHON": os.path.join(self.notebook_environment, "bin", "python"),
        }

    def _say(self, progress: int, message: str) -> None:
        if self._told and self._told[-1]["message"] == message:
            return
        self._told.append({"progress": progress, "message": message})
        self._news.set()


class _ServerLog(logging.LoggerAdapter[logging.Logger]):
    """Names the server in each line."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        name = str((self.extra or {}).get("server", "")).replace("%", "%%")
        return f"{name}: {msg}", kwargs


def notebook_path(environment: str, tools: str, environ: Mapping[str, str]) -> str:
    """The PATH of a notebook: its own environment first, then the tools, then what the hub has without its own
    environment."""
    own = os.path.dirname(sys.executable)
    rest = [part for part in environ.get("PATH", _SYSTEM_PATH).split(":") if part and part != own]
    return ":".join([os.path.join(environment, "bin"), tools, *(rest or _SYSTEM_PATH.split(":"))])


def _free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
