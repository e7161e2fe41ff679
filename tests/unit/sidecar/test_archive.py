"""What the backup answers, read from Persist itself: whatever was moved, deleted, or is being written meanwhile."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from sidecar.archive import Archive, Past
from sidecar.backup.index import Index
from sidecar.backup.journal import Journal
from sidecar.backup.moves import Moves
from sidecar.backup.path_history import is_within
from sidecar.backup.persist import Layout
from sidecar.backup.versions import Span, version_name
from sidecar.clock import Clock, iso, parse_time
from sidecar.config import Settings
from sidecar.entry import Entry, Kind
from sidecar.errors import NothingToRestore
from sidecar.fsops import FileSystem
from sidecar.restore import Wanted
from tests.unit.sidecar.histories import TICK_NS, History, Step, steps

_S = 10**9


@dataclass
class Backup:
    """A backup made by hand: every content is a short text."""

    top: Path

    def __post_init__(self) -> None:
        self.settings = Settings(home=str(self.top / "home"), persist=str(self.top / "persist"), require_mount=False)
        os.mkdir(self.settings.persist)
        layout = Layout(FileSystem(), Clock(), self.settings)
        layout.prepare()
        layout.close()
        self.mirror = Path(self.settings.persist, "Backup", "default")
        self.state = Path(self.settings.persist, ".jupyterhub-sidecar", "default")
        self.index = Index()

    def current(self, path: bytes, text: str, since_ns: int) -> None:
        self._put(self.mirror / os.fsdecode(path), text)
        self.index.put(path, Entry(Kind.FILE, 0o644, len(text), 0, 0, 0, since_ns), held=True)

    def directory(self, path: bytes) -> None:
        (self.mirror / os.fsdecode(path)).mkdir(parents=True)
        self.index.put(path, Entry(Kind.DIRECTORY, 0o755, 0, 0, 0, 0, 0), held=True)

    def version(self, path: bytes, text: str, from_ns: int, until_ns: int) -> None:
        name = version_name(Span(from_ns, until_ns))
        self._put(self.state / "versions" / os.fsdecode(path) / os.fsdecode(name), text)

    def _put(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def moved(self, at_ns: int, old: bytes, new: bytes) -> None:
        with self._open_state() as fd:
            assert Moves(FileSystem(), fd).append(at_ns, old, new) == at_ns

    @contextmanager
    def archive(self, fs: FileSystem | None = None) -> Iterator[Archive]:
        with self._open_state() as fd:
            journal = Journal(FileSystem(), fd)
            journal.rewrite(self.index, b"session")
            journal.close()
        archive = Archive(fs or FileSystem(), Clock(), self.settings)
        yield archive
        archive.close()

    @contextmanager
    def _open_state(self) -> Iterator[int]:
        fd = os.open(self.state, os.O_RDONLY | os.O_DIRECTORY)
        yield fd
        os.close(fd)

    def texts(self, wanted: list[Wanted]) -> dict[bytes, str]:
        """Path → the text that would be put back there."""
        persist = Path(self.settings.persist)
        found = {w.path: (persist / os.fsdecode(w.directory) / os.fsdecode(w.name)).read_text() for w in wanted}
        assert len(found) == len(wanted)
        return found

    def at(self, path: bytes, at_ns: int | None) -> dict[bytes, str]:
        """As ``texts``; empty where there is nothing to restore."""
        with self.archive() as archive:
            try:
                return self.texts(archive.wanted(path, at_ns))
            except NothingToRestore:
                return {}

    def past(self, path: bytes) -> list[tuple[int, int | None]]:
        with self.archive() as archive:
            return [(past.from_ns, past.until_ns) for past in archive.history(path)]


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    return Backup(tmp_path)


def _made(top: Path, history: History) -> Backup:
    backup = Backup(top)
    for stored in history.stored:
        if stored.until_ns is None:
            backup.current(stored.place, str(stored.content), stored.from_ns)
        else:
            backup.version(stored.place, str(stored.content), stored.from_ns, stored.until_ns)
    for move in history.moves:
        backup.moved(move.at_ns, move.old, move.new)
    return backup


@given(steps)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_was_moved_every_path_comes_back_as_it_was_at_any_time(tmp_path: Path, taken: list[Step]) -> None:
    history = History.of(taken)
    shutil.rmtree(tmp_path / "one", ignore_errors=True)
    (tmp_path / "one").mkdir()
    backup = _made(tmp_path / "one", history)
    with backup.archive() as archive:
        for path in history.paths:
            for at_ns in history.times:
                then = {each: str(n) for each, n in history.at(at_ns).items() if is_within(each, path)}
                try:
                    found = backup.texts(archive.wanted(path, at_ns))
                except NothingToRestore:
                    found = {}
                assert found == then
            _check_past(archive, history, path)
            _check_without_time(backup, archive, history, path=path)


def _check_past(archive: Archive, history: History, path: bytes) -> None:
    try:
        past = archive.history(path)
    except NothingToRestore:
        past = []
    assert past == sorted(past, key=lambda each: each.from_ns)
    for at_ns in history.times:
        assert sum(_covers(each, at_ns) for each in past) == (path in history.at(at_ns))


def _covers(past: Past, at_ns: int) -> bool:
    return past.from_ns <= at_ns and (past.until_ns is None or at_ns < past.until_ns)


def _check_without_time(backup: Backup, archive: Archive, history: History, *, path: bytes) -> None:
    """What is there now, or else of everything that was ever there its last content."""
    now = history.at(history.now_ns)
    expected = {each: content for each, content in now.items() if is_within(each, path)}
    if not expected:
        for at_ns in sorted(set(history.states) - history.vague):
            expected.update({each: n for each, n in history.at(at_ns).items() if is_within(each, path)})
    if history.vague:
        return
    try:
        found = backup.texts(archive.wanted(path, None))
    except NothingToRestore:
        found = {}
    assert found == {each: str(content) for each, content in expected.items()}


def test_a_file_that_came_with_its_directory_was_elsewhere_before(backup: Backup) -> None:
    backup.current(b"b/x", "first", 10 * _S)
    backup.moved(20 * _S, b"a", b"b")
    assert backup.at(b"a", 15 * _S) == {b"a/x": "first"}
    assert backup.at(b"b", 15 * _S) == {}
    assert backup.at(b"b/x", 20 * _S) == {b"b/x": "first"}
    assert backup.at(b"", 15 * _S) == {b"a/x": "first"}
    assert backup.past(b"a/x") == [(10 * _S, 20 * _S)]
    assert backup.past(b"b/x") == [(20 * _S, None)]


def test_a_directory_that_was_moved_away_still_comes_back_without_a_time(backup: Backup) -> None:
    backup.version(b"a/gone", "gone", 5 * _S, 8 * _S)
    backup.version(b"b/x", "second", 12 * _S, 30 * _S)
    backup.current(b"b/x", "third", 30 * _S)
    backup.moved(20 * _S, b"a", b"b")
    assert backup.at(b"a", None) == {b"a/gone": "gone", b"a/x": "second"}
    assert backup.at(b"b", None) == {b"b/x": "third"}


@pytest.mark.parametrize(
    ("at_s", "expected"),
    [(9, None), (10, "10"), (19, "10"), (20, "20"), (29, "20"), (30, None), (39, None), (40, "40"), (50, None)],
)
def test_the_state_at_a_time_is_the_version_that_was_current_then(
    backup: Backup, at_s: int, expected: str | None
) -> None:
    for from_s, until_s in ((10, 20), (20, 30), (40, 50)):
        backup.version(b"d/f", str(from_s), from_s * _S, until_s * _S)
    then = {} if expected is None else {b"d/f": expected}
    assert backup.at(b"d/f", at_s * _S) == backup.at(b"d", at_s * _S) == backup.at(b"", at_s * _S) == then


def test_of_contents_that_overlap_the_later_counts(backup: Backup) -> None:
    backup.version(b"f", "long", 10 * _S, 30 * _S)
    backup.version(b"f", "short", 15 * _S, 25 * _S)
    assert backup.at(b"f", 20 * _S) == {b"f": "short"}
    assert backup.at(b"f", 27 * _S) == {b"f": "long"}


def test_a_current_content_that_overlaps_an_older_one_counts(backup: Backup) -> None:
    backup.version(b"d/f", "long", 10 * _S, 25 * _S)
    backup.current(b"d/f", "current", 18 * _S)
    assert backup.at(b"d", 20 * _S) == {b"d/f": "current"}
    backup.version(b"a/x", "long", 10 * _S, 25 * _S)
    backup.current(b"b/x", "current", 18 * _S)
    backup.moved(30 * _S, b"a", b"b")
    assert backup.at(b"a", None) == {b"a/x": "current"}


def test_every_time_that_is_shown_can_be_given(backup: Backup) -> None:
    backup.version(b"f", "first", 10 * _S, 20 * _S + 999)
    backup.current(b"f", "second", 20 * _S + 999)  # the kernel's stamps are finer than what is shown
    with backup.archive() as archive:
        shown = [parse_time(iso(past.from_ns)) for past in archive.history(b"f")]
    assert [backup.at(b"f", at_ns) for at_ns in shown] == [{b"f": "first"}, {b"f": "second"}]


def test_a_directory_comes_back_with_what_is_in_it_now_and_without_its_own_history(backup: Backup) -> None:
    backup.directory(b"d/empty")
    backup.current(b"d/f", "text", 10 * _S)
    with backup.archive() as archive:
        assert {wanted.path for wanted in archive.wanted(b"d", None)} == {b"d/empty", b"d/f"}
        assert {wanted.path for wanted in archive.wanted(b"d", 11 * _S)} == {b"d/f"}
        with pytest.raises(NothingToRestore):
            archive.history(b"d")


def test_another_tier_is_never_written_to_under_whatever_name_it_is_planted(backup: Backup) -> None:
    backup.current(b"Persist/x", "planted", 10 * _S)
    backup.version(b"Shared/y", "planted", 10 * _S, 20 * _S)
    backup.current(b"mine/z", "moved", 10 * _S)
    backup.moved(30 * _S, b"Shared", b"mine")
    backup.current(b"f", "text", 10 * _S)
    assert backup.at(b"", 15 * _S) == {b"f": "text"}
    assert backup.at(b"", None) == {b"f": "text", b"mine/z": "moved"}


def test_a_record_of_moves_that_leads_out_of_the_home_leads_nowhere(backup: Backup) -> None:
    backup.current(b"b/x", "text", 10 * _S)
    backup.moved(20 * _S, b"../outside", b"b")
    assert backup.at(b"", 15 * _S) == {b"b/x": "text"}


class _Beside(FileSystem):
    """Somebody else writes to Persist in the moment a directory is opened."""

    def __init__(self, directory: bytes, write: Callable[[], None]) -> None:
        self._directory, self._write = directory, write

    def open(self, name: bytes, flags: int, mode: int = 0o600, *, at: int | None = None) -> int:
        if name == self._directory:
            self._directory = b""
            self._write()
        return super().open(name, flags, mode, at=at)


def test_what_is_replaced_while_the_archive_is_read_is_found_where_it_is_now(backup: Backup) -> None:
    backup.current(b"d/f", "first", 10 * _S + 1)

    def replace() -> None:
        (backup.mirror / "d" / "f").write_text("second")
        backup.version(b"d/f", "first", 10 * _S + 1, 20 * _S)

    with backup.archive(_Beside(b"versions", replace)) as archive:
        assert backup.texts(archive.wanted(b"d", 15 * _S)) == {b"d/f": "first"}


def test_versions_that_vanish_while_the_archive_is_read_are_left_out(backup: Backup) -> None:
    for name in (b"d/f", b"d/g"):
        backup.version(name, "old", 10 * _S, 20 * _S)

    beside = _Beside(b"g", lambda: shutil.rmtree(backup.state / "versions" / "d" / "g"))
    with backup.archive(beside) as archive:
        assert backup.texts(archive.wanted(b"d", 15 * _S)) == {b"d/f": "old"}


@pytest.mark.parametrize("instead", ["a file", "a link"])
def test_what_stands_where_versions_should_be_is_not_followed(backup: Backup, instead: str) -> None:
    backup.current(b"f", "text", 30 * _S)
    place = backup.state / "versions" / "f"
    if instead == "a file":
        place.touch()
    else:
        backup.version(b"other", "other", 10 * _S, 20 * _S)
        place.symlink_to(place.with_name("other"))
    assert backup.at(b"f", 15 * _S) == {}
    assert backup.past(b"f") == [(30 * _S, None)]


class _Broken(FileSystem):
    """Persist has an input/output error where the versions lie."""

    def open(self, name: bytes, flags: int, mode: int = 0o600, *, at: int | None = None) -> int:
        if name == b"versions":
            raise OSError(errno.EIO, "Input/output error")
        return super().open(name, flags, mode, at=at)


def test_an_error_is_not_taken_for_an_empty_history(backup: Backup) -> None:
    backup.current(b"f", "text", 30 * _S)
    backup.version(b"f", "old", 10 * _S, 20 * _S)
    with backup.archive(_Broken()) as archive:
        with pytest.raises(OSError, match="Input/output"):
            archive.history(b"f")
        with pytest.raises(OSError, match="Input/output"):
            archive.wanted(b"", 15 * _S)


def test_without_a_journal_the_moves_still_tell(backup: Backup) -> None:
    backup.current(b"b/x", "first", 10 * _S)
    os.utime(backup.mirror / "b" / "x", ns=(10 * _S, 10 * _S))
    backup.moved(20 * _S, b"a", b"b")
    with backup.archive():
        (backup.state / "journal").unlink()
        archive = Archive(FileSystem(), Clock(), backup.settings)
        assert backup.texts(archive.wanted(b"a", 15 * _S)) == {b"a/x": "first"}
        archive.close()


class _Counting(FileSystem):
    def __init__(self) -> None:
        self.opened = 0

    def open(self, name: bytes, flags: int, mode: int = 0o600, *, at: int | None = None) -> int:
        self.opened += 1
        return super().open(name, flags, mode, at=at)


def _opened(backup: Backup, path: bytes, at_ns: int) -> int:
    fs = _Counting()
    with backup.archive(fs) as archive:
        fs.opened = 0
        archive.wanted(path, at_ns)
    return fs.opened


def test_what_a_restore_reads_follows_what_it_restores_and_not_the_number_of_moves(backup: Backup) -> None:
    for number in range(30):
        backup.version(b"a/%d" % number, "old", 10 * TICK_NS, 20 * TICK_NS)
    before = _opened(backup, b"a", 15 * TICK_NS)
    for number in range(100):
        backup.moved((30 + number) * TICK_NS, b"work/tmp", b"runs/%d" % number)
    assert _opened(backup, b"a", 15 * TICK_NS) == before
    for number in range(100):
        old, new = (b"a", b"b") if number % 2 == 0 else (b"b", b"a")
        backup.moved((200 + number) * TICK_NS, old, new)
    assert _opened(backup, b"a", 15 * TICK_NS) == before + 1, "one more place"


def test_however_many_places_are_read_few_directories_stay_open(backup: Backup) -> None:
    for number in range(60):
        backup.version(b"out/%d/f" % number, str(number), 10 * TICK_NS, 200 * TICK_NS)
        backup.moved((20 + number) * TICK_NS, b"d/%d" % number, b"out/%d" % number)
    with backup.archive() as archive:
        before = len(os.listdir("/proc/self/fd"))
        found = backup.texts(archive.wanted(b"d", 15 * TICK_NS))
        assert len(os.listdir("/proc/self/fd")) <= before + 2
    assert found == {b"d/%d/f" % number: str(number) for number in range(60)}
