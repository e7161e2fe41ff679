"""Everything that is written to Persist: whole files into the mirror, earlier contents into the versions.

The order makes every kill harmless: content is staged and durable; the old content gets a second name among the
versions; one rename puts the new content in place; the directory is synced; and only then the journal calls it safe.
Where a batch is synced as a whole, contents are staged beside the mirror, on the same mount, and not in it: a kill
never leaves a stump in the user's backup, and what it leaves is swept in one small directory. Where every file is
synced for itself, they are staged in the directories of the mirror: see ``beside``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

from sidecar.backup import journal as records
from sidecar.backup.departures import Departures
from sidecar.backup.durable import Durable
from sidecar.backup.index import Index
from sidecar.backup.journal import Journal, JournalUnreadable
from sidecar.backup.keeper import Keeper
from sidecar.backup.mirror import read_mirror
from sidecar.backup.moves import Move, Moves
from sidecar.backup.place import Place
from sidecar.backup.retention import ladder
from sidecar.backup.staging import Staging
from sidecar.backup.tenancy import Tenancy
from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.copy import Staged, same_content
from sidecar.crew import Crew
from sidecar.entry import Entry, Kind, ancestors, name_of, parent
from sidecar.fsops import (
    READ_FLAGS,
    FileSystem,
    destination,
)
from sidecar.outcome import Removed, Saved

log = logging.getLogger(__name__)

_UNSURE = 2**64 - 1
"""As inode number: like nothing that a home can hold."""
_UNSEEN = Entry(Kind.DIRECTORY, 0o700, 0, 0, 0, 0, 0)
"""A directory that nobody has looked at for itself."""


class Store:
    """One server's place on Persist, opened for writing. For one thread; errors leave as ``DestinationError``."""

    def __init__(
        self, fs: FileSystem, clock: Clock, settings: Settings, crew: Crew, tenancy: Tenancy | None = None
    ) -> None:
        """Without a ``tenancy`` there must be no other writer. Raises ``OSError`` and ``PersistError``."""
        self._fs, self._clock, self._tenancy = fs, clock, tenancy
        self.place = Place(fs, clock, settings, crew, tenancy.admit) if tenancy else Place(fs, clock, settings, crew)
        self.durable = Durable(fs, clock, self.place, crew)
        if self.durable.at_once:
            crew.size = 1  # a local file system, where there is nothing to wait for
        self._journal = Journal(fs, self.place.state_fd)
        self._moves = Moves(fs, self.place.state_fd, reach_days=settings.retention_days)
        self._begun: Move | None = None
        """A move that an error may have cut short."""
        self._removed_ns = 0
        """When something was last removed."""
        self._keeper = Keeper(fs, clock, self.place, ladder(settings.retention_days))
        self._staging = Staging(fs, self.place, crew)
        self._departures = Departures(fs, self.place, self.durable, self._keeper, crew)
        self.on_safe: Callable[[Sequence[tuple[bytes, Entry]]], None] = lambda _: None
        """Hears of all that the journal has begun to call safe."""
        self.session, self.index = b"", Index()
        with ExitStack() as on_failure:
            on_failure.callback(self.close)
            for move in self._moves.read():
                self._departures.directory_arrived(move.new, move.at_ns)
            self._replay()
            if tenancy and tenancy.may_have_company:
                self.place.beside.distrust()
                # What the one before us, should it wake up, appends to the journal goes where nobody reads it.
                self._rewrite_journal()
            on_failure.pop_all()

    def check_lease(self) -> None:
        """Nothing is put in place, taken out or renamed without this. Raises ``Fenced`` and ``DestinationError``."""
        if self._tenancy:
            self._tenancy.check()

    def _replay(self) -> None:
        try:
            state = self._journal.open()
            if self.place.is_new and state.index.files:
                log.error("the mirror is gone: what the home has is saved again")
                raise JournalUnreadable("the mirror it tells of is gone")
        except JournalUnreadable as error:
            self._journal.close()
            self.index = read_mirror(self._fs, self.place.layout)
            if self.index.files:
                log.warning(
                    "the journal cannot be used (%s): rebuilt from the %d files of the mirror", error, self.index.files
                )
            self._rewrite_journal()
            return
        self.session, self.index = state.session, state.index
        if state.unfinished:
            self._finish_removals(state.unfinished)
        for old, new in state.unfinished_moves.items():
            self._finish_move(Move(self._clock.now_ns(), old, new))

    def _finish_removals(self, unfinished: dict[bytes, Entry]) -> None:
        changed: set[bytes] = set()
        children_first = {path: unfinished[path] for path in sorted(unfinished, reverse=True)}
        self._departures.take_out(children_first, self._clock.now_ns(), changed)
        self.durable.sync(changed)
        self._journal.append(records.removed_record(path) for path in unfinished)

    def _finish_move(self, move: Move) -> None:
        """A move was cut short: either it had happened in the mirror, or it never did, and never will."""
        if self.place.has_directory(move.new) and not self.place.has_directory(move.old):
            self.durable.sync({self.place.in_mirror(parent(move.old)), self.place.in_mirror(parent(move.new))})
            self._note_move(move)
        else:
            self._journal.append([records.moved_record(move.old, move.old)])

    def finish_move(self) -> Move | None:
        """The move that an error cut short, if one was, has happened or has not; which one. To be called before others.

        Raises ``DestinationError``; then nobody knows yet.
        """
        move = self._begun
        if move is not None:
            with destination():
                self._finish_move(move)
            self._begun = None
        return move

    def ensure_in_place(self) -> bool:
        """Mirror and state lie where everybody looks for them; whether they had to be made anew.

        What was made anew is believed, and the journal is not: nothing counts as saved that is not there. Raises
        ``DestinationError`` where they cannot be made.
        """
        with destination():
            return self.place.renew(self._believe_mirror)

    def _believe_mirror(self) -> None:
        self._begun = None
        self.index.replace(read_mirror(self._fs, self.place.layout))
        self._rewrite_journal()

    def forget_missing(self) -> list[bytes]:
        """The paths that the journal calls safe and the mirror does not have as it should; they are not safe any more.

        Costs a look at every file, so it is for where the user can reach the mirror. Raises ``DestinationError``.
        """
        missing = []
        self.finish_move()
        with destination():
            files = ((path, entry) for path, entry, _ in self.index.items() if entry.kind is not Kind.DIRECTORY)
            for path, entry in files:
                self.place.layout.root.make_room()
                if not self.place.has(path, entry):
                    missing.append(path)
            self.place.end_batch()
            self._journal.append(records.removed_record(path) for path in missing)
        for path in missing:
            self.index.remove(path)
        return missing

    def begin_session(self, session: bytes) -> bool:
        """The records from here on are of the home ``session``; whether that home is the one of the records before."""
        if session and session == self.session:
            return True
        with destination():
            self._journal.append([records.session_record(session)])
        self.session = session
        self.index.release_all()
        return False

    def holds_content(self, path: bytes, source_fd: int) -> bool:
        """Whether the mirror's ``path`` is byte for byte what ``source_fd`` reads from its beginning.

        Asked where the journal was lost or the home is new: the same work need not be written, and kept, twice.
        """
        self.place.layout.root.make_room()
        try:
            fd = self._fs.open(name_of(path), READ_FLAGS, at=self.place.directory(parent(path)))
        except OSError:
            return False
        try:
            return same_content(self._fs, source_fd, fd)
        finally:
            self._fs.close(fd)

    def discard(self, *staged: Staged) -> None:
        """Staged contents that will not be committed are gone, or are swept at the next start."""
        self._staging.discard(staged)

    def make_ready(self, paths: Iterable[bytes]) -> None:
        """What is to be saved at ``paths`` may be staged beside them: the directories are there, and a kill is no harm.

        Nothing is durable but that. Raises ``Fenced`` and ``DestinationError``.
        """
        self.check_lease()
        directories = {parent(path) for path in paths}
        with destination():
            self._make_mirror_directories(sorted(directories), self._unknown_above(directories))
            self.place.beside.begin(directories)

    def clear_the_way(self, arriving: Iterable[tuple[bytes, Entry]]) -> dict[bytes, Entry]:
        """What the mirror holds where another kind of thing is to stand has become a version; what it holds still."""
        standing: dict[bytes, Entry] = {}
        doomed: list[bytes] = []
        for path, entry in arriving:
            known = self.index.get(path)
            if known is None:
                continue
            if (known.kind is Kind.DIRECTORY) != (entry.kind is Kind.DIRECTORY):
                doomed += [*self.index.below(path), path]
            else:
                standing[path] = known
        if doomed:
            self.remove(doomed)
        return standing

    def commit(self, staged: Sequence[Staged]) -> list[Saved]:
        """Every staged content stands in the mirror, durably, and the journal says so; what stood there is a version.

        They come into the mirror in their order: of what a kill cuts short it has the beginning.
        What was staged without a sync of its own must be of the batch that ``durable`` syncs as a whole.
        """
        if not staged:
            return []
        self.check_lease()
        with destination():
            known = self.clear_the_way((item.path, item.entry) for item in staged)
            directories = sorted({parent(item.path) for item in staged})
            unknown = self._unknown_above(directories)
            changed = self._make_mirror_directories(directories, unknown)
            self._departures.keep_replaced(staged, known.get, self.index.names, changed)
            self.durable.sync(changed)
            self._staging.put_in_place(staged)
            self.durable.sync(map(self.place.in_mirror, directories))
            # A directory that only the mirror knew of would stay in it when it is gone from the home.
            self.record([*((path, _UNSEEN) for path in sorted(unknown)), *((item.path, item.entry) for item in staged)])
            self._keeper.thin()
        return [Saved(item.path, item.entry) for item in staged]

    def make_directories(self, directories: Sequence[tuple[bytes, Entry]]) -> list[Saved]:
        """Every directory, outermost first, stands in the mirror, durably, and the journal says so."""
        self.check_lease()
        with destination():
            paths = [path for path, _ in directories]
            self.durable.sync(self._make_mirror_directories(paths, self._unknown_above(paths)))
            self.record(directories)
        return [Saved(path, entry) for path, entry in directories]

    def record(self, entries: Iterable[tuple[bytes, Entry]]) -> None:
        """The journal says durably that the mirror holds ``entries``, as this home has them."""
        batch = list(entries)
        with destination():
            self._journal.append(records.safe_record(path, entry) for path, entry in batch)
        for path, entry in batch:
            self.index.put(path, entry, held=True)
        self.on_safe(batch)

    def move(self, move: Move) -> bool:
        """A directory with all in it is renamed in the mirror, by one rename; whether it could be done so.

        Its history stays where it was, and the record of moves tells how to read it. Nothing may be known at its new
        path.
        """
        old, new = move.old, move.new
        self.check_lease()
        with destination():
            if not self.place.has_directory(old):
                return False
            above = [parent(new)]
            changed = self._make_mirror_directories(above, self._unknown_above(above))
            if self.place.status(new) is not None:
                self.place.layout.move_aside(self.place.in_mirror(new))
            self._journal.append([records.moving_record(old, new)])
            self._begun = move
            self.place.beside.follow(old, new)
            self.check_lease()
            source, target = self.place.directory(parent(old)), self.place.directory(parent(new))
            self._fs.rename(name_of(old), name_of(new), source_at=source, target_at=target)
            self.place.layout.root.forget(self.place.in_mirror(old))
            changed |= {self.place.in_mirror(parent(old)), self.place.in_mirror(parent(new))}
            self.durable.sync(changed)
            self._note_move(move)
            self._begun = None
        return True

    def _note_move(self, move: Move) -> None:
        # What was removed before has versions that end before.
        at_ns = self._moves.append(max(move.at_ns, self._removed_ns), move.old, move.new)
        self._journal.append([records.moved_record(move.old, move.new)])
        self.index.move(move.old, move.new)
        self._departures.directory_arrived(move.new, at_ns)

    def remove(self, paths: Sequence[bytes]) -> list[Removed]:
        """Every path, children before their directory, has left the mirror; its last content is a version."""
        now_ns = self._removed_ns = self._clock.now_ns()
        known = {path: entry for path in paths if (entry := self.index.get(path)) is not None}
        if not known:
            return []
        self.check_lease()
        with destination():
            self._journal.append(records.removing_record(path, entry) for path, entry in known.items())
            self.check_lease()  # the append may have hung until it was somebody else's
            changed: set[bytes] = set()
            # Until all is done some may be out: what comes back under one of these names must not be taken for saved.
            for path, entry in known.items():
                self.index.put(path, entry._replace(ino=_UNSURE), held=True)
            self._departures.take_out(known, now_ns, changed)
            self.durable.sync(changed)
            self._journal.append(records.removed_record(path) for path in known)
        for path in known:
            self.index.remove(path)
        with destination():
            self._keeper.thin()
        return [Removed(path) for path in known]

    def _unknown_above(self, directories: Iterable[bytes]) -> set[bytes]:
        """What nobody calls safe of the directories and all above them. What was a file there is a version now."""
        all_above = {each for path in directories for each in _with_above(path)}
        known = {each: entry for each in all_above if (entry := self.index.get(each)) is not None}
        files = [each for each, entry in known.items() if entry.kind is not Kind.DIRECTORY]
        if files:
            self.remove(files)
        return (all_above - known.keys()).union(files)

    def _make_mirror_directories(self, paths: Iterable[bytes], unknown: Iterable[bytes]) -> set[bytes]:
        """The directories are there, with all above them; which directories, relative to Persist, are to be synced.

        One that is ``unknown`` may be there from an attempt that failed, or died, before it was durable. What was open
        before may be closed.
        """
        changed = {self.place.in_mirror(parent(each)) for each in unknown}
        return changed | self.place.make_all(map(self.place.in_mirror, paths))

    def tidy(self) -> None:
        """A journal that is mostly history is written anew. It takes seconds for a million files: for idle moments."""
        if self._journal.is_bloated(len(self.index)):
            self.check_lease()
            with destination():
                self._rewrite_journal()

    def _rewrite_journal(self) -> None:
        self.place.clear_the_way()
        self._journal.rewrite(self.index, self.session)

    def free_bytes(self) -> int:
        with destination():
            return self._fs.free_bytes(self.place.state_fd)

    def close(self) -> None:
        self._journal.close()
        self.place.beside.close()
        self.place.close()


def _with_above(directory: bytes) -> list[bytes]:
    """``directory`` and all above it, but for the home itself."""
    return [*ancestors(directory), directory] if directory else []
