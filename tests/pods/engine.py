"""podman with a storage and a configuration of its own, and the images that the tests run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.processes import CHECKOUT

BASE = "localhost/python:3.11-slim"
SIDECAR = "localhost/jupyterhub-sidecar"

_BASE_TAR = CHECKOUT / "build" / "base-image.tar"
"""Kept from one run to the next."""

_PROGRAMS = ("podman", "runc", "mmdebstrap")
_CONTAINERS_CONF = """\
[engine]
runtime="runc"
cgroup_manager="cgroupfs"
events_logger="file"
[containers]
default_ulimits=["nofile=16384:16384", "nproc=16384:16384"]
"""
_STORAGE_CONF = """\
[storage]
driver="overlay"
runroot="{top}/run"
graphroot="{top}/root"
"""


class Podman:
    """The engine, with nothing in it but what the tests make."""

    def __init__(self, top: Path) -> None:
        """Skips the test where a part of it is missing."""
        missing = [name for name in _PROGRAMS if shutil.which(name) is None]
        if missing or os.geteuid() != 0:
            pytest.skip(f"needs root and {', '.join(_PROGRAMS)}; missing: {', '.join(missing) or 'root'}")
        (top / "containers.conf").write_text(_CONTAINERS_CONF)
        (top / "storage.conf").write_text(_STORAGE_CONF.format(top=top))
        self._top = top
        self.environ = {
            **os.environ,
            "CONTAINERS_CONF": str(top / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(top / "storage.conf"),
        }

    def __call__(self, *words: str | Path, check: bool = True, deadline_s: float = 120.0) -> str:
        """What podman says. Fails the test where it fails, unless ``check`` is false."""
        done = subprocess.run(
            ["podman", *words],
            env=self.environ,
            cwd=self._top,  # where conmon leaves its files
            capture_output=True,
            text=True,
            timeout=deadline_s,
            check=False,
        )
        assert not check or done.returncode == 0, f"podman {' '.join(map(str, words))}: {done.stderr[-2000:]}"
        return done.stdout

    def inspect(self, kind: str, name: str) -> dict[str, Any]:
        """What is known of a container or an image."""
        document: dict[str, Any] = json.loads(self(kind, "inspect", name))[0]
        return document

    def make_base(self) -> None:
        """There is a slim image with Python, made of Debian's packages."""
        if not _BASE_TAR.exists():
            _BASE_TAR.parent.mkdir(exist_ok=True)
            unfinished = _BASE_TAR.with_suffix(".unfinished.tar")
            packages = "--include=ca-certificates,python3,python3-venv"
            _run(["mmdebstrap", "--quiet", "--variant=minbase", packages, "bookworm", str(unfinished)])
            unfinished.rename(_BASE_TAR)
        self("import", "--change", 'CMD ["python3"]', _BASE_TAR, BASE, deadline_s=600)

    def build_sidecar(self) -> float:
        """There is the sidecar's image, as its own script builds it; how many seconds that took."""
        started = time.monotonic()
        _run(
            [str(CHECKOUT / "images" / "sidecar" / "build.sh"), "--pull=never", *self._lend_pip_settings()],
            {**self.environ, "ENGINE": "podman", "BASE": BASE, "TAG": SIDECAR},
        )
        return time.monotonic() - started

    def _lend_pip_settings(self) -> list[str]:
        """The build gets packages from where this machine's pip gets them."""
        said = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
        )
        settings = {}
        for line in said.stdout.splitlines():
            name, _, value = line.partition("=")
            settings[name.rpartition(".")[2]] = value.strip("'\"")
        (self._top / "pip.conf").write_text("[global]\n" + "".join(f"{n} = {v}\n" for n, v in settings.items()))
        places = {Path("/etc/ssl/certs")}
        for value in " ".join(settings.values()).split():
            path = Path(value.removeprefix("file://"))
            if path.is_dir():
                places.add(
                    path.parent if value.startswith("file://") else path
                )  # an index refers to what lies beside it
        volumes = [f"--volume={place}:{place}:ro" for place in sorted(places)]
        return [f"--volume={self._top}/pip.conf:/etc/pip.conf:ro", *volumes]

    def close(self) -> None:
        """Nothing runs any more, and nothing is mounted."""
        self("rm", "--all", "--force", "--time=0", check=False)
        self("rmi", "--all", "--force", check=False)


def _run(command: Sequence[str], environ: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"{command[0]}: {done.stdout[-1000:]}{done.stderr[-2000:]}"
