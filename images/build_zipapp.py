"""Builds ``gpu-check.pyz``: one executable file with everything in it, for any image with a Python from 3.9 on.

    python images/build_zipapp.py --output build/gpu-check.pyz

In front stands a shell script that finds a Python; behind it a zip archive with ``gpu_checks``, and with click and
nvidia-ml-py from ``locks/gpu-check.txt``, verified by their hashes. Any Python can run the sources; for one or more of
them the archive holds compiled modules too, because compiling takes longer than the check itself. Nothing is compressed
and every date is the same, so the same input and the same Python give the same bytes with any zlib; and Python needs no
zlib to start it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGE = os.path.join(ROOT, "gpu_checks")
LOCK = os.path.join(ROOT, "locks", "gpu-check.txt")
HEADER = os.path.join(ROOT, "images", "gpu-check-header.sh")
LICENCE = os.path.join(ROOT, "LICENSE")

EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first date that a zip archive can hold
MODE = 0o755
NOT_RUN = ("example.py", "click/testing.py", "click/_winconsole.py")  # never imported on Linux by what is in here

# Where there are no compiled modules for the Python that runs it, it finds that directory empty and takes the sources.
MAIN = """import sys

sys.path.insert(0, f"{sys.path[0]}/compiled/{sys.implementation.cache_tag}")

from gpu_checks.cli import main

main()
"""

# Compiled without a look at the clock or at the sources' place, so that the same input gives the same bytes.
COMPILE = """import os, py_compile, sys
root, target = sys.argv[1:]
print(sys.implementation.cache_tag)
for directory, names, files in os.walk(root):
    names.sort()
    for name in sorted(files):
        path = os.path.relpath(os.path.join(directory, name), root)
        py_compile.compile(os.path.join(root, path), os.path.join(target, path + "c"), "gpu-check.pyz/" + path,
                           doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""


class NoLicence(Exception):
    """A package would go into the archive without the text of its licence."""


def main() -> None:
    """The file is built, or the process ends with a message."""
    parser = argparse.ArgumentParser(description="Build gpu-check.pyz.")
    parser.add_argument("--output", required=True, metavar="FILE")
    parser.add_argument(
        "--compile-for",
        action="append",
        metavar="PYTHON",
        help="Compiled modules for this Python too, so that it starts in a third of the time; again for more. "
        "The default is the one that runs this.",
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        try:
            wheels = downloaded(directory)
        except subprocess.CalledProcessError as error:
            sys.exit(
                f"build_zipapp: cannot get the packages of {os.path.relpath(LOCK)}: pip ended with {error.returncode}"
            )
        contents = {**own_files(), **licence_of_ours()}
        for wheel in wheels:
            contents.update(files_of(wheel))
    modules = {name: data for name, data in contents.items() if name.endswith(".py") and name != "__main__.py"}
    for python in asked.compile_for or [sys.executable]:
        try:
            contents.update(compiled(modules, python))
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"build_zipapp: {python} cannot compile the modules: {error}")
    write(asked.output, contents)


def downloaded(directory: str) -> list[str]:
    """The wheels of the lock, verified. They come from wherever the user's pip is told to get packages."""
    command = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-input"]
    command += ["--require-hashes", "--no-deps", "--only-binary=:all:", "--requirement", LOCK, "--dest", directory]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return sorted(os.path.join(directory, name) for name in os.listdir(directory))


def own_files() -> dict[str, bytes]:
    """This project's part: the package, and what starts it."""
    files = {"__main__.py": MAIN.encode()}
    for name in sorted(os.listdir(PACKAGE)):
        if name.endswith(".py"):
            files[f"gpu_checks/{name}"] = _read(os.path.join(PACKAGE, name))
    return files


def compiled(modules: Mapping[str, bytes], python: str) -> dict[str, bytes]:
    """The modules as this Python compiles them, in a directory of its own. Raises OSError, CalledProcessError."""
    with tempfile.TemporaryDirectory() as source, tempfile.TemporaryDirectory() as target:
        for name, data in modules.items():
            path = os.path.join(source, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(data)
        environ = {"PATH": os.environ.get("PATH", ""), "PYTHONHASHSEED": "0"}  # the order of constant sets
        command = [python, "-S", "-s", "-c", COMPILE, source, target]
        tag = subprocess.run(
            command, check=True, env=environ, cwd="/", stdout=subprocess.PIPE, text=True
        ).stdout.strip()
        return {f"compiled/{tag}/{name}c": _read(os.path.join(target, f"{name}c")) for name in modules}


def licence_of_ours() -> dict[str, bytes]:
    """The text of this project's licence."""
    return {"LICENSES/jupyterhub-sidecar.txt": _read(LICENCE)}


def files_of(wheel: str) -> dict[str, bytes]:
    """The modules of a wheel, and its licence. Raises NoLicence."""
    with zipfile.ZipFile(wheel) as archive:
        everything = {name: archive.read(name) for name in archive.namelist()}
    modules = {name: data for name, data in everything.items() if name.endswith(".py") and name not in NOT_RUN}
    title = "-".join(os.path.basename(wheel).split("-")[:2])
    return {**modules, f"LICENSES/{title}.txt": _licence(title, everything, modules)}


def _licence(title: str, everything: Mapping[str, bytes], modules: Mapping[str, bytes]) -> bytes:
    """The wheel's licence file, or the comment with the copyright that opens its module."""
    for name in sorted(everything):
        if ".dist-info/" in name and re.search("licen[cs]e|copying", os.path.basename(name), re.IGNORECASE):
            return everything[name]
    for data in modules.values():
        opening = re.match(rb"(#[^\n]*\n)+", data)
        if opening and b"Copyright" in opening.group():
            return opening.group()
    raise NoLicence(f"{title} has no licence text")


def write(output: str, contents: Mapping[str, bytes]) -> None:
    """The executable file is there, whole."""
    directory = os.path.dirname(os.path.abspath(output))
    os.makedirs(directory, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=directory, prefix=".gpu-check.")
    try:
        with os.fdopen(descriptor, "w+b") as file:
            file.write(_read(HEADER))
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name in sorted(contents):
                    entry = zipfile.ZipInfo(name, EARLIEST)
                    entry.create_system = 3  # Unix, wherever this runs
                    entry.external_attr = 0o644 << 16
                    archive.writestr(entry, contents[name])
            os.fchmod(file.fileno(), MODE)
        os.replace(temporary, output)
    except BaseException:
        os.unlink(temporary)
        raise


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


if __name__ == "__main__":
    main()
