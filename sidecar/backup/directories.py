"""The open directories of Persist, and never more of them than the process can spare.

A batch can touch any number of directories, and there are only so many descriptors. So whoever works on many paths does
it in ``parts``, and whoever makes many directories makes room before each: what is closed is opened again by its path.
Closing takes no durability with it: what has to be synced is known by path, and a sync of a directory, or of the whole
file system, covers what was done through a descriptor that is closed by now.
"""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from typing import TypeVar

from sidecar.crew import Crew
from sidecar.entry import name_of, parent
from sidecar.fsops import DIRECTORY_FLAGS, FileSystem, Tree

_MOST = 4096
_SHARE = 4
"""One in so many of the descriptors that the process may have: a batch also needs them for the home and for files."""
_LEAST = 16
_WORTH_OPENING = 4
"""A directory with so many that are to be opened in it is opened too, and stays so."""
_PER_PATH = 2
"""One directory in the mirror, and one among the versions."""

T = TypeVar("T")


def most_open() -> int:
    """How many directories of Persist may be open at once, under the process's limit as it is now."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(_LEAST, min(_MOST, limit // _SHARE))


class Directories(Tree):
    """A tree whose users keep it small. Not for use by several threads."""

    def __init__(self, fs: FileSystem, root_fd: int) -> None:
        super().__init__(fs, root_fd)
        self._most = most_open()

    def make_room(self, count: int = 1) -> None:
        """``count`` more can be opened. What was open may be closed: only for when nobody holds a descriptor."""
        if len(self) + count > self._most:
            self.forget()

    @property
    def most(self) -> int:
        """So many directories are never open at once."""
        return self._most

    def is_open(self, path: bytes) -> bool:
        """Whether ``directory`` gives it without a call."""
        return path in self._open

    def open_all(self, paths: Iterable[bytes], crew: Crew) -> None:
        """Those of the directories ``paths`` that are there are open, where the crew can open many at a time.

        What cannot be opened is left to ``directory``, to say why. There must be room for ``paths``, and somewhat more.
        """
        if crew.size == 1:
            return
        waiting = sorted({path for path in paths if path not in self._open}, key=lambda path: path.count(b"/"))
        siblings = Counter(map(parent, waiting))
        for _, level in groupby(waiting, key=lambda path: path.count(b"/")):
            together = []
            for path in level:
                above = parent(path)
                if above not in self._open and siblings[above] >= _WORTH_OPENING:
                    with suppress(OSError):
                        self.directory(above)
                if above in self._open:
                    together.append(path)
            opened = crew.map(lambda path: self._try_to_open(path, self._open[parent(path)]), together)
            self._open.update((path, fd) for path, fd in zip(together, opened, strict=True) if fd is not None)

    def _try_to_open(self, path: bytes, above: int) -> int | None:
        try:
            return self._fs.open(name_of(path), DIRECTORY_FLAGS, at=above)
        except OSError:
            return None

    def parts(self, items: Iterable[T], directory_of: Callable[[T], bytes]) -> Iterator[list[T]]:
        """``items`` in their order, in lists with so few directories that those can be open at once.

        While one list is worked on, the directories of its items, and of their versions, can be opened and stay open;
        what was opened for the list before may be closed.
        """
        part: list[T] = []
        directories: set[bytes] = set()
        for item in items:
            directory = directory_of(item)
            if directory not in directories and len(directories) == self._most // (2 * _PER_PATH):
                self.make_room(_PER_PATH * len(directories))
                yield part
                part, directories = [], set()
            part.append(item)
            directories.add(directory)
        if part:
            self.make_room(_PER_PATH * len(directories))
            yield part
