"""Fakes of ``libcuda.so.1`` and ``libnvidia-ml.so.1``: compiled where the tests run, faults by environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Mapping

import pytest

HERE = os.path.dirname(__file__)
MARK = "GPU_CHECK_TEST_RUN"  # in the environment of every process of one run: so that one left behind is found


def compiled(directory: str, *definitions: str) -> str:
    """The directory holds both libraries. The test is skipped where there is no C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the fake driver with")
    for name in ("libcuda", "libnvidia-ml"):
        target = os.path.join(directory, f"{name}.so.1")
        macros = [f"-D{definition}" for definition in definitions]
        command = [
            compiler,
            *macros,
            "-shared",
            "-fPIC",
            "-O2",
            "-Wall",
            "-Wextra",
            f"-Wl,-soname,{name}.so.1",
            "-o",
            target,
        ]
        subprocess.run([*command, os.path.join(HERE, f"{name}.c")], check=True)
    return directory


def environment(libraries: str, faults: Mapping[str, str]) -> dict[str, str]:
    """A process with these faults: nothing of ours but the search path, and a mark to find its children by."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GPU_CHECK", "CUDA", "NVIDIA"))}
    return {**kept, "LD_LIBRARY_PATH": libraries, MARK: uuid.uuid4().hex, **faults}


def left_behind(environ: Mapping[str, str]) -> list[str]:
    """The command lines of processes of this run that still live."""
    mark = f"{MARK}={environ[MARK]}".encode()
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                ours = mark in file.read().split(b"\0")
            if ours and int(pid) != os.getpid():
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    found.append(file.read().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it ended meanwhile, or is somebody else's
    return found
