"""Every call to the file system fails in turn, in every way; what the journal calls safe is readable and complete."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sidecar import journal
from sidecar.config import Settings
from sidecar.engine import Engine
from sidecar.entry import Kind
from sidecar.errors import EXIT_SAFE, SidecarError
from sidecar.fsops import FileSystem
from tests.faults.faulty import Fault, FaultyFileSystem, Killed, SwiftClock

FAULTS = {
    "EIO": Fault(number=errno.EIO),
    "ENOSPC": Fault(number=errno.ENOSPC),
    "EDQUOT": Fault(number=errno.EDQUOT),
    "ESTALE": Fault(number=errno.ESTALE),
    "EIO from then on": Fault(number=errno.EIO, lasting=True),
    "ENOSPC from then on": Fault(number=errno.ENOSPC, lasting=True),
    "short write": Fault(short=True),
    "killed before": Fault(killed="before"),
    "killed after": Fault(killed="after"),
}
_OUT_OF_TIME_S = 30.0
_STEP = 9
"""Each call fails in one of the nine ways in the normal run, and in all of them in the long one."""

Content = dict[str, bytes]
"""Path → the bytes of a file, or the target of a link after an arrow."""

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


def _write(home: Path, content: Content) -> None:
    for name, data in content.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if data.startswith(b"-> "):
            path.symlink_to(os.fsdecode(data[3:]))
        else:
            path.write_bytes(data)


def _become(home: Path, content: Content) -> None:
    """The home has ``content``, and what has not changed was not touched."""
    now = _read(home)
    for name in [name for name in now if content.get(name) != now[name]]:
        (home / name).unlink()
    for directory in sorted((p for p in home.rglob("*") if p.is_dir() and not p.is_symlink()), reverse=True):
        with suppress(OSError):
            directory.rmdir()
    _write(home, {name: data for name, data in content.items() if now.get(name) != data})


def _read(top: Path) -> Content:
    found = {}
    for path in top.rglob("*"):
        name = str(path.relative_to(top))
        if name == "Save":
            continue
        if path.is_symlink():
            found[name] = b"-> " + os.fsencode(path.readlink())
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


@pytest.fixture
def top() -> Iterator[Path]:
    """A directory in memory where there is one: thousands of small trees come and go."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as directory:
        yield Path(directory)


class _Scene:
    """A home whose first state is saved, and its Persist; each fault gets a fresh copy of both."""

    def __init__(self, top: Path) -> None:
        self.home, self.persist = top / "home", top / "persist"
        self.home.mkdir(parents=True)
        self.persist.mkdir()
        self.settings = Settings(
            home=str(self.home), persist=str(self.persist), require_mount=False, socket=str(top / "socket")
        )
        _write(self.home, _BEFORE)
        assert self.save(FaultyFileSystem()) == EXIT_SAFE
        self.mirror = self.persist / "Backup" / "default"
        self.state = self.persist / ".jupyterhub-sidecar" / "default"

    @contextmanager
    def engine(self, fs: FileSystem) -> Iterator[tuple[Engine, SwiftClock]]:
        clock = SwiftClock()
        engine = Engine(fs, clock, self.settings, wake=lambda: None)
        try:
            yield engine, clock
        finally:
            with suppress(Killed, OSError):
                engine.close()

    def save(self, fs: FileSystem) -> int:
        """One life without a restore; its exit code."""
        with self.engine(fs) as (engine, clock):
            engine.flush(catch_up_s=0.0, out_of_time=lambda: clock.monotonic() > _OUT_OF_TIME_S, accept_deletions=True)
            return engine.close_books(late=False)

    def restore(self, fs: FileSystem) -> int:
        """One life in a home that may be new; its exit code, and 3 where not everything came back."""
        with self.engine(fs) as (engine, clock):
            engine.recover(lambda: False, lambda _done, _total: None)
            failed = bool(engine.recovery.failed)
            engine.flush(catch_up_s=0.0, out_of_time=lambda: clock.monotonic() > _OUT_OF_TIME_S)
            return 3 if failed else engine.close_books(late=False)

    def versions(self) -> list[tuple[str, bytes]]:
        """Every earlier content with its path, those that were moved aside without one."""
        kept = [(str(Path(name).parent), content) for name, content in _read(self.state / "versions").items()]
        aside = self.state / "aside"
        return kept + ([("", content) for content in _read(aside).values()] if aside.exists() else [])


def _ever(name: str) -> set[bytes]:
    return {state[name] for state in (_BEFORE, _AFTER) if name in state}


