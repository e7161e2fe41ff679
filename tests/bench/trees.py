"""Trees of small files to measure on."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

FILES_PER_DIRECTORY = 100
FILE_BYTES = 2048


def make_tree(root: Path, files: int) -> list[Path]:
    """``files`` files of 2 KiB of random text below ``root``, 100 in each directory."""
    rng = random.Random(files)
    paths = []
    for number in range(files):
        directory = root / f"project{number // (FILES_PER_DIRECTORY * 20)}" / f"run{number // FILES_PER_DIRECTORY}"
        if number % FILES_PER_DIRECTORY == 0:
            directory.mkdir(parents=True)
        path = directory / f"result{number}.txt"
        path.write_bytes(rng.randbytes(FILE_BYTES // 2).hex().encode())
        paths.append(path)
    return paths


def change(paths: Sequence[Path], count: int, seed: int) -> list[Path]:
    """``count`` of ``paths``, spread over the tree, have new content of the same size."""
    rng = random.Random(seed)
    chosen = rng.sample(list(paths), count)
    for path in chosen:
        path.write_bytes(os.urandom(FILE_BYTES // 2).hex().encode())
    return chosen
