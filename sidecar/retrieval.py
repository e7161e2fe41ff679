"""The work is brought back from a Persist that cannot be written to: full, read-only, or held by another sidecar."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from sidecar.archive import Archive
from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.entry import Kind
from sidecar.fsops import FileSystem, Tree
from sidecar.home.links import make_save_link, session_of
from sidecar.restore import Restored, Restorer, in_order

_BATCH = 512


def bring_back(
    fs: FileSystem,
    clock: Clock,
    settings: Settings,
    *,
    cancelled: Callable[[], bool],
    progress: Callable[[int, int], None],
) -> int:
    """A new home has what the backup holds, though nothing can be written to Persist; how many files came back.

    A home that has had it all, by the records, gets nothing: what is missing in it was deleted. Raises ``OSError`` and
    ``PersistError``.
    """
    with ExitStack() as stack:
        archive = Archive(fs, clock, settings)
        stack.callback(archive.close)
        home = stack.enter_context(Tree.at(fs, settings.home))
        make_save_link(fs, home.directory(b""), settings)
        if archive.session == session_of(fs, home.directory(b""), clock):
            return 0
        restorer = Restorer(fs, archive.layout.root, home, cancelled)
        wanted = in_order(archive.wanted(b"", None))
        files = 0
        for count, item in enumerate(wanted):
            if count % _BATCH == 0:
                restorer.end_batch()
                progress(count, len(wanted))
                if cancelled():
                    break
            if isinstance(restorer.restore(item), Restored) and item.entry.kind is not Kind.DIRECTORY:
                files += 1
        restorer.end_batch()
        return files
