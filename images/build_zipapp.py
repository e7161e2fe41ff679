"""Builds ``gpu-check.pyz``: one executable file with everything in it, for any image with a Python from 3.9 on.

    python images/build_zipapp.py --output build/gpu-check.pyz

In front stands a shell script that finds a Python; behind it a zip archive with ``gpu_checks``, and with click and
nvidia-ml-py from ``locks/gpu-check.txt``, verified by their hashes. Nothing is compressed and every date is the same,
so the same input gives the same bytes with any Python and any zlib; and Python needs no zlib to start it.
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

MAIN = "from gpu_checks.cli import main\n\nmain()\n"


class NoLicence(Exception):
    """A package would go into the archive without the text of its licence."""


def main() -> None:
    """The file is built, or the process ends with a message."""
    parser = argparse.ArgumentParser(description="Build gpu-check.pyz.")
    parser.add_argument("--output", required=True, metavar="FILE")
    output = parser.parse_args().output
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
    write(output, contents)


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
