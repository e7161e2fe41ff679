"""Every call fails in turn while a large file is copied beside small ones; and a file that goes before it is there."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.errors import EXIT_SAFE
from sidecar.home.watch import What
from tests.faults.faulty import MODES, FaultyFileSystem
from tests.faults.scene import OUT_OF_TIME_S, STATE, Scene, files, read, save
from tests.faults.stories import LARGE, User
from tests.faults.turns import every_call

_STEPS = [("", 307), ("large", 13), *(pytest.param(name, 5, marks=pytest.mark.slow) for name in ("", "large"))]
"""Whose calls, and of how many pairs of a call and a fault one is taken: the long run meets every call."""


def _left_behind(scene: Scene) -> set[str]:
    """What the last life says that it could not save."""
    place = scene.persist / STATE / "left-behind.json"
    return {entry["path"] for entry in json.loads(place.read_bytes())["files"]} if place.exists() else set()


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize(("thread", "step"), _STEPS)
def test_whatever_call_fails_while_a_large_file_is_copied_it_is_saved_or_named_and_the_small_ones_are_saved(
    top: Path, kind: str, thread: str, step: int
) -> None:
    count = 0

    def begin() -> Scene:
        return Scene(top / "scene", LARGE.story, MODES[kind])

    offset = 97 * [*MODES].index(kind)
    for scene, code, fs in every_call(begin, LARGE.live, step=step, offset=offset, armed=False, thread=thread):
        count += 1
        home, backup = read(scene.home), scene.backup
        backup.check()
        if code == EXIT_SAFE:
            backup.check_mirrors(home)
        elif code is not None and fs.thread.startswith("large") and not fs.fault.lasting:
            unsaved = {name for name, content in files(home).items() if backup.mirror.get(name) != content}
            assert unsaved == {"d/large.bin"} == _left_behind(scene)
        assert scene.live(save, scene.sound()) == EXIT_SAFE
        scene.backup.check()
        scene.backup.check_mirrors(home)
        assert not scene.backup.staged
    assert count > (80 if thread else 500) // step


class _Waits(FaultyFileSystem):
    """The kernel begins to copy a large file, and goes on when it is told to."""

    def __init__(self, kind: int) -> None:
        super().__init__(kind=kind)
        self.has_begun, self.go_on = threading.Event(), threading.Event()

    def copy_range(self, source: int, target: int, count: int, source_offset: int, target_offset: int) -> int:
        self.has_begun.set()
        self.go_on.wait(20)
        return super().copy_range(source, target, count, source_offset, target_offset)


def _remove(user: User, home: Path) -> None:
    shutil.rmtree(home / "d")
    for name in ("d/large.bin", "d"):
        user.saw(name, What.CHANGED)


WAYS: dict[str, Callable[[User, Path], None]] = {
    "is removed": _remove,
    "is renamed": lambda user, _home: user.rename("d", "e"),
    "is taken away": lambda user, _home: user.take_away("d"),
}


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("way", WAYS)
def test_a_large_file_whose_directory_goes_while_it_is_copied_is_not_where_it_was(
    top: Path, way: str, kind: str
) -> None:
    scene = Scene(top / "scene", LARGE.story, MODES[kind])
    fs = _Waits(scene.kind)
    with scene.engine(fs) as (engine, clock):
        engine.finder.scan()
        engine.turn()
        user = User(scene.home, engine)
        LARGE.do(user)
        engine.turn()
        clock.sleep(1.0)
        engine.turn()
        assert fs.has_begun.wait(20)
        WAYS[way](user, scene.home)
        for _ in range(5):
            engine.turn()
            clock.sleep(1.0)
        fs.go_on.set()
        assert engine.drain(lambda: clock.monotonic() > OUT_OF_TIME_S) == EXIT_SAFE
    assert not os.path.lexists(scene.home / "d")
    scene.backup.check_mirrors(read(scene.home))
    assert scene.live(save, scene.sound()) == EXIT_SAFE
    scene.backup.check_mirrors(read(scene.home))
    assert not scene.backup.staged
