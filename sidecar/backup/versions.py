"""Earlier contents on Persist: where they lie, and which one was the state at a time.

``versions/<path>/<from>_<until>`` holds what ``path`` was from one moment until another, both in UTC. A version is a
regular file or a link; a directory of that name belongs to a file inside a directory that was once a file.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from sidecar.clock import parse_stamp, stamp
from sidecar.entry import Entry, Kind, join
from sidecar.fsops import FileSystem, Tree

GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
"""What opening a directory of versions says where there are none."""

_NAME = re.compile(rb"(\d{8}T\d{6}\.\d{6}Z)_(\d{8}T\d{6}\.\d{6}Z)(?:\.\d+)?")

_OPEN_AT_ONCE = 128
"""So many directories at most stay open while the tree is read: the next one is most often in one of them."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A content that was the state of its path from ``from_ns`` until just before ``until_ns``, in UTC."""

    from_ns: int
    until_ns: int

    @classmethod
    def between(cls, from_ns: int, until_ns: int) -> Self:
        """From one to the other, at least a microsecond long: clocks can be set back."""
        return cls(from_ns, max(until_ns, from_ns + 1000))

    def covers(self, at_ns: int) -> bool:
        return self.from_ns <= at_ns < self.until_ns


@dataclass(frozen=True, slots=True)
class Version:
    """One earlier content of ``path``."""

    path: bytes
    span: Span
    name: bytes
    """The file's name in the directory of its path's versions."""
    kind: Kind
    mode: int
    size: int
    mtime_ns: int


def version_name(span: Span, attempt: int = 0) -> bytes:
    """The file name of the content of ``span``; ``attempt`` tells contents of the same microsecond apart."""
    suffix = f".{attempt}" if attempt else ""
    return f"{stamp(span.from_ns)}_{stamp(span.until_ns)}{suffix}".encode()


def parse_name(name: bytes) -> Span | None:
    """The span that ``version_name`` wrote; None for any other name."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    from_ns, until_ns = (parse_stamp(part.decode()) for part in match.groups())
    return None if from_ns is None or until_ns is None else Span(from_ns, until_ns)


def versions_in(fs: FileSystem, directory_fd: int, path: bytes) -> list[Version]:
    """The versions of ``path`` in the open directory of its versions, the oldest first. Raises ``OSError``."""
    return _listing(fs, directory_fd, path)[0]


def _listing(fs: FileSystem, directory_fd: int, path: bytes) -> tuple[list[Version], list[bytes]]:
    """The versions of ``path``, the oldest first, and the names of the directories beside them."""
    found, directories = [], []
    for name, status in fs.entries(directory_fd):
        entry = Entry.of(status)
        if entry is None:
            continue
        if entry.kind is Kind.DIRECTORY:
            directories.append(name)
        elif (span := parse_name(name)) is not None:
            found.append(Version(path, span, name, entry.kind, entry.mode, entry.size, entry.mtime_ns))
    return sorted(found, key=lambda version: (version.span, version.name)), directories


def walk(fs: FileSystem, directory_fd: int, path: bytes) -> Iterator[Version]:
    """Every version of ``path`` and of all below it, each path's the oldest first. Raises ``OSError``.

    ``directory_fd`` is the open directory of the versions of ``path``. A directory in it that is gone by the time it is
    looked into holds nothing: somebody else may be writing.
    """
    # One tree instead of recursion: a home can be deeper than Python's stack, and than the descriptors we may have.
    versions = Tree(fs, directory_fd)
    waiting = [b""]
    looked_into = 0
    try:
        while waiting:
            place = waiting.pop()
            looked_into += 1
            if looked_into % _OPEN_AT_ONCE == 0:
                versions.forget()
            try:
                found, directories = _listing(fs, versions.directory(place), _below(path, place))
            except OSError as error:
                if error.errno not in GONE:
                    raise
                continue
            yield from found
            waiting += [join(place, name) for name in directories]
    finally:
        versions.forget()


def _below(path: bytes, place: bytes) -> bytes:
    return join(path, place) if place else path
