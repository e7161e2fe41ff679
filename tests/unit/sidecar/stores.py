"""A store in a directory of its own, and a clock that a test sets, for all that is written to Persist."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from sidecar.backup.store import Store
from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.copy import Staged
from sidecar.crew import Crew
from sidecar.entry import Entry, Kind
from sidecar.fsops import FileSystem

STATE = Path(".jupyterhub-sidecar/default")
MIRROR = Path("Backup/default")


class SetClock(Clock):
    """Says how many seconds have passed since some moment in 2026, as often as it is asked."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def monotonic(self) -> float:
        return self.passed_s

    def now_ns(self) -> int:
        return 1_780_000_000_000_000_000 + int(self.passed_s * 1e9)


@contextmanager
def opened_store(
    persist: Path, clock: Clock, fs: FileSystem | None = None, *, retention_days: int = 365
) -> Iterator[Store]:
    """A store on ``persist``, for the home of one session."""
    persist.mkdir(exist_ok=True)
    crew = Crew()
    settings = Settings(home="/nowhere", persist=str(persist), require_mount=False, retention_days=retention_days)
    with closing(crew), closing(Store(fs or FileSystem(), clock, settings, crew)) as store:
        store.begin_session(b"one home")
        yield store


def entry_of(content: bytes, clock: Clock, inode: int = 1) -> Entry:
    """A file that has got ``content`` now."""
    now_ns = clock.now_ns()
    return Entry(Kind.FILE, 0o600, len(content), now_ns, now_ns, inode, now_ns)


def save(store: Store, contents: Mapping[bytes, bytes], clock: Clock, first_inode: int = 1) -> None:
    """The files are saved in one batch, each with an inode of its own."""
    staged = []
    for inode, (path, content) in enumerate(contents.items(), first_inode):
        name = store.place.staging_name()
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=store.place.staging_fd)
        os.write(fd, content)
        entry = entry_of(content, clock, inode)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        os.close(fd)
        staged.append(Staged(path, entry, name, -1))
    store.commit(staged)
    store.place.end_batch()
