"""What the mirror holds and a new home does not is brought back, the most important first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from sidecar.backup.persist import mirror_of
from sidecar.backup.store import Store
from sidecar.entry import Entry, Kind, join, legible, name_of, parent
from sidecar.fsops import FileSystem, Tree
from sidecar.home.scan import Scanner
from sidecar.restore import Kept, Missing, NotRestored, Restored, Restorer, Wanted, in_order

log = logging.getLogger(__name__)

_BATCH = 512


@dataclass
class Recovery:
    """How a restore went. ``failed`` are paths with the reason; what is kept was there already."""

    files: int = 0
    kept: int = 0
    failed: dict[bytes, str] = field(default_factory=dict)


def recover(
    fs: FileSystem,
    home: Tree,
    store: Store,
    *,
    scanner: Scanner,
    cancelled: Callable[[], bool],
    progress: Callable[[int, int], None],
) -> Recovery:
    """Everything that the mirror holds and this session's home has not had yet is in the home.

    ``progress`` is called with how many files are done, and of how many. A restore that is cut short is taken up again
    by the next start: only what is back counts as held. Raises ``DestinationError`` where the journal cannot
    be written.
    """
    mirror = mirror_of(store.place.layout.server)
    wanted = in_order(
        Wanted(path, entry, join(mirror, parent(path)) if parent(path) else mirror, name_of(path))
        for path, packed in store.index.packed_items(held=False)
        if scanner.is_ours(path) and (entry := Entry.unpack(packed))
    )
    recovery = Recovery()
    restorer = Restorer(fs, store.place.layout.root, home, cancelled)
    total = sum(item.entry.kind is not Kind.DIRECTORY for item in wanted)
    for start in range(0, len(wanted), _BATCH):
        progress(recovery.files, total)
        if cancelled():
            break
        _recover_batch(restorer, wanted[start : start + _BATCH], store, recovery=recovery, cancelled=cancelled)
        restorer.end_batch()
    directories = [item for item in reversed(wanted) if item.entry.kind is Kind.DIRECTORY]
    for count, item in enumerate(directories, 1):
        restorer.set_directory_mode(item.path, item.entry.mode)
        if count % _BATCH == 0:
            restorer.end_batch()  # a descriptor each, and there are only so many
    restorer.end_batch()
    progress(recovery.files, total)
    return recovery


def _recover_batch(
    restorer: Restorer, batch: list[Wanted], store: Store, *, recovery: Recovery, cancelled: Callable[[], bool]
) -> None:
    back: list[tuple[bytes, Entry]] = []
    lost: list[bytes] = []
    for item in batch:
        if cancelled():
            break
        result = restorer.restore(item)
        if isinstance(result, Restored):
            back.append((item.path, result.entry))
            recovery.files += item.entry.kind is not Kind.DIRECTORY
        elif isinstance(result, Kept):
            recovery.kept += 1
        elif isinstance(result, Missing):
            lost.append(item.path)
        elif isinstance(result, NotRestored):
            recovery.failed[item.path] = result.reason
            log.error("could not bring back %s: %s", legible(item.path), result.reason)
    store.record(back)
    if lost:
        log.warning(
            "%d files that the journal knows are not in the mirror, the first is %s", len(lost), legible(lost[0])
        )
        store.remove(lost)
