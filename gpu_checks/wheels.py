"""Which frameworks a Python has, told by their files: importing them takes seconds, and fails where they are broken.

Runs in the notebook's own Python.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import platform
import re

from .channel import Channel
from .framework_facts import Installed, Wheel

LARGEST_FILE_BYTES = 256 * 1024  # version.py and build_info.py have a few kilobytes
DISTRIBUTIONS = {
    "torch": ("torch",),
    "tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-gpu", "tensorflow-rocm", "tf-nightly", "tf-nightly-cpu"),
}


def look(channel: Channel) -> None:
    """Told: what this Python has."""
    channel.begin("importlib.metadata")
    channel.tell(Installed(platform.python_version(), (torch_wheel(), tensorflow_wheel())))


def torch_wheel() -> Wheel:
    """PyTorch: its build is in ``torch/version.py``, where ``cuda = None`` means a build for the CPU."""
    directory = package_directory("torch")
    distribution = _distribution("torch")
    if directory is None and distribution is None:
        return Wheel("torch")
    said = assignments(os.path.join(directory, "version.py")) if directory else {}
    cuda, hip = said.get("cuda"), said.get("hip")
    build = "" if "cuda" not in said else "cuda" if cuda else "rocm" if hip else "cpu"
    return Wheel(
        "torch",
        version=str(said.get("__version__") or _version(distribution)),
        distribution=_name(distribution),
        build=build,
        cuda=str(cuda or ""),
        missing=_missing(distribution) if build == "cuda" else (),
        installed=True,
    )


def tensorflow_wheel() -> Wheel:
    """TensorFlow: its build is in ``build_info.py``; ``tensorflow-cpu`` is a package of its own."""
    directory = package_directory("tensorflow")
    distribution = _distribution("tensorflow")
    if directory is None and distribution is None:
        return Wheel("tensorflow")
    said = assignments(os.path.join(directory, "python", "platform", "build_info.py")) if directory else {}
    info = said.get("build_info")
    info = info if isinstance(info, dict) else {}
    build = "" if "is_cuda_build" not in info else "cuda" if info["is_cuda_build"] else "cpu"
    if build == "cpu" and info.get("is_rocm_build"):
        build = "rocm"
    if not build and _name(distribution).endswith("-cpu"):
        build = "cpu"
    return Wheel(
        "tensorflow",
        version=_version(distribution),
        distribution=_name(distribution),
        build=build,
        cuda=str(info.get("cuda_version") or ""),
        capabilities=tuple(str(item) for item in info.get("cuda_compute_capabilities") or ()),
        missing=_missing(distribution) if build == "cuda" else (),
        installed=True,
    )


def package_directory(name: str) -> str | None:
    """Where the package is, without importing it. A directory that only has its name is no package."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return os.path.dirname(spec.origin) if spec is not None and spec.origin is not None else None


def assignments(path: str) -> dict[str, object]:
    """The constants that a module assigns at its top level; empty where it cannot be read.

    Of a call such as ``collections.OrderedDict([…])`` it is the dictionary of its first argument.
    """
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read(LARGEST_FILE_BYTES))
    except (OSError, SyntaxError, ValueError):
        return {}
    found: dict[str, object] = {}
    for node in tree.body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if not isinstance(target, ast.Name):
            continue
        try:
            if isinstance(node.value, ast.Call) and node.value.args:
                found[target.id] = dict(ast.literal_eval(node.value.args[0]))
            else:
                found[target.id] = ast.literal_eval(node.value)
        except (ValueError, TypeError):
            continue  # computed: not a constant
    return found


def _distribution(name: str) -> importlib.metadata.Distribution | None:
    for candidate in DISTRIBUTIONS[name]:
        try:
            return importlib.metadata.distribution(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _name(distribution: importlib.metadata.Distribution | None) -> str:
    return "" if distribution is None else str(distribution.metadata["Name"] or "")


def _version(distribution: importlib.metadata.Distribution | None) -> str:
    return "" if distribution is None else str(distribution.version or "")


def _missing(distribution: importlib.metadata.Distribution | None) -> tuple[str, ...]:
    """The nvidia-* packages that it names for this machine, as a need or as an extra, and that are not there."""
    named = []
    for requirement in (distribution.requires or ()) if distribution is not None else ():
        package = re.match("nvidia-[A-Za-z0-9._-]+", requirement)
        machine = re.search("platform_machine *== *['\"]([^'\"]+)", requirement)
        if package and (machine is None or machine.group(1) == platform.machine()):
            named.append(package.group())
    return tuple(name for name in named if not _installed(name))


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
