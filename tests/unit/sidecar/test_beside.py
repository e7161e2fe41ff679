"""What is staged in the mirror itself is swept after a kill, and nothing else is; nobody takes it for the user's."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecar.backup.beside import NAME, Beside
from sidecar.backup.mirror import read_mirror
from sidecar.backup.store import Store
from sidecar.clock import Clock
from sidecar.copy import Copier, Source, Staged
from sidecar.crew import Crew
from sidecar.entry import Entry, name_of
from sidecar.fsops import DestinationError, FileSystem, current_umask
from sidecar.select import BESIDE_PREFIX
from tests.unit.sidecar.stores import MIRROR, STATE, SetClock, opened_store, save

_RECORD = STATE / os.fsdecode(NAME)


class _Far(FileSystem):
    """A file system on which each file is synced for itself, and which counts the calls that change it."""

    def __init__(self) -> None:
        self.changes: list[str] = []

    def file_system_type(self, fd: int) -> int:  # noqa: ARG002  the call's signature
        return 0x6969

    def open(self, name: bytes, flags: int, mode: int = 0o600, *, at: int | None = None) -> int:
        if flags & os.O_CREAT:
            self.changes.append("create")
        return super().open(name, flags, mode, at=at)

    def fchmod(self, fd: int, mode: int) -> None:
        self.changes.append("fchmod")
        super().fchmod(fd, mode)

    def rename(self, source: bytes, target: bytes, *, source_at: int, target_at: int) -> None:
        self.changes.append("rename" if source_at == target_at else "rename to another directory")
        super().rename(source, target, source_at=source_at, target_at=target_at)


def _stage(
    store: Store, home: Path, contents: dict[bytes, bytes], *, mode: int = 0o644, fs: FileSystem | None = None
) -> list[Staged]:
    """The files are in the home, and staged where their copies are to stand."""
    home.mkdir(exist_ok=True)
    clock = Clock()
    copier = Copier(fs or FileSystem(), clock, -1, 1 << 30, clock.sleep, lambda: False)
    store.make_ready(contents)
    at = os.open(home, os.O_RDONLY)
    staged = []
    for path, content in contents.items():
        file = home / os.fsdecode(name_of(path))
        file.write_bytes(content)
        file.chmod(mode)
        os.utime(file, ns=(10**18, 10**18))
        entry = Entry.of(file.lstat())
        assert entry is not None
        directory = store.place.directories([path])[0]
        source = Source(name_of(path), at, entry)
        result = copier.stage_beside(source, store.place.beside.new_names(1)[0], directory)
        assert isinstance(result, Staged)
        staged.append(result._replace(path=path))
    os.close(at)
    return staged


def _temporaries(persist: Path) -> list[Path]:
    return [path for path in (persist / MIRROR).rglob("*") if path.name.startswith(os.fsdecode(BESIDE_PREFIX))]


_TWO = {b"d/one.py": b"one", b"e/deep/two.py": b"two"}


def test_what_a_kill_left_in_the_mirror_is_gone_after_the_next_start(tmp_path: Path) -> None:
    persist = tmp_path / "persist"
    with opened_store(persist, SetClock(), _Far()) as store:
        save(store, {b"d/one.py": b"as it was"}, SetClock())
        _stage(store, tmp_path / "home", _TWO)
        assert len(_temporaries(persist)) == 2
        # Nobody goes on from here: what is open is closed, as when a process ends.
    with opened_store(persist, SetClock(), _Far()) as store:
        assert _temporaries(persist) == []
        assert (persist / MIRROR / "d/one.py").read_bytes() == b"as it was"
        assert store.index.get(b"d/one.py") is not None


def test_a_backup_without_the_record_and_one_with_it_can_both_be_opened(tmp_path: Path) -> None:
    with opened_store(tmp_path, SetClock()) as store:  # on a local disk nobody needs it
        save(store, _TWO, SetClock())
    assert not (tmp_path / _RECORD).exists()
    with opened_store(tmp_path, SetClock(), _Far()) as store:
        store.make_ready([b"d/x"])
        assert (tmp_path / _RECORD).stat().st_size > 0
        assert store.index.files == 2
    with opened_store(tmp_path, SetClock()) as store:
        assert store.index.files == 2


def test_nobody_takes_a_temporary_name_for_a_file_of_the_user(tmp_path: Path) -> None:
    persist = tmp_path / "persist"
    with opened_store(persist, SetClock(), _Far()) as store:
        _stage(store, tmp_path / "home", _TWO)
        index = read_mirror(FileSystem(), store.place.layout)
        assert index.files == 0
        assert index.get(b"e/deep") is not None


def test_only_files_and_links_with_our_name_in_the_directories_of_the_record_are_swept(tmp_path: Path) -> None:
    persist, outside = tmp_path / "persist", tmp_path / "outside"
    ours = os.fsdecode(BESIDE_PREFIX)
    with opened_store(persist, SetClock(), _Far()) as store:
        save(store, {b"d/kept": b"1", b"other/kept": b"2"}, SetClock())
        store.make_ready([b"d/x", b"planted/x"])
        (persist / MIRROR / "d" / f"{ours}1").write_text("a stump")
        (persist / MIRROR / "d" / f"{ours}2").symlink_to(outside)
        (persist / MIRROR / "d" / f"{ours}3").mkdir()
        os.mkfifo(persist / MIRROR / "d" / f"{ours}4")
        (persist / MIRROR / "d" / "mine").write_text("without a record")
        (persist / MIRROR / "other" / f"{ours}5").write_text("of nobody")
        outside.mkdir()
        (outside / f"{ours}6").write_text("outside")
        (persist / MIRROR / "planted").rmdir()
        (persist / MIRROR / "planted").symlink_to(outside)
    with opened_store(persist, SetClock(), _Far()):
        assert sorted(path.name for path in (persist / MIRROR / "d").iterdir()) == [
            f"{ours}3",
            f"{ours}4",
            "kept",
            "mine",
        ]
        assert (persist / MIRROR / "other" / f"{ours}5").exists()
        assert (outside / f"{ours}6").exists()


def test_what_stands_under_a_temporary_name_is_never_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    persist = tmp_path / "persist"
    victim = tmp_path / "victim"
    victim.write_text("of the user")
    monkeypatch.setattr(Beside, "new_names", staticmethod(lambda count: [BESIDE_PREFIX + b"guessed"] * count))
    with opened_store(persist, SetClock(), _Far()) as store:
        save(store, {b"d/kept": b"1"}, SetClock())
        (persist / MIRROR / "d" / os.fsdecode(BESIDE_PREFIX + b"guessed")).symlink_to(victim)
        with pytest.raises(DestinationError):
            _stage(store, tmp_path / "home", {b"d/one.py": b"one"})
    assert victim.read_text() == "of the user"


def test_one_who_wakes_up_after_another_has_swept_finds_nothing_to_put_in_place(tmp_path: Path) -> None:
    persist = tmp_path / "persist"
    with opened_store(persist, SetClock(), _Far()) as zombie:
        staged = _stage(zombie, tmp_path / "home", _TWO)
        with opened_store(persist, SetClock(), _Far()) as store:
            with pytest.raises(DestinationError, match="No such file"):
                zombie.commit(staged)
            assert store.index.files == 0
    assert [path for path in (persist / MIRROR).rglob("*") if path.is_file()] == []


def test_a_file_is_made_in_its_directory_with_its_mode_and_needs_one_rename(tmp_path: Path) -> None:
    fs = _Far()
    with opened_store(tmp_path / "persist", SetClock(), fs) as store:
        for mode in (0o600, 0o644, 0o444, 0o666, 0o700):
            name = b"d/%o" % mode
            fs.changes.clear()
            store.commit(_stage(store, tmp_path / "home", {name: b"content"}, mode=mode, fs=fs))
            status = (tmp_path / "persist" / MIRROR / os.fsdecode(name)).stat()
            assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (mode, 10**18)
            assert fs.changes.count("rename to another directory") == 0
            assert fs.changes.count("fchmod") == (mode == 0o444 or bool(mode & current_umask()))


@contextmanager
def _record(top: Path) -> Iterator[tuple[Beside, Path]]:
    for name in ("mirror", "state"):
        (top / name).mkdir(exist_ok=True)
    mirror, state = (os.open(top / name, os.O_RDONLY) for name in ("mirror", "state"))
    crew = Crew()
    beside = Beside(FileSystem(), crew, mirror, state)
    try:
        yield beside, top / "state" / os.fsdecode(NAME)
    finally:
        beside.close()
        crew.close()
        os.close(mirror)
        os.close(state)


def _left(top: Path, directory: str) -> Path:
    (top / "mirror" / directory).mkdir(parents=True, exist_ok=True)
    path = top / "mirror" / directory / os.fsdecode(BESIDE_PREFIX + b"1")
    path.touch()
    return path


def test_a_clean_end_leaves_nothing_to_look_for_and_any_other_does(tmp_path: Path) -> None:
    with _record(tmp_path) as (beside, record):
        beside.begin({b"a", b""})
        beside.settle(set())
    assert record.read_bytes() == b""
    with _record(tmp_path) as (beside, record):
        beside.begin({b"a", b"b"})
        beside.settle({b"b"})
        beside.begin({b"c"})
        beside.settle(set())
    left = [_left(tmp_path, name) for name in "abc"]
    with _record(tmp_path) as (beside, _):
        beside.sweep()
    assert not any(path.exists() for path in left), "it may name more than it must"


def test_where_something_may_have_stayed_is_remembered_however_much_is_recorded_after(tmp_path: Path) -> None:
    with _record(tmp_path) as (beside, record):
        beside.begin({b"doubtful"})
        beside.settle({b"doubtful"})
        beside.begin({b"failed"})  # and never settled
        for number in range(5):
            beside.begin({b"%d-%d" % (number, each) for each in range(400)})
            beside.settle(set())
        assert record.stat().st_size < 800 * 20, "it does not grow for ever"
        beside.follow(b"failed", b"renamed")
    left = [_left(tmp_path, name) for name in ("doubtful", "failed", "renamed")]
    other = _left(tmp_path, "0-1")
    with _record(tmp_path) as (beside, _):
        beside.sweep()
    assert not any(path.exists() for path in left)
    assert other.exists()


def test_of_a_record_that_was_cut_off_the_rest_counts_and_the_next_is_written_anew(tmp_path: Path) -> None:
    with _record(tmp_path) as (beside, record):
        beside.begin({b"a"})
        beside.begin({b"b"})
        content = record.read_bytes()
        beside.settle({b"a", b"b"})
    record.write_bytes(content[:-1])
    left = [_left(tmp_path, name) for name in "ab"]
    with _record(tmp_path) as (beside, _):
        beside.sweep()
        assert [path.exists() for path in left] == [False, True]
        beside.begin({b"b"})
    with _record(tmp_path) as (beside, _):
        beside.sweep()
    assert not left[1].exists()


class _FailsToSync(FileSystem):
    is_armed = False

    def fsync(self, fd: int) -> None:
        if self.is_armed:
            raise OSError(28, "No space left on device")
        super().fsync(fd)


def test_nothing_is_staged_where_the_record_could_not_be_made_durable(tmp_path: Path) -> None:
    fs = _FailsToSync()
    with _record(tmp_path) as (beside, record):
        beside._fs = fs
        beside.begin({b"a"})
        beside.settle(set())
        fs.is_armed = True
        with pytest.raises(OSError, match="No space"):
            beside.begin({b"b"})
        fs.is_armed = False
        beside.begin({b"b"})
        assert record.read_bytes().count(b"\x01b") == 1
    left = _left(tmp_path, "b")
    with _record(tmp_path) as (beside, _):
        beside.sweep()
    assert not left.exists()
