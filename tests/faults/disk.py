"""What a power cut leaves of Persist: no more than POSIX promises.

A content is durable after a sync of its file, or of the whole file system, that came after it was written. A name is
durable after a sync of its directory, or of the whole file system, that came after it was given or taken away. All else
may be there or not, each for itself and in no order; and of a content that is not durable any part may be missing.
Three things are as every file system has them: a rename is done or not, and in neither case both names are gone; a
directory is not gone while something is in it; and a link, which nobody can sync, is durable with its name.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.scene import Tree

ROOT = 0
"""The number of Persist's own directory."""

_UNWRITTEN = (0o600, 0)


@dataclass
class _Node:
    """A file, a directory or a link: what programs see of it, and what is durable."""

    kind: str
    content: bytes = b""
    safe_content: bytes = b""
    meta: tuple[int, int] = _UNWRITTEN
    """Mode and mtime."""
    safe_meta: tuple[int, int] = _UNWRITTEN

    def sync(self) -> None:
        self.safe_content, self.safe_meta = self.content, self.meta


@dataclass
class _Part:
    """In the directory ``at`` the name stands for ``node`` now, or for nothing."""

    at: int
    name: str
    node: int | None
    is_synced: bool = False


@dataclass
class _Change:
    """Names that change together; of a rename the new name comes first."""

    number: int
    parts: list[_Part]
    is_whole: bool = False
    """No file system shows a directory in two places, or in none."""
    emptied: int | None = None
    """The directory that was removed."""

    def sync(self, at: int) -> None:
        for part in self.parts:
            part.is_synced = part.is_synced or part.at == at
        if self.is_whole and self.parts[0].is_synced:
            self.parts[-1].is_synced = True

    @property
    def is_durable(self) -> bool:
        return all(part.is_synced for part in self.parts)


@dataclass(frozen=True)
class Found:
    """One thing after the power cut; ``content`` as in ``Tree``."""

    content: bytes | None
    mode: int
    mtime_ns: int


@dataclass(frozen=True)
class Fate:
    """What becomes of all that is not durable."""

    name: Callable[[], bool]
    """Whether a change of names had reached the disk."""
    content: Callable[[bytes, bytes], bytes]
    """What is there, of a content that was durable as the one and had been written as the other."""


def _zeroed(safe: bytes, written: bytes) -> bytes:
    return bytes(new if new == old else 0 for new, old in zip(written, safe.ljust(len(written), b"\0"), strict=False))


