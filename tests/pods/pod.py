"""A pod of one user on this machine: containers that share directories, started and ended in the order of a kubelet."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

from tests.pods.engine import BASE, SIDECAR, Podman
from tests.processes import wait_until

HOME = "/home/jovyan"
USER = "alice"
_NUMBERS = itertools.count()

RESTRICTED = [
    "--user=1000:100",
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--network=none",
]
"""As the manifest's security context, for every container of ours."""


class Volumes:
    """What outlives a pod: the claim. ``claim`` is what ``storage-prepare`` sees."""

    def __init__(self, top: Path) -> None:
        self.top = top
        top.chmod(0o755)
        self.claim = top / "claim"
        self.claim.mkdir()
        os.chown(self.claim, 0, 100)
        self.claim.chmod(0o2775)

    @property
    def persist(self) -> Path:
        return self.claim / USER

    @property
    def mirror(self) -> Path:
        return self.persist / "Backup" / "default"

    def empty_dir(self, name: str) -> Path:
        """A new directory that every container may write to, as the kubelet makes them."""
        path = self.top / f"{name}{next(_NUMBERS)}"
        path.mkdir()
        path.chmod(0o777)
        return path


class Pod:
    """Prepared, and watched over by a sidecar that is ready, when it has been made."""

    def __init__(self, podman: Podman, volumes: Volumes, *, grace_s: int = 20) -> None:
        self._podman, self._volumes, self._grace_s = podman, volumes, grace_s
        self.name = f"pod{next(_NUMBERS)}"
        self.home, self.tools, self.run = map(volumes.empty_dir, ("home", "tools", "run"))
        self._guard = volumes.empty_dir("guard")
        self._logs = volumes.empty_dir("logs")
        self.prepared = self.prepare()
        self.sidecar = self._start_sidecar()
        self.notebook = ""

    def prepare(self) -> dict[str, Any]:
        """The first init container has ended; its termination message."""
        command = ["storage-prepare", "--persist=/claims/persist", f"--user={USER}", "--tools=/tools"]
        mounts = [f"--volume={self._volumes.claim}:/claims/persist", f"--volume={self.tools}:/tools"]
        self._podman("run", "--rm", *RESTRICTED, *mounts, *self._log("prepare"), "--entrypoint=", SIDECAR, *command)
        return self._message("prepare")

    def check_gpus(self, expected: int) -> dict[str, Any]:
        """The init container of a GPU profile has ended with 0; its termination message."""
        environ = [f"--env=GPU_CHECK_EXPECT={expected}", "--env=GPU_CHECK_REPORT=/run/jupyterhub-sidecar/gpu.json"]
        mounts = [f"--volume={self.run}:/run/jupyterhub-sidecar", *self._log("preflight")]
        self._podman("run", "--rm", *RESTRICTED, *environ, *mounts, "--entrypoint=", SIDECAR, "gpu-preflight")
        return self._message("preflight")

    def _start_sidecar(self) -> str:
        name = f"{self.name}-sidecar"
        # In the order of the manifest: the home, the guards over what is mounted in it, then the rest.
        mounts = [
            f"--volume={self.home}:/watch/home",
            f"--volume={self._guard}:/watch/home/Persist:ro",
            f"--volume={self._guard}:/watch/home/Shared:ro",
            f"--volume={self._volumes.persist}:/watch/persist",
            f"--volume={self.run}:/run/jupyterhub-sidecar",
            "--tmpfs=/tmp:size=64m,mode=1777",
        ]
        environ = {
            "SIDECAR_HOME": "/watch/home",
            "SIDECAR_PERSIST": "/watch/persist",
            "SIDECAR_GRACE": str(self._grace_s),
            "SIDECAR_SOCKET": "/run/jupyterhub-sidecar/s",
            "SIDECAR_POD_UID": self.name,
            "SIDECAR_OWNER": USER,
            "SIDECAR_TERMINATION_LOG": "/dev/termination-log",
            "TMPDIR": "/tmp",
        }
        variables = [f"--env={name}={value}" for name, value in environ.items()]
        log = self._log("sidecar")
        self._podman("run", "--detach", f"--name={name}", *RESTRICTED, *mounts, *variables, *log, SIDECAR, "run")
        wait_until(lambda: self.status()["state"] == "watching", "the sidecar is ready", 60)
        return name

    def status(self) -> dict[str, Any]:
        """What the sidecar says when it is asked in its own container."""
        said = self._podman("exec", f"{self.name}-sidecar", "sidecar", "status", "--json", check=False)
        document: dict[str, Any] = json.loads(said or '{"state": "stopped"}')
        return document

    def start_notebook(self, script: str, *options: str) -> str:
        """A container with this home, in which ``script`` runs as a Python program."""
        self.notebook = f"{self.name}-notebook{next(_NUMBERS)}"
        persist = self._volumes.persist
        mounts = [
            f"--volume={self.home}:{HOME}",
            f"--volume={persist}:{HOME}/Persist",
            f"--volume={persist}/Backup:{HOME}/Persist/Backup:ro",
            f"--volume={persist}/.jupyterhub-sidecar:{HOME}/Persist/.jupyterhub-sidecar:ro",
            *(f"--volume={self.tools}/{name}:/usr/local/bin/{name}:ro" for name in self.prepared["tools"]),
        ]
        # The user's image: its root can be written to, and nothing is ours.
        rights = ["--user=1000:100", "--cap-drop=all", "--network=none", f"--workdir={HOME}", f"--env=HOME={HOME}"]
        name = f"--name={self.notebook}"
        self._podman("run", "--detach", name, *rights, *mounts, *options, BASE, "python3", "-c", script)
        return self.notebook

    def in_notebook(self, script: str) -> str:
        """What a line of shell says in the notebook, both streams together."""
        return self._podman("exec", self.notebook, "sh", "-c", f"exec 2>&1; {script}", check=False)

    def in_sidecar(self, script: str) -> str:
        """The same in the sidecar."""
        return self._podman("exec", self.sidecar, "sh", "-c", f"exec 2>&1; {script}", check=False)

    def stop(self) -> tuple[int, dict[str, Any]]:
        """Notice, the notebook's end, the sidecar's: its exit code and its last words."""
        self._podman("exec", self.sidecar, "sh", "-c", "kill -USR1 1")
        if self.notebook:
            self._podman("stop", "--time=5", self.notebook)
        self._podman("stop", f"--time={self._grace_s}", self.sidecar)
        code = self._podman.inspect("container", self.sidecar)["State"]["ExitCode"]
        return int(code), self._message("sidecar")

    def _log(self, name: str) -> list[str]:
        path = self._logs / name
        path.touch()
        path.chmod(0o666)
        return [f"--volume={path}:/dev/termination-log"]

    def _message(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self._logs / name).read_text())
        return document
