"""What the watch has told and nobody has looked at yet: one entry for each path, however much happened to it."""

from __future__ import annotations

import threading

from sidecar.backup.moves import Move
from sidecar.home.watch import What

_MOST = 50_000
"""More paths than this that wait are lost events, and not a reason to run out of memory."""


class Changes:
    """Filled by the watch's thread, emptied by the finder's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paths: dict[bytes, What] = {}
        self._moves: list[Move] = []
        self._lost = False

    def add(self, path: bytes, what: What) -> bool:
        """``what`` happened to ``path``; whether it is the first thing that waits."""
        with self._lock:
            known = self._paths.get(path)
            if known is None:
                if len(self._paths) >= _MOST:
                    self._lost = True
                    return False
                self._paths[path] = what
                return len(self._paths) == 1
            if what is What.CLOSED:
                known &= ~What.WRITTEN
            elif what is What.WRITTEN:
                known &= ~What.CLOSED
            self._paths[path] = known | what
            return False

    def add_move(self, move: Move) -> None:
        """A directory was renamed."""
        with self._lock:
            self._moves.append(move)

    def lose(self) -> None:
        """Events were lost."""
        with self._lock:
            self._lost = True

    def paths(self) -> list[bytes]:
        """What waits, in the order in which it came."""
        with self._lock:
            return list(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def take(self) -> tuple[dict[bytes, What], list[Move], bool]:
        """The changed paths, the moved directories, and whether anything was lost; nothing waits any more."""
        with self._lock:
            taken = self._paths, self._moves, self._lost
            self._paths, self._moves, self._lost = {}, [], False
            return taken
