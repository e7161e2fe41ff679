"""Finding changes: events and walks put paths where they wait to be looked at, and nothing is ever copied here."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from itertools import islice

from sidecar.backup.index import Index
from sidecar.backup.moves import Move
from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.entry import Entry, join, name_of, parent
from sidecar.fsops import Tree
from sidecar.home.arrivals import Arrivals
from sidecar.home.changes import Changes
from sidecar.home.mapped import Mapped
from sidecar.home.scan import Listing, Pruned, Scanner
from sidecar.home.settle import Settle
from sidecar.home.skips import Skips
from sidecar.home.survey import Survey
from sidecar.home.trail import Trail, walk_names
from sidecar.home.watch import Watch, What
from sidecar.outcome import Skipped
from sidecar.sqlite.databases import Databases

_SCAN_SHARE = 0.004
"""The share of one core that the periodic walk may take: a large home is walked less often (FACTS 3)."""

_WALK_PATH_S = 10e-6
"""What a walk takes for every path, measured; for the interval before the first walk over what is there now."""

_SLICE_S = 0.05
"""A walk pauses after so long, for what is fresh."""

_RESCAN_PAUSE = 4
"""After lost events the next walk waits for so many times what the last one took."""

_ENOUGH = 8192
"""A walk pauses when so much that it found waits to be saved: a first backup must not fill the memory."""

GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
"""What a look at a path says when nothing of ours is there any more."""

_MARKERS = (b"pyvenv.cfg", b"CACHEDIR.TAG")


class Finder:
    """Knows what differs from the mirror. The watch's thread calls ``changed``, ``moved`` and ``overflowed``."""

    def __init__(
        self,
        clock: Clock,
        settings: Settings,
        home: Tree,
        *,
        scanner: Scanner,
        databases: Databases,
        index: Index,
        wake: Callable[[], None],
    ) -> None:
        self._clock, self._settings, self._home = clock, settings, home
        self.databases = databases
        self._scanner, self._index, self._wake = scanner, index, wake
        self._changes = Changes()
        self._survey = Survey()
        self._trail = Trail(home)
        self._walk: _Walk | None = None
        self._unseen: dict[bytes, int] = {}
        self.watch: Watch | None = None
        self.settle = Settle(settings.quiet_s, settings.max_delay_s)
        """What events told of, and what a walk found in the middle of a change."""
        self.backlog: dict[bytes, Entry | None] = {}
        """What a walk found, as it was then, and what came in a mass: saved after what is fresh."""
        self.moves: list[Move] = []
        """Directories that were renamed: for the saver, who says ``read_moved`` then."""
        self._arrivals = Arrivals(index, scanner)
        self._mapped = Mapped()
        self.skips = Skips()
        self.written_s = float("-inf")
        """When an event last told of a change that no look of ours can have caused, on the monotonic clock."""
        self.scanned = False
        """Whether events are all that is left to know: the whole home was read, and no event was lost since."""
        self.scan_interval_s = settings.scan_interval_s
        self.next_scan_s = clock.monotonic()
        self._scan_ended_s, self._scan_took_s = self.next_scan_s, 0.0

    # What the watch tells.

    def changed(self, path: bytes, what: What) -> None:
        """What happened to ``path`` is looked at in the next turn."""
        if self._changes.add(path, what):
            self._wake()

    def moved(self, old: bytes, new: bytes) -> None:
        """The directory ``old`` is ``new`` now."""
        self._changes.add_move(Move(self._clock.now_ns(), old, new))

    def overflowed(self) -> None:
        """Events were lost: everything is looked at again."""
        self._changes.lose()
        self._wake()

    def take_changes(self) -> None:
        """Every delivered event waits in ``settle``; new directories are watched and read."""
        now_s = self._clock.monotonic()
        paths, moves, lost = self._changes.take()
        arrived = {move.new for move in moves}
        self._arrivals.departed([path for path, what in paths.items() if what & What.DEPARTED], now_s)
        self.moves += [move for move in moves if not self.is_left_out(move.new)]
        for path, what in paths.items():
            if self.is_left_out(path):
                continue
            if what & What.WRITTEN:
                self._mapped.opened(path)
            elif what & What.CLOSED:
                self._mapped.closed(path, now_s)
            if path in arrived:
                continue  # read when it has been moved in the mirror
            self.settle.touch(path, now_s)
            # To read a database can write to it.
            if path not in self.databases and self.databases.companion(path) is None:
                self.written_s = now_s
            if what & What.APPEARED:
                self._read_tree(path)
            elif name_of(path) in _MARKERS:
                self._read_tree(parent(path))
        if lost:
            self.scanned = False
            # Whoever causes one overflow after the other must not make us walk, and do nothing else.
            self._walk_soon(max(now_s, self._scan_ended_s + _RESCAN_PAUSE * self._scan_took_s))

    def reload_rules(self) -> None:
        """The user edited what is left out: if that changes anything, everything is looked at again."""
        if self._scanner.load_rules():
            self.scanned = False
            self._walk_soon(self._clock.monotonic())

    def _walk_soon(self, at_s: float) -> None:
        if self._walk is not None:
            self._walk.is_stale = True
        self.next_scan_s = min(self.next_scan_s, at_s)

    def catch_up(self, timeout_s: float) -> None:
        """Every event of a change made before this call waits in ``settle``, or is known to be lost."""
        if self.watch is not None and not self.watch.catch_up(timeout_s):
            self.scanned = False
        self.take_changes()

    def is_left_out(self, path: bytes) -> bool:
        """Whether ``path`` is left out, or is in a directory that is, by its name or for what is in it."""
        return self._scanner.skip_name(path) is not None

    def may_be_mapped(self, path: bytes) -> bool:
        """Whether ``path`` may be written without any event: somebody had it open, or a walk found it changed."""
        return path in self._mapped

    def mapped(self) -> list[bytes]:
        """The paths that may have changed without any event."""
        return self._mapped.paths()

    # Walking.

    def start_watching(self) -> None:
        """Every directory is watched from now on. The files in them are counted, and looked at by the first walk."""
        self.watch = Watch(self)
        self._scanner.load_rules()
        self._unseen = walk_names(self._scanner, self._trail, self.watch)

    @property
    def untold(self) -> int:
        """How many paths events have told of that ``take_changes`` has not taken yet. For any thread."""
        return len(self._changes)

    def untold_paths(self) -> list[bytes]:
        """Those paths, as far as they are to be saved."""
        return [path for path in self._changes.paths() if not self.is_left_out(path)]

    @property
    def unseen(self) -> int:
        """How many files nobody has looked at since the start, or a loss of events; 0 where the home is known."""
        return sum(self._unseen.values()) or int(not self.scanned)

    @property
    def unseen_in(self) -> dict[bytes, int]:
        """The directories whose files nobody has looked at since the start, with their number."""
        return self._unseen

    def walk_due(self, now_s: float, saving: int) -> bool:
        """Whether ``walk`` has something to do while ``saving`` paths wait to be saved."""
        if self._walk is None and self.scanned:
            # The home may have grown since the last walk, which took less time than the next one will.
            pause_s = len(self._index) * _WALK_PATH_S / _SCAN_SHARE
            self.next_scan_s = max(self.next_scan_s, self._scan_ended_s + pause_s)
        return (self._walk is not None or now_s >= self.next_scan_s) and len(self.backlog) + saving < _ENOUGH

    def walk(self) -> None:
        """A slice of the periodic walk: it finds what gave no event."""
        if self._walk is None:
            self.begin_walk()
        self._step_walk(_SLICE_S)

    @property
    def is_walking(self) -> bool:
        """Whether a walk has begun and not ended."""
        return self._walk is not None

    def scan(self) -> None:
        """Every directory was read since this call; what differs from the mirror waits."""
        self.begin_walk()
        self.finish_walk()

    def finish_walk(self) -> None:
        """The walk that has begun has ended, however much waits then."""
        while self._walk is not None:
            self._step_walk(float("inf"))

    def begin_walk(self) -> None:
        """From now on every directory is read, by ``walk``."""
        self._scanner.load_rules()
        self.skips.begin()
        self._walk = _Walk()
        self._scan_took_s = 0.0
        self.next_scan_s = float("inf")

    def _step_walk(self, seconds: float) -> None:
        walk = self._walk
        assert walk is not None
        started_s = now_s = self._clock.monotonic()
        while walk.waiting and now_s - started_s < seconds and len(self.backlog) < walk.enough(seconds):
            walk.waiting += self._read_directory(walk.waiting.pop())
            now_s = self._clock.monotonic()
        self._scan_took_s += now_s - started_s
        if not walk.waiting:
            self._end_walk(walk, now_s)

    def _end_walk(self, walk: _Walk, now_s: float) -> None:
        self._walk = None
        self._survey = walk.survey
        self._unseen.clear()
        self._mapped.walked(now_s, self.scan_interval_s)
        self.skips.complete()
        self.scanned = not walk.is_stale
        self._scan_ended_s = now_s
        self.scan_interval_s = max(self._settings.scan_interval_s, self._scan_took_s / _SCAN_SHARE)
        pause_s = _RESCAN_PAUSE * self._scan_took_s if walk.is_stale else self.scan_interval_s
        self.next_scan_s = now_s + pause_s

    def scan_unwatched(self) -> None:
        """The directories that give no events were read, and what is new in them to the bottom."""
        waiting = sorted(self._survey.silent)
        known = set(waiting)
        while waiting:
            for below in self._read_directory(waiting.pop()):
                if below not in known and not (self.watch is not None and self.watch.is_on(below)):
                    known.add(below)
                    waiting.append(below)

    def read_moved(self, new: bytes) -> None:
        """The directory that was moved to ``new`` is watched under this name, and what differs in it waits."""
        self._read_tree(new)

    def forget_directory(self, path: bytes) -> None:
        """The directory ``path`` is gone: it is not watched any more."""
        if self.watch is not None:
            self.watch.remove(path)

    def _read_tree(self, top: bytes) -> None:
        waiting = [top]
        while waiting:
            waiting += self._read_directory(waiting.pop())

    def _surveys(self) -> list[Survey]:
        return [self._survey] if self._walk is None else [self._survey, self._walk.survey]

    def _read_directory(self, directory: bytes) -> list[bytes]:
        """What differs in ``directory`` waits; the directories in it that matter."""
        self._unseen.pop(directory, None)
        surveys = self._surveys()
        for survey in surveys:
            survey.forget(directory)
        try:
            # Watch first, then read: what is made in between is seen twice, not never.
            if self.watch is not None and not self.watch.add(directory, self._home.directory(directory)):
                for survey in surveys:
                    survey.unwatched.add(directory)
            listing = self._scanner.read(directory)
        except OSError as error:
            for survey in surveys:
                survey.forget(directory)
                if error.errno not in GONE:
                    survey.unreadable[directory] = f"cannot be read: {error.strerror}"
            if error.errno in GONE:
                self.backlog[directory] = None
            return []
        finally:
            self._home.forget(directory or None)
        if isinstance(listing, Pruned):
            for survey in surveys:
                survey.forget(directory)
            self.skips.add(Skipped(directory, listing.reason))
            self.forget_directory(directory)
            return []
        is_expected = any(move.new == directory for move in self.moves)
        if not is_expected and (old := self._arrivals.origin(directory)) is not None:
            self.moves.append(Move(self._clock.now_ns(), old, directory))
            return []  # read when it has been moved in the mirror
        self._compare(directory, listing)
        return listing.directories

    def _compare(self, directory: bytes, listing: Listing) -> None:
        for skipped in listing.skipped:
            self.skips.add(skipped)
        for skipped in self.databases.fold(directory, listing.found):
            self.skips.add(skipped)
        changed, missing = self._index.compare(directory, listing.found)
        fresh_ns = self._clock.now_ns() - round(self._settings.quiet_s * 1e9)
        for name in changed:
            self._found(join(directory, name), listing.found[name], fresh_ns)
        for name in missing:
            if name not in listing.names:
                path = join(directory, name)
                if path not in self.settle:
                    self.backlog[path] = None

    def _found(self, path: bytes, entry: Entry, fresh_ns: int) -> None:
        """``path`` differs. In the middle of a change it settles first, as if an event had told of it."""
        if path in self.settle:
            return
        if self._index.is_held(path):
            self._mapped.opened(path)
        if fresh_ns < entry.ctime_ns <= fresh_ns + 10**9:
            self.settle.touch(path, self._clock.monotonic())
        else:
            self.backlog[path] = entry

    # What waits.

    def put_off(self, paths: Iterable[bytes]) -> None:
        """``paths`` came in a mass: what is fresh goes first."""
        self.backlog.update(dict.fromkeys(paths))

    def take_backlog(self, most: int) -> list[tuple[bytes, Entry | None]]:
        """The first ``most`` paths of the backlog, with what a walk saw there; they wait no more."""
        taken = list(islice(self.backlog.items(), most))
        for path, _ in taken:
            del self.backlog[path]
        return taken

    def take_waiting(self) -> list[bytes]:
        """Everything that was found and not yet taken, settled or not; nothing waits any more."""
        waiting = dict.fromkeys([*self.settle.take_all(), *self.backlog])
        self.backlog.clear()
        return list(waiting)

    @property
    def unreadable(self) -> dict[bytes, str]:
        """Directories that could not be read: what is in them is not saved."""
        return self._survey.unreadable

    def close(self) -> None:
        """Nothing is watched any more."""
        if self.watch is not None:
            self.watch.close()
            self.watch = None


class _Walk:
    """One walk over the home, in slices."""

    def __init__(self) -> None:
        self.waiting = [b""]
        self.survey = Survey()
        self.is_stale = False
        """Events were lost since it began: another walk has to follow."""

    @staticmethod
    def enough(seconds: float) -> float:
        """When the backlog ends a slice; a walk that has all the time in the world ends by itself."""
        return _ENOUGH if seconds != float("inf") else float("inf")
