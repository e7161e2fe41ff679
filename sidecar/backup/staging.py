"""What is staged for the mirror: it is put in place, or nothing of it stays. Many at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from operator import itemgetter

from sidecar.backup.place import Place
from sidecar.copy import Staged
from sidecar.crew import Crew
from sidecar.entry import name_of
from sidecar.fsops import FileSystem


class Staging:
    """In the staging directory and in the mirror of ``place``. For one thread, which waits for the crew."""

    def __init__(self, fs: FileSystem, place: Place, crew: Crew) -> None:
        self._fs, self._place, self._crew = fs, place, crew

    def put_in_place(self, staged: Sequence[Staged]) -> None:
        """All of it stands in the mirror, not yet durably. One thread does it in its order.

        What was open of the mirror before may be closed. Raises ``OSError``.
        """
        by_path = {item.path: item for item in staged}
        for part in self._place.parts(by_path):
            placed = zip(map(by_path.__getitem__, part), self._place.directories(part), strict=True)
            self._crew.map(self._put_one, list(placed), apart=itemgetter(1))

    def _put_one(self, placed: tuple[Staged, int]) -> None:
        item, above = placed
        source = above if item.beside else self._place.staging_fd
        self._fs.rename(item.name, name_of(item.path), source_at=source, target_at=above)

    def discard(self, staged: Iterable[Staged]) -> None:
        """What will not be put in place is gone, or is swept at the next start."""
        beside: dict[bytes, Staged] = {}
        for item in staged:
            if item.beside:
                beside[item.path] = item
            else:
                self._discard_one((item, self._place.staging_fd))
        for part in self._place.parts(beside):
            with suppress(OSError):
                placed = zip(map(beside.__getitem__, part), self._place.directories(part), strict=True)
                self._crew.map(self._discard_one, list(placed), apart=itemgetter(1))

    def _discard_one(self, placed: tuple[Staged, int]) -> None:
        with suppress(OSError):
            self._fs.unlink(placed[0].name, at=placed[1])