def _check_whole(scene: _Scene) -> None:
    """Mirror and versions hold whole contents only, the journal names nothing that is not there, nothing is lost."""
    mirror = _read(scene.mirror)
    for name, content in mirror.items():
        assert content in _ever(name), f"{name} in the mirror is no content it ever had"
    for name, content in scene.versions():
        assert not name or content in _ever(name), f"an earlier {name} is no content it ever had"
    at = os.open(scene.state, os.O_RDONLY | os.O_DIRECTORY)
    try:
        index = journal.read(FileSystem(), at).index
    finally:
        os.close(at)
    for path, entry, _ in index.items():
        name = os.fsdecode(path)
        if entry.kind is Kind.DIRECTORY:
            assert (scene.mirror / name).is_dir(), f"{name} is called safe and is not there"
            continue
        assert name in mirror, f"{name} is called safe and is not there"
    everything = {*mirror.items(), *scene.versions()}
    for name, content in _BEFORE.items():
        assert (name, content) in everything or ("", content) in everything, f"the first {name} is lost"


def _check_saved(scene: _Scene) -> None:
    """The mirror is as the home."""
    mirror = _read(scene.mirror)
    if b"unknown-" in (scene.state / "journal").read_bytes():
        # Where a home cannot be recognised it counts as a new one, and nothing in it can count as deleted.
        mirror = {name: content for name, content in mirror.items() if name in _AFTER}
    assert mirror == _AFTER, "claimed to be safe and is not"


def _lives(scene: _Scene, life: Callable[[FileSystem], int], fault: Fault) -> tuple[int | None, FaultyFileSystem]:
    """The exit code of a life with ``fault``, None where it was killed."""
    fs = FaultyFileSystem(fault)
    code: int | None
    try:
        code = life(fs)
    except SidecarError as error:
        code = error.exit_code
    except Killed:
        code = None
    finally:
        fs.bury()
    return code, fs


def _every_call(
    top: Path, prepare: Callable[[_Scene], None], life: str, *, name: str, step: int
) -> Iterator[tuple[_Scene, int | None]]:
    """A scene and its exit code for every ``step``-th call of the life in turn; other faults begin at other calls."""
    fault = FAULTS[name]
    for at in itertools.count(1 + list(FAULTS).index(name) % step, step):
        place = top / "scene"
        shutil.rmtree(place, ignore_errors=True)
        scene = _Scene(place)
        prepare(scene)
        code, fs = _lives(scene, getattr(scene, life), Fault(**{**vars(fault), "at": at}))
        if not fs.happened:
            assert code == EXIT_SAFE
            return
        yield scene, code


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("step", [_STEP, pytest.param(1, marks=pytest.mark.slow)])
def test_whatever_call_fails_while_saving_nothing_is_torn_lost_or_falsely_called_safe(
    top: Path, name: str, step: int
) -> None:
    count = 0
    for scene, code in _every_call(top, lambda scene: _become(scene.home, _AFTER), "save", name=name, step=step):
        count += 1
        _check_whole(scene)
        assert _read(scene.home) == _AFTER, "the home was touched"
        if code == EXIT_SAFE:
            _check_saved(scene)
        assert scene.save(FaultyFileSystem()) == EXIT_SAFE
        _check_whole(scene)
        _check_saved(scene)
        assert not list((scene.state / "staging").iterdir())
    assert count > 100 // step


def _lose_home(scene: _Scene) -> None:
    shutil.rmtree(scene.home)
    scene.home.mkdir()


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("step", [_STEP, pytest.param(1, marks=pytest.mark.slow)])
def test_whatever_call_fails_while_restoring_the_mirror_stays_and_the_next_start_brings_all_back(
    top: Path, name: str, step: int
) -> None:
    count = 0
    for scene, code in _every_call(top, _lose_home, "restore", name=name, step=step):
        count += 1
        _check_whole(scene)
        assert _read(scene.mirror) == _BEFORE, "a restore changed the mirror"
        for path, content in _read(scene.home).items():
            assert content == _BEFORE.get(path) or path.rpartition("/")[2].startswith(".~"), f"{path} is torn"
        if code == EXIT_SAFE:
            assert _read(scene.home) == _BEFORE
        assert scene.restore(FaultyFileSystem()) == EXIT_SAFE
        assert {n: c for n, c in _read(scene.home).items() if ".~" not in n} == _BEFORE
        assert _read(scene.mirror) == _BEFORE
    assert count > 100 // step
