"""Finding changes: events and scans put paths where they settle, and nothing is ever copied here."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable

from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.entry import ancestors, name_of, parent
from sidecar.fsops import Tree
from sidecar.index import Index
from sidecar.outcome import Skipped
from sidecar.scan import Listing, Pruned, Scanner
from sidecar.settle import Settle
from sidecar.skips import Skips
from sidecar.watch import Changed, Watch

_SCAN_SHARE = 0.004
"""The share of one core that the periodic scan may take: a large home is scanned less often (FACTS 3)."""

_RESCAN_PAUSE = 4
"""After lost events the next scan waits for so many times what the last one took."""

_MOST_CHANGES = 200_000
"""More events than this that nobody has looked at are lost events, and not a reason to run out of memory."""

GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
"""What a look at a path says when nothing of ours is there any more."""

_MARKERS = (b"pyvenv.cfg", b"CACHEDIR.TAG")


class Finder:
    """Knows what differs from the mirror. ``changed`` and ``overflowed`` are called by the watch's thread."""

    def __init__(
        self, clock: Clock, settings: Settings, home: Tree, *, scanner: Scanner, index: Index, wake: Callable[[], None]
    ) -> None:
        self._clock, self._settings, self._home = clock, settings, home
        self._scanner, self._index, self._wake = scanner, index, wake
        self._changes: deque[Changed] = deque()
        self._overflowed = False
        self._pruned: set[bytes] = set()
        self._unwatched: set[bytes] = set()
        self.watch: Watch | None = None
        self.settle = Settle(settings.quiet_s, settings.max_delay_s)
        """What events told of."""
        self.backlog = Settle(settings.quiet_s, settings.max_delay_s)
        """What only a scan found: saved after what is fresh."""
        self.skips = Skips()
        self.unreadable: dict[bytes, str] = {}
        """Directories that could not be read: what is in them is not saved."""
        self.scanned = False
        """Whether events are all that is left to know: the whole home was read, and no event was lost since."""
        self.scan_interval_s = settings.scan_interval_s
        self.next_scan_s = clock.monotonic()
        self._scan_ended_s, self._scan_took_s = self.next_scan_s, 0.0

    def start_watching(self) -> None:
        """From the next scan on, every directory that is read is watched first."""
        self.watch = Watch(self.changed, self.overflowed)

    def changed(self, change: Changed) -> None:
        """``change`` is looked at in the next turn."""
        if len(self._changes) >= _MOST_CHANGES:
            self.overflowed()
            return
        self._changes.append(change)
        if len(self._changes) == 1:
            self._wake()

    def overflowed(self) -> None:
        """Events were lost: everything is looked at again."""
        self._overflowed = True
        self._wake()

    def take_changes(self) -> None:
        """Every delivered event waits in ``settle``; new directories are watched and read."""
        now_s = self._clock.monotonic()
        for path, appeared in self._take_delivered().items():
            if self._scanner.skip_name(path) or self.is_pruned(path):
                continue
            self.settle.touch(path, now_s)
            if appeared:
                self._read_tree(path, now_s)
            elif name_of(path) in _MARKERS:
                self._read_tree(parent(path), now_s)
        if self._overflowed:
            self._overflowed = False
            self.scanned = False
            # Whoever causes one overflow after the other must not make us scan, and do nothing else.
            self.next_scan_s = min(self.next_scan_s, max(now_s, self._scan_ended_s + _RESCAN_PAUSE * self._scan_took_s))

    def _take_delivered(self) -> dict[bytes, bool]:
        """Each changed path once, with whether it appeared; not what comes meanwhile, for that may never end."""
        delivered: dict[bytes, bool] = {}
        for _ in range(len(self._changes)):
            change = self._changes.popleft()
            delivered[change.path] = change.appeared or delivered.get(change.path, False)
        return delivered

    def catch_up(self, timeout_s: float) -> None:
        """Every event of a change made before this call waits in ``settle``, or is known to be lost."""
        if self.watch is not None and not self.watch.catch_up(timeout_s):
            self.scanned = False
        self.take_changes()

    def scan(self) -> None:
        """Every directory was read; what differs from the mirror waits in ``backlog``."""
        started_s = self._clock.monotonic()
        self.skips.begin()
        self.unreadable.clear()
        self._pruned.clear()
        self._read_tree(b"", started_s)
        self.skips.complete()
        self.scanned = True
        ended_s = self._clock.monotonic()
        self.scan_interval_s = max(self._settings.scan_interval_s, (ended_s - started_s) / _SCAN_SHARE)
        self._scan_ended_s, self._scan_took_s = ended_s, ended_s - started_s
        self.next_scan_s = ended_s + self.scan_interval_s

    def scan_unwatched(self) -> None:
        """The directories that give no events were read, and what is new in them to the bottom."""
        waiting = sorted({*self._unwatched, *self.unreadable})
        known, now_s = set(waiting), self._clock.monotonic()
        while waiting:
            for below in self._read_directory(waiting.pop(), now_s):
                if below not in known and not (self.watch is not None and self.watch.is_on(below)):
                    known.add(below)
                    waiting.append(below)
            self._home.forget()

    def is_pruned(self, path: bytes) -> bool:
        """Whether ``path`` is, or is in, a directory that is left out for what is in it."""
        if not self._pruned:
            return False
        return path in self._pruned or any(above in self._pruned for above in ancestors(path))

    def forget_directory(self, path: bytes) -> None:
        """The directory ``path`` is gone: it is not watched any more."""
        if self.watch is not None:
            self.watch.remove(path)

    def _read_tree(self, top: bytes, now_s: float) -> None:
        # One time for all of it: of a directory that was moved, the old name and the new are then due together.
        waiting = [top]
        while waiting:
            directory = waiting.pop()
            waiting += self._read_directory(directory, now_s)
            self._home.forget(directory or None)

    def _read_directory(self, directory: bytes, now_s: float) -> list[bytes]:
        """What differs in ``directory`` waits in ``backlog``; the directories in it that matter."""
        try:
            if self.watch is not None:
                # Watch first, then read: what is made in between is seen twice, not never.
                watched = self.watch.add(directory, self._home.directory(directory))
                (self._unwatched.discard if watched else self._unwatched.add)(directory)
            listing = self._scanner.read(directory)
        except OSError as error:
            if error.errno in GONE:
                self._unwatched.discard(directory)
                self._found(directory, now_s)
            else:
                self.unreadable[directory] = f"cannot be read: {error.strerror}"
            return []
        self.unreadable.pop(directory, None)
        if isinstance(listing, Pruned):
            self._pruned.add(directory)
            self.skips.add(Skipped(directory, listing.reason))
            self.forget_directory(directory)
            return []
        self._compare(directory, listing, now_s)
        return listing.directories

    def _compare(self, directory: bytes, listing: Listing, now_s: float) -> None:
        for path, entry in listing.kept:
            known = self._index.get(path)
            if known is None or not known.same_as(entry) or not self._index.is_held(path):
                self._found(path, now_s)
        for skipped in listing.skipped:
            self.skips.add(skipped)
        prefix = directory + b"/" if directory else b""
        for name in self._index.names(directory):
            if name not in listing.names and self._index.is_held(prefix + name):
                self._found(prefix + name, now_s)

    def _found(self, path: bytes, now_s: float) -> None:
        if path not in self.settle:
            self.backlog.touch(path, now_s)

    def look_again(self, paths: Iterable[bytes]) -> None:
        """``paths`` wait, whatever is known of them."""
        now_s = self._clock.monotonic()
        for path in paths:
            self._found(path, now_s)

    def take_waiting(self) -> list[bytes]:
        """Everything that was found and not yet taken, settled or not; nothing waits any more."""
        return list(dict.fromkeys([*self.settle.take_all(), *self.backlog.take_all()]))

    def close(self) -> None:
        """Nothing is watched any more."""
        if self.watch is not None:
            self.watch.close()
            self.watch = None
