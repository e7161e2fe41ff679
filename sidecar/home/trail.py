"""Walking the home, deepest first: what is open on the way down stays so, and each directory is one step away."""

from __future__ import annotations

from sidecar.fsops import Tree
from sidecar.home.scan import Pruned, Scanner
from sidecar.home.watch import Watch

_MOST = 64
"""Deeper down the way begins at the home again: a home can be deeper than a process may have descriptors."""


class Trail:
    """The open directories from the home to the one that is looked at.

    What is renamed in the home while a trail leads through it is met under its old path once more, as in a walk that
    was there just before: the event tells of it. So a trail ends with each slice of a walk.
    """

    def __init__(self, home: Tree) -> None:
        self._home = home
        self._open: list[bytes] = []

    def step(self, directory: bytes) -> int:
        """A descriptor of ``directory``, valid until the next step. Raises ``OSError``, as ``Tree.directory`` does."""
        trail = self._open
        while trail and not directory.startswith(trail[-1] + b"/"):
            self._home.release(trail.pop())
        if len(trail) == _MOST:
            self._home.release(trail.pop())
        fd = self._home.directory(directory)
        if directory:
            trail.append(directory)
        return fd

    def end(self) -> None:
        """Nothing of ``home`` is open any more."""
        self._open.clear()
        self._home.forget()


def walk_names(scanner: Scanner, trail: Trail, watch: Watch | None = None) -> dict[bytes, int]:
    """How many files each directory that is to be saved holds; with a ``watch`` it is watched, as far as it can be.

    No file is looked at, and what cannot be read is passed over: the walk will say why.
    """
    files: dict[bytes, int] = {}
    waiting = [b""]
    while waiting:
        directory = waiting.pop()
        try:
            fd = trail.step(directory)
            if watch is not None:
                watch.add(directory, fd)
            names = scanner.read_names(directory)
        except OSError:
            continue
        if isinstance(names, Pruned):
            if watch is not None:
                watch.remove(directory)
            continue
        if names.files:
            files[directory] = len(names.files)
        waiting += names.directories
    trail.end()
    return files
