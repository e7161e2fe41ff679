"""A file system that is slow, fails, fills or hangs as it is told, while it is mounted. The program is C: see there.

It passes everything through to a directory, so that a test sees what lies on it without touching the mount. A process
that waits for it while it hangs is in D state, and nothing but an answer ends that: ``close`` gives one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pytest

_SOURCES = Path(__file__).with_name("passthrough")
_HEADER = Path("/usr/include/linux/fuse.h")

ALL = ("all",)
WRITING = (
    *("create", "write", "fsync", "fsyncdir", "rename", "unlink", "mkdir", "rmdir", "link", "symlink", "mknod"),
    *("truncate", "chmod", "chown", "utimens"),
)


def build(directory: Path) -> Path:
    """The program, compiled. Skips the test where that, or a FUSE mount, is not possible."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("there is no /dev/fuse to open here")
    if shutil.which("gcc") is None or not _HEADER.exists():
        pytest.skip(f"gcc and {_HEADER} are needed to compile the file system")
    program = directory / "passthrough"
    flags = ["-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
    subprocess.run(["gcc", *flags, *sorted(_SOURCES.glob("*.c")), "-o", program], check=True)
    return program


class PassThrough:
    """``backing`` mounted at ``point``, from its making to ``close``. Well until it is told otherwise."""

    def __init__(self, program: Path, *, prefix: Sequence[str], backing: Path, point: Path, rules: Path) -> None:
        """``prefix`` begins a command in the mount namespace that ``backing`` and ``point`` are of. ``rules`` is a file
        outside the mount."""
        self._rules = rules
        self.well()
        self._server = subprocess.Popen(
            [*prefix, program, backing, point, rules], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        assert self._server.stdout is not None
        if self._server.stdout.readline() != b"ready\n":
            self.close()
            pytest.skip("a FUSE file system cannot be mounted here")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Whoever waits for the file system gets ENOTCONN, and so does everybody from now on."""
        self._server.kill()
        self._server.wait()
        assert self._server.stdout is not None
        self._server.stdout.close()

    # Each of these replaces what was told before, from the next operation on. The names of operations are in rules.c.

    def well(self) -> None:
        """Nothing fails, nothing waits: what hung goes on."""
        self._tell()

    def slow(self, latency_s: float) -> None:
        """Every operation takes so much longer."""
        self._tell(f"all latency_us {round(latency_s * 1e6)}")

    def fail(self, error: int, operations: Sequence[str]) -> None:
        """Each of ``operations`` is answered with the errno ``error``."""
        self._tell(*(f"{name} errno {error}" for name in operations))

    def fill(self, most_bytes: int) -> None:
        """All files together hold so many bytes at most; what is more is ENOSPC."""
        self._tell(f"all budget {most_bytes}")

    def hang(self, operations: Sequence[str]) -> None:
        """Each of ``operations`` is answered when something else is told."""
        self._tell(*(f"{name} hang 1" for name in operations))

    def _tell(self, *lines: str) -> None:
        fresh = self._rules.with_suffix(".new")
        fresh.write_text("".join(f"{line}\n" for line in lines))
        fresh.replace(self._rules)
