"""What happens in a home, told so that every way through the saving of it is taken."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sidecar.engine import Engine
from sidecar.home.watch import What
from sidecar.saving.jobs import APART_BYTES
from tests.faults.faulty import FaultyFileSystem
from tests.faults.scene import OUT_OF_TIME_S, Content, Scene, Story

_BEFORE: Content = {
    "kept.txt": b"kept",
    "replaced.ipynb": b"first" * 3000,
    "deleted.txt": b"deleted",
    "d/inner.py": b"inner",
    "d/deleted.py": b"deleted too",
    "file-then-directory": b"a file",
    "directory-then-file/inside.txt": b"inside",
    "link": b"-> nowhere",
    **{f"more/f{number}": b"%d" % number for number in range(6)},
}
_AFTER: Content = {
    **{path: content for path, content in _BEFORE.items() if "deleted" not in path and "-then-" not in path},
    "replaced.ipynb": b"second" * 4000,
    "new/deep/file.txt": b"new",
    "file-then-directory/inside.txt": b"now inside",
    "directory-then-file": b"now a file",
    "link": b"-> elsewhere",
    "empty.txt": b"",
}

FIRST = Story({}, _BEFORE)
"""Nothing was ever saved."""

CHANGES = Story(_BEFORE, _AFTER)
"""Files and links are new, replaced and deleted, and become directories, and directories files."""


class User:
    """Works in the home of a running sidecar, whose watch sees it at once."""

    def __init__(self, home: Path, engine: Engine) -> None:
        self._home, self._finder = home, engine.finder

    def saw(self, path: str, what: What) -> None:
        """The watch tells of ``what`` happened to ``path``."""
        self._finder.changed(os.fsencode(path), what)

    def write(self, path: str, content: bytes, *, is_sparse: bool = False) -> None:
        """``path`` has ``content``; if it ``is_sparse``, with a hole at its end."""
        (self._home / path).write_bytes(content.rstrip(b"\0") if is_sparse else content)
        os.truncate(self._home / path, len(content))
        self.saw(path, What.CLOSED)

    def make(self, path: str) -> None:
        """There is a directory ``path``."""
        (self._home / path).mkdir()
        self.saw(path, What.APPEARED)

    def rename(self, old: str, new: str) -> None:
        """The directory ``old`` is ``new``: the kernel tells of both names, with a cookie that joins them."""
        (self._home / old).rename(self._home / new)
        self.saw(old, What.CHANGED)
        self._finder.moved(os.fsencode(old), os.fsencode(new))
        self.saw(new, What.APPEARED)

    def take_away(self, path: str) -> None:
        """The directory ``path`` is moved out of the home."""
        (self._home / path).rename(self._home.parent / "away")
        self.saw(path, What.CHANGED)


@dataclass(frozen=True)
class Deed:
    """Something that a user does while the sidecar runs."""

    story: Story
    do: Callable[[User], None]
    is_followed: bool = True
    """Whether the mirror follows by renames. Else all is copied, and seems to be where it is since its last change."""

    def live(self, scene: Scene, fs: FaultyFileSystem) -> int:
        """A life that was quiet until the user did this; its end is notified. ``fs`` is armed in between."""
        with scene.engine(fs) as (engine, clock):
            engine.finder.scan()
            engine.turn()
            fs.arm()
            self.do(User(scene.home, engine))
            for _ in range(4):
                engine.turn()
                clock.sleep(1.0)
            return engine.drain(lambda: clock.monotonic() > OUT_OF_TIME_S)


_MOVED: Content = {
    "one.txt": b"one",
    "changed.ipynb": b"first",
    "sub/deep.py": b"deep down",
    "sub/link": b"-> one.txt",
}
_STAYS: Content = {f"stays/f{number}": b"%d" % number for number in range(8)}


def _below(directory: str, content: Content) -> Content:
    return {f"{directory}/{name}": data for name, data in content.items()}


_CHANGED = {**_MOVED, "changed.ipynb": b"second, and longer"}
_OF_A = {**_STAYS, **_below("a", _MOVED)}


def _moved_to(*places: str, unknown: Content | None = None) -> Story:
    """``a`` with a change in it is moved from one of the places to the next."""
    return Story(_OF_A, {**_STAYS, **_below(places[-1], _CHANGED)}, dict.fromkeys(places, "a"), unknown or {})


def _change(user: User) -> None:
    user.write("a/changed.ipynb", _CHANGED["changed.ipynb"])


def _rename(user: User) -> None:
    _change(user)
    user.rename("a", "b")


def _rename_twice(user: User) -> None:
    _rename(user)
    user.rename("b", "c")


def _into_new_parent(user: User) -> None:
    _change(user)
    user.make("new")
    user.make("new/deep")
    user.rename("a", "new/deep/b")


def _into_cache(user: User) -> None:
    _change(user)
    user.make(".cache")
    user.rename("a", ".cache/x")


def _away(user: User) -> None:
    _change(user)
    user.take_away("a")


def _successor(user: User) -> None:
    _rename(user)
    user.make("a")
    user.write("a/one.txt", b"another one")


def _from_within(user: User) -> None:
    _rename(user)
    user.rename("b/sub", "c")


_B: Content = {"one.txt": b"one of b", "own.txt": b"b's own"}


def _exchange(user: User) -> None:
    user.rename("a", "t")
    user.rename("b", "a")
    user.rename("t", "b")


MOVES = {
    "renamed": Deed(_moved_to("b"), _rename),
    "renamed twice": Deed(_moved_to("b", "c"), _rename_twice),
    "into a new directory": Deed(_moved_to("new/deep/b"), _into_new_parent),
    "onto something unknown": Deed(_moved_to("b", unknown={"b/theirs.txt": b"not ours"}), _rename),
    "to where nothing is saved": Deed(Story(_OF_A, {**_STAYS, **_below(".cache/x", _CHANGED)}), _into_cache),
    "out of the home": Deed(Story(_OF_A, {**_STAYS, **_below("a", _CHANGED)}), _away),
    "with a successor": Deed(
        Story(_OF_A, {**_STAYS, **_below("b", _CHANGED), "a/one.txt": b"another one"}, {"b": "a"}),
        _successor,
        is_followed=False,
    ),
    "and one in it": Deed(
        Story(
            _OF_A,
            {
                **_STAYS,
                "b/one.txt": b"one",
                "b/changed.ipynb": _CHANGED["changed.ipynb"],
                "c/deep.py": b"deep down",
                "c/link": b"-> one.txt",
            },
            {"b": "a", "c": "a/sub"},
        ),
        _from_within,
    ),
    "exchanged": Deed(
        Story(
            {**_OF_A, **_below("b", _B)},
            {**_STAYS, **_below("b", _MOVED), **_below("a", _B)},
            {"b": "a", "t": "a"},
        ),
        _exchange,
        is_followed=False,
    ),
}
"""A directory is moved, with a change in it that nobody has saved yet."""


_IN_EVERY_RUN = {"renamed", "onto something unknown"}


def rest_is_slow(names: Iterable[str]) -> list[object]:
    """``names`` as parameters; of the moves the normal run takes some, and the long one takes all."""
    slow = tuple(name for name in MOVES if name not in _IN_EVERY_RUN)
    return [pytest.param(name, marks=pytest.mark.slow) if name.endswith(slow) else name for name in names]


_SMALL: Content = {f"small/f{number}": b"%d is new" % number for number in range(4)}


def _large(marker: bytes) -> bytes:
    """Too much to go with the small ones, and mostly a hole."""
    return marker * (2 << 20) + bytes(APART_BYTES)


def _write_large_and_small(user: User) -> None:
    user.write("d/large.bin", _large(b"+-"), is_sparse=True)
    user.make("small")
    for name, content in _SMALL.items():
        user.write(name, content)


LARGE = Deed(
    Story({**_STAYS, "d/large.bin": _large(b"=")}, {**_STAYS, **_SMALL, "d/large.bin": _large(b"+-")}),
    _write_large_and_small,
)
"""A large file is replaced, and small ones are new."""
