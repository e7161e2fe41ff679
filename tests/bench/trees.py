"""Trees of small files to measure on, changes in them, and the proof that a copy of them is complete."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FILES_PER_DIRECTORY = 100
FILE_BYTES = 2048
_CONTENTS_CHECKED = 2_000


class IncompleteCopyError(Exception):
    """A copy that was called complete is not: its figures would mean nothing."""


@dataclass(frozen=True)
class Tree:
    """``files`` files below ``root``. Names are computed, so that a million of them take no memory."""

    root: Path
    files: int
    per_directory: int = FILES_PER_DIRECTORY

    def name(self, number: int) -> str:
        """The path of a file, relative to the root."""
        run = number // self.per_directory
        return f"project{run // 20}/run{run}/result{number}.txt"


def make_tree(root: Path, files: int, per_directory: int = FILES_PER_DIRECTORY) -> Tree:
    """``files`` files of 2 KiB of random text below ``root``, so many in each directory."""
    tree = Tree(root, files, per_directory)
    rng = random.Random(files)
    for number in range(files):
        path = f"{root}/{tree.name(number)}"
        if number % per_directory == 0:
            os.makedirs(os.path.dirname(path))
        _write(path, rng.randbytes(FILE_BYTES // 2).hex().encode())
    return tree


def change(tree: Tree, count: int, seed: int) -> list[int]:
    """``count`` files, spread over the tree, have new content of the same size; their numbers."""
    chosen = random.Random(seed).sample(range(tree.files), count)
    for number in chosen:
        _write(f"{tree.root}/{tree.name(number)}", os.urandom(FILE_BYTES // 2).hex().encode())
    return chosen


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


def check_copy(tree: Tree, copy: Path, numbers: Iterable[int] | None = None) -> None:
    """``copy`` has these files of ``tree``, byte for byte. Raises ``IncompleteCopyError``.

    Without ``numbers`` every file is there with the same size and time, and the contents of a sample are the same.
    """
    if numbers is None:
        for number in range(tree.files):
            _check_status(f"{tree.root}/{tree.name(number)}", f"{copy}/{tree.name(number)}")
        numbers = random.Random(tree.files).sample(range(tree.files), min(tree.files, _CONTENTS_CHECKED))
    for number in numbers:
        path = tree.root / tree.name(number)
        copied = copy / tree.name(number)
        if not copied.is_file() or copied.read_bytes() != path.read_bytes():
            raise IncompleteCopyError(f"{copied} is not what {path} is")


def _check_status(path: str, copied: str) -> None:
    there = os.stat(path)
    try:
        here = os.stat(copied, follow_symlinks=False)
    except FileNotFoundError:
        raise IncompleteCopyError(f"{copied} is missing") from None
    if (here.st_size, here.st_mtime_ns) != (there.st_size, there.st_mtime_ns):
        raise IncompleteCopyError(f"{copied} has another size or time than {path}")
