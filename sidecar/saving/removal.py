"""What is gone from the home leaves the mirror, as versions; unless so much is gone that somebody has to say so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from sidecar.backup.store import Store
from sidecar.clock import Clock
from sidecar.entry import Entry, Kind, ancestors
from sidecar.saving.brake import Brake

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 10.0
"""Between two looks at all that is braked: it can be very much, and nothing changes until somebody says so."""

_MOST_ARRIVED = 100_000
"""Of so many files it is remembered that they have just been saved: more are a first backup, not a move."""


class Removal:
    """Deletions and the brake. ``is_gone`` looks at the home; ``on_removed`` hears of every path that has left.

    For the one thread that uses ``store``, and hears from it what is saved.
    """

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
        self._arrived: dict[int, None] = {}
        """What was saved since the last removal, each by what a move leaves as it is."""
        self._arrived_too_many = False
        self._held = store.index.held_files
        """How many files there were at the last removal: what was made since is no part of what can vanish."""
        self._braked_at_s = 0.0
        self._look_at_s = 0.0
        self.braked: set[bytes] = set()
        """Deletions that wait to be accepted."""
        store.on_safe = self._saved

    def _saved(self, files: Iterable[tuple[bytes, Entry]]) -> None:
        for path, entry in files:
            if entry.kind is not Kind.DIRECTORY:
                self._arrived[_mark(entry)] = None
            if self.braked and not self.braked.isdisjoint((path, *ancestors(path))):
                self._look_at_s = self._clock.monotonic()  # it has come back
        while len(self._arrived) > _MOST_ARRIVED:
            self._arrived_too_many = True
            del self._arrived[next(iter(self._arrived))]

    def remove(self, gone: dict[bytes, None]) -> None:
        """What is really gone has left the mirror, or is braked; ``gone`` is then empty.

        Raises ``DestinationError``; then it is as it was.
        """
        if self.braked and self._clock.monotonic() < self._look_at_s and self.braked.isdisjoint(gone):
            self.braked.update(filter(self._is_gone, gone))
        elif gone or self.braked:
            self._remove_or_brake([*gone, *self.braked])
        gone.clear()
        self._begin_anew()

    def _remove_or_brake(self, paths: Iterable[bytes]) -> None:
        index = self._store.index
        paths = [path for path in dict.fromkeys(paths) if self._is_gone(path)]
        doomed = self._held_below(paths)
        files = [
            path
            for path in doomed
            if (entry := index.get(path)) and entry.kind is not Kind.DIRECTORY and _mark(entry) not in self._arrived
        ]
        now_s = self._clock.monotonic()
        held = index.held_files if self._arrived_too_many else min(self._held, index.held_files)
        # Under the brake no time passes: it lets go when somebody says so, or when the files are back.
        if self._brake.allows(files, held, self._braked_at_s if self.braked else now_s):
            self._take_out(paths, doomed)
            self._brake.note(files, now_s)
            return
        if not self.braked:
            self._braked_at_s = now_s
            log.error(
                "%d of %d files vanished at once: nothing leaves the backup until you accept it", len(files), held
            )
        self.braked = set(paths)
        self._look_at_s = now_s + _LOOK_EVERY_S

    def _begin_anew(self) -> None:
        """What arrives from here on has arrived since the last removal."""
        self._arrived.clear()
        self._arrived_too_many = False
        if not self.braked:
            self._held = self._store.index.held_files

    def accept(self) -> None:
        """What the brake holds back has left the mirror. Raises ``DestinationError``."""
        paths = [path for path in self.braked if self._is_gone(path)]
        self._take_out(paths, self._held_below(paths))
        self._brake = Brake()
        self._begin_anew()

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


def _mark(entry: Entry) -> int:
    """The same for a file under another name; another for one that has got its inode since. It can be very many."""
    return hash((entry.ino, entry.size, entry.mtime_ns))
