"""What is gone from the home leaves the mirror, as versions; unless so much is gone that somebody has to say so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from sidecar.backup.store import Store
from sidecar.clock import Clock
from sidecar.entry import Kind
from sidecar.saving.brake import Brake

log = logging.getLogger(__name__)


class Removal:
    """Deletions and the brake. ``is_gone`` looks at the home; ``on_removed`` hears of every path that has left."""

    def __init__(
        self,
        clock: Clock,
        store: Store,
        *,
        is_gone: Callable[[bytes], bool],
        on_removed: Callable[[bytes, bool], None],
    ) -> None:
        self._clock, self._store = clock, store
        self._is_gone, self._on_removed = is_gone, on_removed
        self._brake = Brake()
        self._arrived: set[int] = set()
        self.braked: set[bytes] = set()
        """Deletions that wait to be accepted."""

    def arrived(self, inode: int) -> None:
        """A file of this inode was saved: what is gone under another name since the last removal was moved."""
        self._arrived.add(inode)

    def remove(self, gone: dict[bytes, None]) -> None:
        """What is really gone has left the mirror, or is braked; ``gone`` is then empty.

        Raises ``DestinationError``; then it is as it was.
        """
        if not gone and not self.braked:
            self._arrived.clear()
            return
        index = self._store.index
        paths = [path for path in dict.fromkeys([*gone, *self.braked]) if self._is_gone(path)]
        doomed = self._held_below(paths)
        files = [
            path
            for path in doomed
            if (entry := index.get(path)) and entry.kind is not Kind.DIRECTORY and entry.ino not in self._arrived
        ]
        now_s = self._clock.monotonic()
        if not self._brake.allows(len(files), index.held_files, now_s):
            if not self.braked:
                log.error(
                    "%d of %d files vanished at once: nothing leaves the backup until you accept it",
                    len(files),
                    index.held_files,
                )
            self.braked.update(paths)
        else:
            self._take_out(paths, doomed)
            self._brake.note(len(files), now_s)
        gone.clear()
        self._arrived.clear()

    def accept(self) -> None:
        """What the brake holds back has left the mirror. Raises ``DestinationError``."""
        paths = [path for path in self.braked if self._is_gone(path)]
        self._take_out(paths, self._held_below(paths))
        self._brake = Brake()

    def _take_out(self, paths: Iterable[bytes], doomed: Sequence[bytes]) -> None:
        index = self._store.index
        directories = {path for path in paths if (entry := index.get(path)) and entry.kind is Kind.DIRECTORY}
        self._store.remove(doomed)
        self.braked.clear()
        for path in doomed:
            self._on_removed(path, path in directories)

    def _held_below(self, paths: Iterable[bytes]) -> list[bytes]:
        index = self._store.index
        found = (below for path in paths for below in [*index.below(path), path])
        return [path for path in dict.fromkeys(found) if index.is_held(path)]
