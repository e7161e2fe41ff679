"""The power is cut after any call: what the sidecar had called safe by then is there, and every file is whole.

What is held here, of "what was saved is whole", in every state that ``disk`` allows:

- every file in the mirror and among the versions is one complete content that its path had. Only what is being staged,
  outside of both, may be torn;
- what the journal had durably called safe before the cut is in the mirror; or something newer is, and it is a version.
  That holds whether or not the journal itself survived;
- what the journal that survived calls safe is there too;
- what was in the backup before is still somewhere in it, and after the next start it is found by its time;
- the next start ends well, with the mirror as the home.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest

from sidecar.backup import journal
from sidecar.backup.journal import Replayed
from sidecar.errors import EXIT_SAFE
from tests.faults.disk import WORST, Disk, Fate, Found, Told, by_chance, contents, put_down
from tests.faults.faulty import MODES, NO_FAULT, Fault
from tests.faults.recording import Record, RecordingFileSystem
from tests.faults.scene import STATE, Backup, Life, Scene, Story, Tree, become, read, save
from tests.faults.stories import CHANGES, FIRST, MOVES, rest_is_slow
from tests.faults.turns import FAULTS

_STEP, _LONG_STEP = 397, 5
"""States of which the normal and the long run let one start again; every one is looked at."""


@dataclass(frozen=True)
class _Play:
    """A life to cut short, in a backup that may have lost its journal."""

    story: Story
    life: Life = save
    is_running: bool = False
    """The life is quiet at first, and ``life`` arms the file system when it begins in earnest."""
    has_journal: bool = True
    has_history: bool = True
    """What was before can be asked for by its time."""

    def begin(self, top: Path, kind: int) -> Scene:
        scene = Scene(top / "scene", self.story, kind)
        if not self.is_running:
            become(scene.home, self.story.after)
        if not self.has_journal:
            (scene.persist / STATE / "journal").unlink()
        return scene


PLAYS = {
    "first backup": _Play(FIRST),
    "changes": _Play(CHANGES),
    "changes, and the journal is lost": _Play(CHANGES, has_journal=False),
    **{
        f"a directory {name}": _Play(deed.story, deed.live, is_running=True, has_history=deed.is_followed)
        for name, deed in MOVES.items()
    },
}


def _claims(disk: Disk) -> Replayed | None:
    """What the sidecar may say is safe: the journal that it has open says so durably."""
    content = disk.durable(STATE + "journal")
    return None if content is None else journal.replay([content])


def _check(found: dict[str, Found], claims: Replayed | None, story: Story) -> Backup:
    backup = Backup(contents(found), story)
    backup.check_whole()
    backup.check_swept()
    for says in (claims, backup.says):
        if says is not None:
            backup.check_safe(says)
    backup.check_nothing_lost()
    return backup


def _saved_home(scene: Scene) -> Tree:
    """The home without what is left out."""
    return {name: content for name, content in read(scene.home).items() if not name.startswith(".cache")}


def _check_all_is_there(scene: Scene, found: dict[str, Found]) -> None:
    """The sidecar has ended, and has said that all is safe."""
    mirror, home = Backup(contents(found), scene.story).mirror, _saved_home(scene)
    assert {name: mirror.get(name, b"nothing") for name in home} == home


def _start_again(scene: Scene, found: dict[str, Found], *, has_history: bool) -> None:
    """The power is back, and the home has survived: a hard disk does, and then the pod starts again."""
    shutil.rmtree(scene.persist)
    scene.persist.mkdir()
    put_down(found, scene.persist)
    knew = scene.backup.says
    assert scene.live(save, scene.sound()) == EXIT_SAFE
    backup = scene.backup
    backup.check()
    home = _saved_home(scene)
    # What no journal says that this home has had cannot count as deleted.
    known = knew.index.items() if knew is not None and knew.session else ()
    held = {os.fsdecode(path) for path, _, is_held in known if is_held}
    backup.mirror = {name: content for name, content in backup.mirror.items() if name in home or name in held}
    backup.check_mirrors(home)
    assert not backup.staged
    if has_history:
        assert scene.contents_at("", scene.began_ns + 1000).items() >= scene.story.before.items()


@contextmanager
def _blamed_on(cause: str) -> Iterator[None]:
    try:
        yield
    except AssertionError as error:
        error.add_note(cause)
        raise


def _fates(call: int, chances: int) -> dict[str, Fate]:
    return {**WORST, **{f"by chance {seed}": by_chance((call, seed)) for seed in range(chances)}}


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("play", rest_is_slow(PLAYS))
@pytest.mark.parametrize("step", [_STEP, pytest.param(_LONG_STEP, marks=pytest.mark.slow)])
def test_after_a_power_cut_all_that_was_called_safe_is_there_and_whole(
    top: Path, play: str, kind: str, step: int
) -> None:
    scene = PLAYS[play].begin(top, MODES[kind])
    record = Record(scene.persist)
    disk = Disk()
    disk.hear(record.take())
    fs = RecordingFileSystem(record, kind=scene.kind, armed=not PLAYS[play].is_running)
    assert scene.live(PLAYS[play].life, fs) == EXIT_SAFE
    turns = count()
    for number, call in enumerate(record.take()):
        disk.hear([call])
        claims = _claims(disk)
        for name, fate in _fates(number, 8 if step == _LONG_STEP else 1).items():
            found = disk.after_cut(fate)
            with _blamed_on(f"the power cut after call {number}, {call}: {name}"):
                _check(found, claims, scene.story)
                if next(turns) % step == 0:
                    _start_again(scene, found, has_history=PLAYS[play].has_history)
    for name, fate in _fates(0, 1).items():
        with _blamed_on(f"the power cut after the end: {name}"):
            _check_all_is_there(scene, disk.after_cut(fate))
    assert next(turns) > 150


_SYNCS = {"fsync", "sync_file_system"}


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize(
    ("name", "every"),
    [
        ("EIO", False),
        pytest.param("EIO", True, marks=pytest.mark.slow),
        pytest.param("killed before", True, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "play", ["first backup", "changes", "a directory renamed", "a directory onto something unknown"]
)
def test_what_was_saved_after_a_failure_survives_a_power_cut_too(
    top: Path, play: str, name: str, kind: str, every: bool
) -> None:
    """A sync, or with ``every`` any call, fails and is tried again, or another process goes on: none is forgotten."""
    calls = _attempt(top, play, MODES[kind], NO_FAULT).fs.calls
    points = [at for at, call in enumerate(calls, 1) if every or call in _SYNCS]
    for at in points:
        fault = replace(FAULTS[name], at=at)
        attempt = _attempt(top, play, MODES[kind], fault)
        if not attempt.fs.happened:
            break  # the threads had a little less to do this time
        disk = Disk()
        codes = [attempt.code, attempt.scene.live(save, RecordingFileSystem(attempt.record, kind=MODES[kind]))]
        assert codes[1] == EXIT_SAFE
        for code, told in zip(codes, (attempt.told, attempt.record.take()), strict=True):
            disk.hear(told)
            for fate_name, fate in _fates(at, 1).items():
                with _blamed_on(f"the power cut after {fault}: {fate_name}"):
                    found = disk.after_cut(fate)
                    _check(found, _claims(disk), attempt.scene.story)
                    if code == EXIT_SAFE:
                        _check_all_is_there(attempt.scene, found)
    assert at > len(calls) // 2


@dataclass(frozen=True)
class _Attempt:
    """One life with a fault."""

    scene: Scene
    record: Record
    fs: RecordingFileSystem
    code: int | None
    told: list[Told]


def _attempt(top: Path, play: str, kind: int, fault: Fault) -> _Attempt:
    scene = PLAYS[play].begin(top, kind)
    record = Record(scene.persist)
    fs = RecordingFileSystem(record, fault, kind=kind, armed=not PLAYS[play].is_running)
    code = scene.live(PLAYS[play].life, fs)
    return _Attempt(scene, record, fs, code, record.take())
