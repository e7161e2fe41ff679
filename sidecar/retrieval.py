"""The work is brought back from a Persist that cannot be written to: full, read-only, or held by another sidecar."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack

from sidecar.archive import Archive
from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.entry import Entry, Kind
from sidecar.errors import PersistError
from sidecar.fsops import FileSystem, Tree
from sidecar.home.links import make_save_link, session_of
from sidecar.home.scan import Scanner
from sidecar.home.trail import Trail, walk_names
from sidecar.restore import Restored, Restorer, in_order

log = logging.getLogger(__name__)

_BATCH = 512


class Retrieval:
    """Brings back once what Persist holds, in as many attempts as it takes to read it."""

    def __init__(self, fs: FileSystem, clock: Clock, settings: Settings) -> None:
        self._fs, self._clock, self._settings = fs, clock, settings
        self._is_due = settings.restore
        self.back: list[tuple[bytes, Entry]] = []
        """What has come back, as it is in the home."""

    @property
    def files(self) -> int:
        """How many files have come back."""
        return sum(entry.kind is not Kind.DIRECTORY for _, entry in self.back)

    def attempt(self, cancelled: Callable[[], bool], progress: Callable[[int, int], None]) -> None:
        """The home has what Persist holds, unless that cannot be read either; nothing where it has it already."""
        if not self._is_due:
            return
        try:
            self.back = bring_back(self._fs, self._clock, self._settings, cancelled=cancelled, progress=progress)
            self._is_due = False
        except (OSError, PersistError) as error:
            log.warning("nothing can be brought back yet: %s", error)


def bring_back(
    fs: FileSystem,
    clock: Clock,
    settings: Settings,
    *,
    cancelled: Callable[[], bool],
    progress: Callable[[int, int], None],
) -> list[tuple[bytes, Entry]]:
    """A new home has what the backup holds, though nothing can be written to Persist; what came back, as it is there.

    A home that has had it all, by the records, gets nothing: what is missing in it was deleted. Raises ``OSError`` and
    ``PersistError``.
    """
    with ExitStack() as stack:
        archive = Archive(fs, clock, settings)
        stack.callback(archive.close)
        home = stack.enter_context(Tree.at(fs, settings.home))
        make_save_link(fs, home.directory(b""), settings)
        if archive.session == session_of(fs, home.directory(b""), clock):
            return []
        restorer = Restorer(fs, archive.layout.root, home, cancelled)
        wanted = in_order(archive.wanted(b"", None))
        back = []
        for count, item in enumerate(wanted):
            if count % _BATCH == 0:
                restorer.end_batch()
                progress(count, len(wanted))
                if cancelled():
                    break
            result = restorer.restore(item)
            if isinstance(result, Restored):
                back.append((item.path, result.entry))
        restorer.end_batch()
        return back


def count_files(fs: FileSystem, settings: Settings) -> int:
    """How many files of the home are to be saved, by their names alone. Raises ``OSError``."""
    with Tree.at(fs, settings.home) as home:
        mounts = frozenset(os.fsencode(name) for name in settings.mounts)
        scanner = Scanner(fs, home, mounts, settings.max_file_bytes)
        scanner.load_rules()
        return sum(walk_names(scanner, Trail(home)).values())
