"""Earlier contents on Persist: where they lie, and which one was the state at a time.

``versions/<path>/<from>_<until>`` holds what ``path`` was from one moment until another, both in UTC. A version is a
regular file or a link; a directory of that name belongs to a file inside a directory that was once a file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from sidecar.clock import parse_stamp, stamp
from sidecar.entry import Entry, Kind, join
from sidecar.fsops import FileSystem, Tree


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
    first, separator, second = os.fsdecode(name).partition("_")
    from_ns, until_ns = parse_stamp(first), parse_stamp(second[: len(first)])
    rest = second[len(first) :]
    if not separator or from_ns is None or until_ns is None or (rest and not rest[1:].isdecimal()):
        return None
    return Span(from_ns, until_ns)


def versions_in(fs: FileSystem, directory_fd: int, path: bytes) -> list[Version]:
    """The versions of ``path`` in the open directory of its versions, the oldest first."""
    found = []
    for name, status in fs.entries(directory_fd):
        span, entry = parse_name(name), Entry.of(status)
        if span is not None and entry is not None and entry.kind is not Kind.DIRECTORY:
            found.append(Version(path, span, name, entry.kind, entry.mode, entry.size, entry.mtime_ns))
    return sorted(found, key=lambda version: (version.span, version.name))


def at_time(versions: Iterable[Version], at_ns: int) -> Version | None:
    """The version that was the state at ``at_ns``; None where no version was."""
    return max((v for v in versions if v.span.covers(at_ns)), key=lambda v: v.span, default=None)


def walk(fs: FileSystem, directory_fd: int, path: bytes) -> Iterator[Version]:
    """Every version of ``path`` and of all below it, each path's the oldest first."""
    # One tree instead of recursion: a home can be deeper than Python's stack, and than the descriptors we may have.
    versions = Tree(fs, directory_fd)
    waiting = [b""]
    while waiting:
        place = waiting.pop()
        below = join(path, place) if path and place else path or place
        try:
            fd = versions.directory(place)
            yield from versions_in(fs, fd, below)
            waiting += [join(place, name) for name, status in fs.entries(fd) if stat.S_ISDIR(status.st_mode)]
        finally:
            versions.forget()
