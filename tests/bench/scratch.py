"""Where the benchmarks work. Nothing is deleted before the end.

ext4 is slow at making inodes for minutes after a mass deletion: that would be charged to whoever is measured next.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.trees import make_tree


@dataclass
class Scratch:
    """A directory on the disk that is measured."""

    top: Path
    _spare: list[tuple[int, Path]] = field(default_factory=list)
    _kept: dict[int, tuple[Path, Path]] = field(default_factory=dict)

    def directory(self, name: str) -> Path:
        """A new empty directory whose name begins with ``name``."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.top))

    def donate(self, tree: Path, files: int) -> None:
        """``tree`` is needed no more: its files may become a home of somebody else's."""
        if tree.is_dir():
            self._spare.append((files, tree))

    def home(self, files: int) -> Path:
        """A new home of ``files`` files of 2 KiB, 100 in each directory, made of what was donated as far as it goes."""
        home = self.directory("home")
        missing = files
        for count, tree in sorted(self._spare, reverse=True):
            if count <= missing:
                tree.rename(home / f"part{missing}")
                self._spare.remove((count, tree))
                missing -= count
        make_tree(home, missing)
        return home

    def keep(self, files: int, home: Path, persist: Path) -> None:
        """All ``files`` files of ``home`` are saved on ``persist``, for whoever needs such a pair next."""
        self._kept[files] = (home, persist)

    def kept(self, files: int) -> tuple[Path, Path] | None:
        """What ``keep`` kept."""
        return self._kept.get(files)


@contextmanager
def scratch_below(parent: Path) -> Iterator[Scratch]:
    """A scratch directory that is gone afterwards, with millions of files in it."""
    top = Path(tempfile.mkdtemp(prefix="bench-", dir=os.path.realpath(parent)))
    try:
        yield Scratch(top)
    finally:
        subprocess.run(["rm", "-rf", "--", str(top)], check=True)