def _same(one: bytes, other: bytes) -> int:
    """How many bytes they have in common at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((position for position, (a, b) in pairs if a != b), min(len(one), len(other)))


def _cut(safe: bytes, written: bytes) -> bytes:
    return written[: (_same(safe, written) + len(written)) // 2]


def _first_half_missing(safe: bytes, written: bytes) -> bytes:
    start = _same(safe, written)
    middle = (start + len(written)) // 2
    return written[:start] + bytes(middle - start) + written[middle:]


def _kept(_safe: bytes, written: bytes) -> bytes:
    return written


def _lost(safe: bytes, _written: bytes) -> bytes:
    return safe


_CONTENTS = (_lost, _kept, _zeroed, _cut, _first_half_missing)

WORST = {
    "nothing that is not durable": Fate(lambda: False, _lost),
    "all names, and old contents": Fate(lambda: True, _lost),
    "all names, and zeros": Fate(lambda: True, _zeroed),
    "all names, and stumps": Fate(lambda: True, _cut),
    "old names, and new contents": Fate(lambda: False, _kept),
    "everything": Fate(lambda: True, _kept),
}


def by_chance(seed: object) -> Fate:
    """Some of everything."""
    chance = random.Random(str(seed))
    return Fate(lambda: chance.random() < 0.5, lambda safe, written: chance.choice(_CONTENTS)(safe, written))


class Told(NamedTuple):
    """A method of ``Disk``, and what to tell it."""

    call: str
    args: tuple[Any, ...]


class Disk:
    """Told of every call in order; ``after_cut`` says what a power cut now would leave."""

    def __init__(self) -> None:
        self._nodes = {ROOT: _Node("directory")}
        self._names: dict[tuple[int, str], tuple[int | None, int]] = {}
        """What is durable: which node, and by which change."""
        self._changes: list[_Change] = []
        self._count = 0

    def hear(self, told: Iterable[Told]) -> None:
        """All of it happened, in this order."""
        for call, args in told:
            getattr(self, call)(*args)

    def made(self, node: int, at: int, name: str, kind: str, content: bytes) -> None:
        self._nodes[node] = _Node(kind, content, content)
        self._change([_Part(at, name, node)])

    def named(self, node: int | None, at: int, name: str) -> None:
        self._change([_Part(at, name, node)])

    def removed(self, node: int, at: int, name: str) -> None:
        self._change([_Part(at, name, None)], emptied=node)

    def renamed(self, node: int, old: tuple[int, str], new: tuple[int, str]) -> None:
        self._change([_Part(*new, node), _Part(*old, None)], is_whole=self._nodes[node].kind == "directory")

    def written(self, node: int, content: bytes, meta: tuple[int, int]) -> None:
        self._nodes[node].content, self._nodes[node].meta = content, meta

    def touched(self, node: int, mtime_ns: int) -> None:
        """Only links: nobody can sync them."""
        self._nodes[node].meta = self._nodes[node].safe_meta = (0o777, mtime_ns)

    def synced(self, node: int) -> None:
        self._nodes[node].sync()
        for change in self._changes:
            change.sync(node)
        self._settle()

    def synced_all(self) -> None:
        for node in self._nodes.values():
            node.sync()
        for change in self._changes:
            for part in change.parts:
                part.is_synced = True
        self._settle()

    def _change(self, parts: list[_Part], *, is_whole: bool = False, emptied: int | None = None) -> None:
        self._count += 1
        self._changes.append(_Change(self._count, parts, is_whole, emptied))

    def _settle(self) -> None:
        for change in self._changes:
            if change.parts[0].is_synced:
                for part in change.parts:
                    if part.is_synced:
                        _set(self._names, part, change.number)
        self._changes = [change for change in self._changes if not change.is_durable]

    # What is asked.

    def durable(self, path: str) -> bytes | None:
        """What is durable of the content of the file that programs find at ``path``."""
        names = dict(self._names)
        for change in self._changes:
            for part in change.parts:
                _set(names, part, change.number)
        node: int | None = ROOT
        for name in path.split("/"):
            node = None if node is None else names.get((node, name), (None, 0))[0]
        return None if node is None else self._nodes[node].safe_content

    def after_cut(self, fate: Fate) -> dict[str, Found]:
        """What is there when the power is back, by path."""
        names = dict(self._names)
        for change in self._changes:
            rename_is_done = change.parts[0].is_synced
            if rename_is_done or fate.name():
                for part in change.parts:
                    if part is change.parts[0] or not rename_is_done or fate.name():
                        _set(names, part, change.number)
        for change in self._changes:
            part = change.parts[0]
            if change.emptied is not None and names[part.at, part.name] == (None, change.number):
                is_empty = all(node is None or at != change.emptied for (at, _), (node, _) in names.items())
                names[part.at, part.name] = None if is_empty else change.emptied, change.number
        below: dict[int, list[tuple[str, int]]] = {}
        for (at, name), (node, _) in names.items():
            if node is not None:
                below.setdefault(at, []).append((name, node))
        found: dict[str, Found] = {}
        contents: dict[int, Found] = {}
        waiting = [("", ROOT)]
        while waiting:
            above, at = waiting.pop()
            for name, number in below.get(at, []):
                if number not in contents:
                    contents[number] = _found(self._nodes[number], fate)
                found[above + name] = contents[number]
                if contents[number].content is None:
                    waiting.append((above + name + "/", number))
        return found


def _set(names: dict[tuple[int, str], tuple[int | None, int]], part: _Part, number: int) -> None:
    if names.get((part.at, part.name), (None, -1))[1] <= number:
        names[part.at, part.name] = part.node, number


def _found(node: _Node, fate: Fate) -> Found:
    if node.kind == "directory":
        return Found(None, 0o700, 0)
    if node.kind == "link":
        return Found(b"-> " + node.content, 0o777, node.meta[1])
    if node.content == node.safe_content:
        return Found(node.content, *node.safe_meta)
    return Found(fate.content(node.safe_content, node.content), *node.safe_meta)


def contents(found: dict[str, Found]) -> Tree:
    """Only the contents."""
    return {path: each.content for path, each in found.items()}


def put_down(found: dict[str, Found], top: Path) -> None:
    """The directory ``top``, which is empty, has what was ``found``."""
    for path, each in found.items():  # directories come before what is in them
        place = top / path
        if each.content is None:
            place.mkdir(mode=0o700)
        elif each.content.startswith(b"-> "):
            place.symlink_to(os.fsdecode(each.content[3:]))
            os.utime(place, ns=(each.mtime_ns, each.mtime_ns), follow_symlinks=False)
        else:
            place.write_bytes(each.content)
            place.chmod(each.mode)
            os.utime(place, ns=(each.mtime_ns, each.mtime_ns))
