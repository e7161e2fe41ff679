"""One batch of files becomes safe together: staged by many threads, synced, put in place, journalled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter

from sidecar.backup.store import Store
from sidecar.copy import FULL, Cancelled, Copier, Loaded, Source, Staged, does_not_fit
from sidecar.crew import Crew
from sidecar.entry import Entry, name_of, parent
from sidecar.errors import Fenced
from sidecar.fsops import READ_FLAGS, DestinationError, FileSystem, Tree, destination
from sidecar.outcome import Failed, Outcome, Saved, Vanished
from sidecar.saving.jobs import Wanted
from sidecar.saving.lane import Copied

File = tuple[bytes, Wanted]


class BatchCopier:
    """Copies from ``home`` into ``store``. For one thread, which waits for the crew."""

    def __init__(self, fs: FileSystem, home: Tree, store: Store, *, copier: Copier, crew: Crew) -> None:
        self._fs, self._home, self._store, self._copier, self._crew = fs, home, store, copier, crew

    def save(self, files: Sequence[File]) -> list[Outcome]:
        """Every file is in the mirror or accounted for; on a full Persist one by one, for a small one may still fit.

        Raises ``DestinationError`` and ``Cancelled``: then none of them is.
        """
        try:
            return self._save_together(files)
        except DestinationError as error:
            if error.errno not in FULL:
                raise
            self._store.place.end_batch()
            if len(files) == 1:
                return [Failed(files[0][0], does_not_fit(error))]
        return [outcome for file in files for outcome in self.save([file])]

    def finish(self, files: Sequence[File], results: Sequence[Copied | DestinationError]) -> list[Outcome]:
        """As ``save``, for files that were staged elsewhere, and are synced as a whole."""
        failure = next((result for result in results if isinstance(result, DestinationError)), None)
        if failure is not None:
            self.discard_all(results)
            raise failure
        staged = [result for result in results if isinstance(result, Staged)]
        try:
            saved = self.commit(staged)
        except DestinationError as error:
            self.discard_all(results)
            if error.errno not in FULL:
                raise
            self._store.place.end_batch()
            return [outcome for file in files for outcome in self.save([file])]
        others = [result for result in results if not isinstance(result, Staged | DestinationError)]
        return [*others, *saved]

    def discard_all(self, results: Iterable[object]) -> None:
        """Nothing stays of what is staged among ``results``."""
        self._store.discard(*(result for result in results if isinstance(result, Staged)))

    def save_directories(self, directories: Sequence[tuple[bytes, Entry]]) -> list[Outcome]:
        """As ``save``, for directories, outermost first."""
        try:
            self._store.clear_the_way(directories)
            return [*self._store.make_directories(directories)]
        except DestinationError as error:
            if error.errno not in FULL:
                raise
            self._store.place.end_batch()
            if len(directories) == 1:
                return [Failed(directories[0][0], does_not_fit(error))]
        return [outcome for each in directories for outcome in self.save_directories([each])]

    def _save_together(self, files: Sequence[File]) -> list[Outcome]:
        self._store.durable.begin_batch()
        outcomes: list[Outcome] = []
        identical: list[tuple[bytes, Entry]] = []
        sources: list[Source] = []
        # Staged in the order of their directories, so that what is above those is opened once.
        for path, wanted in sorted(files, key=itemgetter(0)):
            try:
                directory_fd = self._home.directory(parent(path))
            except OSError:
                outcomes.append(Vanished(path))
                continue
            if wanted.may_be_there and self._is_in_mirror(path, directory_fd):
                known = self._store.index.get(path)
                since_ns = min(known.since_ns, wanted.entry.since_ns) if known else wanted.entry.since_ns
                identical.append((path, wanted.entry._replace(since_ns=since_ns)))
            else:
                sources.append(Source(path, directory_fd, wanted.entry, wanted.may_be_core, wanted.mapped))
        self._store.record(identical)
        outcomes += [Saved(path, entry) for path, entry in identical]
        results = self._stage(sources)
        others = [result for result in results if not isinstance(result, Staged)]
        rank = {path: position for position, (path, _) in enumerate(files)}
        staged = [result for result in results if isinstance(result, Staged)]
        saved = self.commit(sorted(staged, key=lambda each: rank[each.path]))
        self._store.place.beside.settle({parent(result.path) for result in others})
        return [*outcomes, *others, *saved]

    def commit(self, staged: Sequence[Staged]) -> list[Saved]:
        """What is staged is safe, or nothing of it stays. Raises ``DestinationError``."""
        try:
            return self._store.commit(staged)
        except (DestinationError, Fenced):
            self._store.discard(*staged)
            raise

    def _stage(self, sources: Sequence[Source]) -> list[Copied]:
        """Every source is staged and accounted for, durable where the batch is not synced as a whole."""
        if self._store.durable.at_once:
            results = self._crew.map(self._try_to_stage, sources, learn=True)
        else:
            results = self._stage_beside(sources)
        failure = next((result for result in results if isinstance(result, DestinationError | Cancelled)), None)
        if failure is not None:
            self.discard_all(results)
            raise failure
        return [result for result in results if not isinstance(result, DestinationError | Cancelled)]

    def _stage_beside(self, sources: Sequence[Source]) -> list[Copied | DestinationError | Cancelled]:
        by_path = {source.path: source for source in sources}
        self._store.make_ready(by_path)
        results: list[Copied | DestinationError | Cancelled] = []
        for part in self._store.place.parts(by_path):
            with destination():
                above = self._store.place.directories(part)
            loaded = [self._copier.load(by_path[path]) or by_path[path] for path in part]
            placed = list(zip(loaded, self._store.place.beside.new_names(len(part)), above, strict=True))
            results += self._crew.map(self._try_to_stage_beside, placed, apart=itemgetter(2), learn=True)
        return results

    def _try_to_stage(self, source: Source) -> Copied | DestinationError | Cancelled:
        try:
            return self._copier.stage(source, self._store.place.staging_name(), harden_later=False)
        except (DestinationError, Cancelled) as error:
            return error

    def _try_to_stage_beside(self, placed: tuple[Source | Loaded, bytes, int]) -> Copied | DestinationError | Cancelled:
        try:
            return self._copier.stage_beside(*placed)
        except (DestinationError, Cancelled) as error:
            return error

    def _is_in_mirror(self, path: bytes, directory_fd: int) -> bool:
        try:
            fd = self._fs.open(name_of(path), READ_FLAGS, at=directory_fd)
        except OSError:
            return False
        try:
            return self._store.holds_content(path, fd)
        finally:
            self._fs.close(fd)
