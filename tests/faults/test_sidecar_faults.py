"""Every call to the file system fails in turn, in every way; what the journal calls safe is readable and complete."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from sidecar.errors import EXIT_SAFE
from tests.faults.faulty import CALLS, MODES, Fault, FaultyFileSystem
from tests.faults.scene import STATE, Scene, become, files, read, restore, save
from tests.faults.stories import CHANGES, LARGE
from tests.faults.turns import every_call

_STEP = 149
"""Pairs of a call and a fault, of which the normal run takes one and the long one takes all."""


def test_no_call_is_left_out(top: Path) -> None:
    met: set[str] = set()
    for story, life in ((LARGE.story, LARGE.live), (CHANGES, save), (CHANGES, restore)):
        scene = Scene(top / "scene", story)
        if life is save:
            become(scene.home, story.after)
        if life is restore:
            _lose_home(scene)
            (scene.persist / STATE / "journal").unlink()
        fs = scene.sound()
        assert scene.live(life, fs) == EXIT_SAFE
        met.update(fs.calls)
    assert met == CALLS


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("step", [_STEP, pytest.param(1, marks=pytest.mark.slow)])
def test_whatever_call_fails_while_saving_nothing_is_torn_lost_or_falsely_called_safe(
    top: Path, kind: str, step: int
) -> None:
    changed = Scene(top / "scene", CHANGES, MODES[kind])
    become(changed.home, CHANGES.after)
    changed.keep_persist()
    home = read(changed.home)

    def begin() -> Scene:
        changed.put_persist_back()
        return changed

    count = left = 0
    for scene, code, _ in every_call(begin, save, step=step, offset=31 * [*MODES].index(kind)):
        count += 1
        left += bool(scene.backup.beside)
        scene.backup.check()
        assert read(scene.home) == home, "the home was touched"
        if code == EXIT_SAFE:
            scene.backup.check_mirrors(home)
        assert scene.live(save, scene.sound()) == EXIT_SAFE
        scene.backup.check()
        scene.backup.check_mirrors(home)
        assert not scene.backup.staged
    assert count > 1000 // step
    assert (left > 0) == (kind == "by file"), "nothing was ever swept from the mirror, or should not have been there"


@pytest.mark.parametrize("kind", MODES)
def test_whatever_cannot_be_looked_at_is_saved_or_not_called_safe(top: Path, kind: str) -> None:
    scene = Scene(top / "scene", CHANGES, MODES[kind])
    become(scene.home, CHANGES.after)
    scene.keep_persist()
    home = read(scene.home)
    fs = scene.sound()
    assert scene.live(save, fs) == EXIT_SAFE
    looks = [at for at, call in enumerate(fs.calls, 1) if call == "lstat"]
    assert len(looks) > len(home)
    for at in looks:
        scene.put_persist_back()
        code = scene.live(save, FaultyFileSystem(Fault(at=at, number=errno.EIO), kind=scene.kind))
        scene.backup.check()
        if code == EXIT_SAFE:
            scene.backup.check_mirrors(home)


def _lose_home(scene: Scene) -> None:
    shutil.rmtree(scene.home)
    scene.home.mkdir()


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("step", [_STEP, pytest.param(1, marks=pytest.mark.slow)])
def test_whatever_call_fails_while_restoring_the_mirror_stays_and_the_next_start_brings_all_back(
    top: Path, kind: str, step: int
) -> None:
    saved = Scene(top / "scene", CHANGES, MODES[kind])
    saved.keep_persist()
    before = CHANGES.before

    def begin() -> Scene:
        saved.put_persist_back()
        _lose_home(saved)
        return saved

    count = 0
    for scene, code, _ in every_call(begin, restore, step=step, offset=31 * [*MODES].index(kind)):
        count += 1
        scene.backup.check()
        assert files(scene.backup.mirror) == before, "a restore changed the mirror"
        for path, content in files(read(scene.home)).items():
            assert content == before.get(path) or path.rpartition("/")[2].startswith(".~"), f"{path} is torn"
        if code == EXIT_SAFE:
            assert files(read(scene.home)) == before
        assert scene.live(restore, scene.sound()) == EXIT_SAFE
        assert {n: c for n, c in files(read(scene.home)).items() if ".~" not in n} == before
        assert files(scene.backup.mirror) == before
    assert count > 1000 // step


def test_a_life_without_a_fault_syncs_as_its_file_system_asks(top: Path) -> None:
    for kind, number in MODES.items():
        scene = Scene(top / "scene", CHANGES, number)
        become(scene.home, CHANGES.after)
        fs = FaultyFileSystem(kind=number)
        assert scene.live(save, fs) == EXIT_SAFE
        assert ("sync_file_system" in fs.calls) == (kind == "as a whole")
