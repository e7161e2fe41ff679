"""The mirror as it lies on Persist: plain files, and the truth about what is saved."""

from __future__ import annotations

from sidecar.backup.index import Index
from sidecar.backup.persist import Layout, mirror_of
from sidecar.entry import Entry, Kind, join
from sidecar.fsops import FileSystem
from sidecar.select import BESIDE_PREFIX


def read_mirror(fs: FileSystem, layout: Layout) -> Index:
    """What the mirror holds, read from the mirror itself: what a lost journal is rebuilt from."""
    index = Index()
    waiting = [b""]
    mirror = mirror_of(layout.server)
    while waiting:
        directory = waiting.pop()
        try:
            fd = layout.root.directory(join(mirror, directory) if directory else mirror)
        except (FileNotFoundError, NotADirectoryError):  # replaced since it was listed
            continue
        for name, status in fs.entries(fd):
            seen = Entry.of(status)
            if seen is None or name.startswith(BESIDE_PREFIX):
                continue
            path = join(directory, name)
            index.put(path, seen._replace(ctime_ns=0, ino=0, since_ns=seen.mtime_ns), held=False)
            if seen.kind is Kind.DIRECTORY:
                waiting.append(path)
        layout.root.forget()
    return index
