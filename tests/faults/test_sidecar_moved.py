"""A directory is renamed while the sidecar runs, and every call fails in turn: nothing is lost, history is right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.clock import Clock
from sidecar.errors import EXIT_SAFE
from tests.faults.faulty import MODES, NO_FAULT, Fault, FaultyFileSystem, SwiftClock
from tests.faults.scene import Content, Scene, Tree, files, read, save, size_of
from tests.faults.stories import MOVES, Deed, rest_is_slow
from tests.faults.turns import FAULTS, every_call

_STEP, _LONG_STEP = 997, 7
"""Pairs of a call and a fault, of which the normal and the long run take one: the long one meets every call."""
_DAY_NS = 86_400 * 10**9


def _saved_home(scene: Scene) -> Tree:
    """The home without what is left out."""
    return {name: content for name, content in read(scene.home).items() if not name.startswith(".cache")}


def _check_history(scene: Scene, deed: Deed, *, exact: bool) -> None:
    """The archive knows what was at first, and what is now; ``exact``: and that there was nothing else."""
    first = scene.story.before
    assert all(size_of(content) in scene.sizes_ever_at(name) for name, content in first.items())
    if deed.is_followed:
        then = scene.contents_at("", scene.began_ns + 1000)
        assert {name: then.get(name) for name in first} == first
        assert not exact or then == first
        assert scene.contents_at("a", scene.began_ns + 1000) == _below(first, "a")
    now = files(_saved_home(scene))
    assert scene.contents_at("", Clock().now_ns() + _DAY_NS) == now
    assert scene.contents_at("", None).items() >= now.items()


def _below(content: Content, directory: str) -> Content:
    return {name: each for name, each in content.items() if name.startswith(directory + "/")}


def _live_on(scene: Scene, deed: Deed, *, exact: bool = False) -> None:
    """Two more lives, in which nothing happens: what the first one leaves behind, the second one reads."""
    now = files(_saved_home(scene))
    asked_ns = []
    for _ in range(2):
        assert scene.live(save, scene.sound()) == EXIT_SAFE
        scene.backup.check()
        scene.backup.check_mirrors(_saved_home(scene))
        assert not scene.backup.staged
        _check_history(scene, deed, exact=exact)
        asked_ns.append(SwiftClock().now_ns())
        assert all(scene.contents_at("", at_ns) == now for at_ns in asked_ns)


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("deed", MOVES)
def test_a_directory_that_is_moved_has_its_history_under_each_of_its_names(top: Path, deed: str, kind: str) -> None:
    scene = Scene(top / "scene", MOVES[deed].story, MODES[kind])
    assert scene.live(MOVES[deed].live, FaultyFileSystem(kind=scene.kind, armed=False)) == EXIT_SAFE
    _check_history(scene, MOVES[deed], exact=True)
    _live_on(scene, MOVES[deed], exact=True)


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("name", ["EIO", "killed before"])
def test_a_move_that_is_cut_short_has_happened_or_never_will(top: Path, name: str, kind: str) -> None:
    deed = MOVES["renamed"]

    def attempt(fault: Fault) -> tuple[Scene, FaultyFileSystem]:
        scene = Scene(top / "scene", deed.story, MODES[kind])
        fs = FaultyFileSystem(fault, kind=scene.kind, armed=False)
        scene.live(deed.live, fs)
        return scene, fs

    rename = attempt(NO_FAULT)[1].calls.index("rename")
    for at in range(rename - 3, rename + 15):  # from the journal's MOVING to its MOVED
        scene, fs = attempt(replace(FAULTS[name], at=at))
        assert fs.happened
        scene.backup.check()
        _live_on(scene, deed)


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("deed", rest_is_slow(MOVES))
@pytest.mark.parametrize("step", [_STEP, pytest.param(_LONG_STEP, marks=pytest.mark.slow)])
def test_whatever_call_fails_while_a_directory_is_moved_nothing_is_lost(
    top: Path, deed: str, kind: str, step: int
) -> None:
    count = 0

    def begin() -> Scene:
        return Scene(top / "scene", MOVES[deed].story, MODES[kind])

    offset = 97 * [*MOVES].index(deed) + 41 * [*MODES].index(kind)  # what one meets seldom, another one meets
    for scene, code, _ in every_call(begin, MOVES[deed].live, step=step, offset=offset, armed=False):
        count += 1
        scene.backup.check()
        if code == EXIT_SAFE:
            scene.backup.check_mirrors(_saved_home(scene))
        _live_on(scene, MOVES[deed])
    assert count > 500 // step
