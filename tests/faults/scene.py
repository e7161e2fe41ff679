"""A home with a past, its Persist, and what must be true of them whatever call fails and whenever somebody dies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sidecar.archive import Archive
from sidecar.backup import journal
from sidecar.backup.frames import payloads
from sidecar.backup.journal import JournalUnreadable, Replayed
from sidecar.config import Settings
from sidecar.engine import Engine
from sidecar.entry import Kind
from sidecar.errors import EXIT_SAFE, NothingToRestore, SidecarError
from sidecar.fsops import FileSystem
from sidecar.select import BESIDE_PREFIX
from tests.faults.faulty import SYNCED_AS_A_WHOLE, FaultyFileSystem, Killed, SwiftClock

OUT_OF_TIME_S = 30.0
_EVENTS_S = 10.0
"""The longest wait for the kernel's events, in real time."""
MIRROR = "Backup/default/"
STATE = ".jupyterhub-sidecar/default/"

Tree = dict[str, bytes | None]
"""Path → the bytes of a file, the target of a link after an arrow, or None for a directory."""
Content = dict[str, bytes]
"""The same without directories."""


@dataclass(frozen=True)
class Story:
    """What the user had saved, and what the home becomes. No two contents of one path have the same size."""

    before: Content
    after: Content
    came_from: Mapping[str, str] = field(default_factory=dict)
    """Of a directory that was moved, by its new path, where it was at first."""
    unknown: Content = field(default_factory=dict)
    """What lies in the mirror and is none of ours."""

    def first_path(self, path: str) -> str:
        """Where the content that is at ``path`` now was at first."""
        for new, old in self.came_from.items():
            if path == new or path.startswith(new + "/"):
                return old + path[len(new) :]
        return path

    @cached_property
    def _ever(self) -> dict[str, dict[int, bytes]]:
        found: dict[str, dict[int, bytes]] = {}
        for name, content in [*self.before.items(), *self.after.items()]:
            by_size = found.setdefault(self.first_path(name), {})
            assert by_size.setdefault(size_of(content), content) == content, (
                f"two contents of {name} have the same size"
            )
        return found

    def ever(self, path: str) -> dict[int, bytes]:
        """Every content that ``path`` ever had, by its size, under whatever name its directory had."""
        return self._ever.get(self.first_path(path), {})


def size_of(content: bytes) -> int:
    """The size that the kernel says ``content`` has."""
    return len(content) - 3 if content.startswith(b"-> ") else len(content)


def write(home: Path, content: Content) -> None:
    """The home has ``content``, besides what it had."""
    for name, data in content.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if data.startswith(b"-> "):
            path.symlink_to(os.fsdecode(data[3:]))
        else:
            path.write_bytes(data)


def become(home: Path, content: Content) -> None:
    """The home has ``content``, and what has not changed was not touched."""
    now = files(read(home))
    for name in [name for name in now if content.get(name) != now[name]]:
        (home / name).unlink()
    for directory in sorted((p for p in home.rglob("*") if p.is_dir() and not p.is_symlink()), reverse=True):
        with suppress(OSError):
            directory.rmdir()
    write(home, {name: data for name, data in content.items() if now.get(name) != data})


def read(top: Path) -> Tree:
    """All that is in ``top``, but for the ``Save`` link."""
    found: Tree = {}
    for path in top.rglob("*"):
        name = str(path.relative_to(top))
        if path.is_symlink():
            found[name] = b"-> " + os.fsencode(path.readlink())
        elif path.is_dir():
            found[name] = None
        else:
            found[name] = path.read_bytes()
    found.pop("Save", None)
    return found


def files(tree: Tree) -> Content:
    """``tree`` without its directories."""
    return {name: content for name, content in tree.items() if content is not None}


def within(tree: Tree, directory: str) -> Tree:
    """What is below ``directory``, which ends in a slash."""
    return {name.removeprefix(directory): content for name, content in tree.items() if name.startswith(directory)}


class Backup:
    """What lies on Persist, for real or after a power cut, and what may be said of it."""

    def __init__(self, tree: Tree, story: Story) -> None:
        self.story = story
        everything = within(tree, MIRROR)
        self.mirror = {name: content for name, content in everything.items() if not _is_beside(name)}
        self.journal = tree.get(STATE + "journal")
        kept = files(within(tree, STATE + "versions/"))
        self.versions = [(name.rpartition("/")[0], content) for name, content in kept.items()]
        self.aside = list(files(within(tree, STATE + "aside/")).values())
        self.beside = [name for name in everything if _is_beside(name)]
        """What is staged in the mirror itself."""
        self.staged = [*within(tree, STATE + "staging/"), *self.beside]
        self._record = tree.get(STATE + "staging-in") or b""

    @property
    def says(self) -> Replayed | None:
        """What the journal says; None where it cannot be read."""
        try:
            return None if self.journal is None else journal.replay([self.journal])
        except JournalUnreadable:
            return None

    def check_whole(self) -> None:
        """Every file, current or earlier, is a content that its path had, and never a stump."""
        kept = [("version", *each) for each in self.versions]
        current = [("file", *each) for each in files(self.mirror).items()]
        for what, name, content in kept + current:
            if self.story.unknown.get(name) != content:
                assert content in self.story.ever(name).values(), f"the {what} {name} is no content it ever had"

    def check_safe(self, says: Replayed) -> None:
        """What ``says`` is safe is here: in its place, or, where something newer has taken that, as a version."""
        for path, entry, _ in says.index.items():
            name = os.fsdecode(path)
            places = [name, *self._under_way(name, says)]
            if entry.kind is Kind.DIRECTORY:
                here = any(place in self.mirror and self.mirror[place] is None for place in places)
                assert here, f"the directory {name} is called safe and is not there"
                continue
            content = self.story.ever(name).get(entry.size)
            assert content is not None, f"{name} is called safe with a size that it never had"
            current = [each for place in places if (each := self.mirror.get(place)) is not None]
            assert current, f"{name} is called safe and is not there"
            if content not in current:
                kept = [each for place, each in self.versions if place in places]
                assert content in kept, f"the {name} that is called safe was replaced, and is no version"

    @staticmethod
    def _under_way(name: str, says: Replayed) -> list[str]:
        """Where ``name`` may be, because a directory above it is just being moved."""
        moves = {os.fsdecode(old): os.fsdecode(new) for old, new in says.unfinished_moves.items()}
        return [new + name[len(old) :] for old, new in moves.items() if name == old or name.startswith(old + "/")]

    def check_nothing_lost(self) -> None:
        """What was saved before is here somewhere, and so is what was never ours."""
        everything = [*files(self.mirror).items(), *self.versions]
        found = {(self.story.first_path(name), content) for name, content in everything}
        for name, content in self.story.before.items():
            is_here = (self.story.first_path(name), content) in found or content in self.aside
            assert is_here, f"what {name} was before is lost"
        for name, content in self.story.unknown.items():
            assert (name, content) in everything or content in self.aside, f"{name}, which is not ours, is lost"

    def check_swept(self) -> None:
        """What is staged in the mirror lies where the next start looks for it."""
        looked_into: set[str] = set()
        with suppress(ValueError):  # a power cut can tear what was just being added, and so was not yet relied upon
            for some, _ in payloads(iter([self._record]), frozenset(b"\x01")):
                looked_into.update(os.fsdecode(each[1:]) for each in some)
        for name in self.beside:
            assert name.rpartition("/")[0] in looked_into, f"nobody will ever sweep {name}"

    def check(self) -> None:
        """All of the above, by its own journal."""
        self.check_whole()
        self.check_swept()
        says = self.says
        if says is not None:
            self.check_safe(says)
        self.check_nothing_lost()

    def check_mirrors(self, home: Tree) -> None:
        """The mirror is as ``home``, directories included."""
        mirror = self.mirror
        if self.journal is not None and b"unknown-" in self.journal:
            # Where a home cannot be recognised it counts as a new one, and nothing in it can count as deleted.
            mirror = {name: content for name, content in mirror.items() if name in home}
        unknown = {name for name in self.story.unknown if name not in home}
        assert {name: content for name, content in mirror.items() if name not in unknown} == home


def _is_beside(name: str) -> bool:
    return name.rpartition("/")[2].startswith(os.fsdecode(BESIDE_PREFIX))


Life = Callable[["Scene", FaultyFileSystem], int]
"""From the start of a sidecar to its end: its exit code."""


class Scene:
    """A home whose first state is saved, and its Persist."""

    def __init__(self, top: Path, story: Story, kind: int = SYNCED_AS_A_WHOLE) -> None:
        shutil.rmtree(top, ignore_errors=True)
        self.story, self.kind = story, kind
        self.home, self.persist, self._kept = top / "home", top / "persist", top / "kept"
        self.home.mkdir(parents=True)
        self.persist.mkdir()
        self.settings = Settings(
            home=str(self.home), persist=str(self.persist), require_mount=False, socket=str(top / "socket")
        )
        if story.before:
            write(self.home, story.before)
            assert save(self, self.sound()) == EXIT_SAFE
            write(self.persist / MIRROR, story.unknown)
        self.began_ns = max((path.lstat().st_ctime_ns for path in self.home.rglob("*")), default=0)
        """When the first state was complete."""

    def sound(self) -> FaultyFileSystem:
        """A file system without a fault."""
        return FaultyFileSystem(kind=self.kind)

    def keep_persist(self) -> None:
        """Persist as it is now can be had again."""
        shutil.copytree(self.persist, self._kept, symlinks=True)

    def put_persist_back(self) -> None:
        """Persist is as it was when it was kept."""
        shutil.rmtree(self.persist)
        shutil.copytree(self._kept, self.persist, symlinks=True)

    @property
    def backup(self) -> Backup:
        """What lies on Persist now."""
        return Backup(read(self.persist), self.story)

    @contextmanager
    def engine(self, fs: FileSystem) -> Iterator[tuple[Engine, SwiftClock]]:
        """A running sidecar's engine."""
        clock = SwiftClock()
        engine = Engine(fs, clock, self.settings, wake=lambda: None)
        try:
            yield engine, clock
        finally:
            with suppress(Killed, OSError):
                engine.close()

    def live(self, life: Life, fs: FaultyFileSystem) -> int | None:
        """The exit code of a life with ``fs``; None where it was killed."""
        try:
            return life(self, fs)
        except SidecarError as error:
            return error.exit_code
        except Killed:
            return None
        finally:
            fs.bury()

    def contents_at(self, path: str, at_ns: int | None) -> Content:
        """What a restore of ``path`` as of that time would bring back, by path; nothing where there is nothing."""
        with self._archive() as archive:
            try:
                wanted = archive.wanted(os.fsencode(path), at_ns)
            except NothingToRestore:
                return {}
        found = {}
        for item in wanted:
            place = self.persist / os.fsdecode(item.directory) / os.fsdecode(item.name)
            if item.entry.kind is Kind.LINK:
                found[os.fsdecode(item.path)] = b"-> " + os.fsencode(place.readlink())
            elif item.entry.kind is Kind.FILE:
                found[os.fsdecode(item.path)] = place.read_bytes()
        return found

    def sizes_ever_at(self, path: str) -> set[int]:
        """The sizes of all contents that the archive has of ``path``."""
        with self._archive() as archive:
            return {past.size for past in archive.history(os.fsencode(path))}

    def _archive(self) -> AbstractContextManager[Archive]:
        return closing(Archive(FileSystem(), SwiftClock(), self.settings))


def save(scene: Scene, fs: FaultyFileSystem) -> int:
    """A life without a restore, which flushes once."""
    with scene.engine(fs) as (engine, clock):
        engine.flush(catch_up_s=0.0, out_of_time=lambda: clock.monotonic() > OUT_OF_TIME_S, accept_deletions=True)
        return engine.close_books(late=False)


def restore(scene: Scene, fs: FaultyFileSystem) -> int:
    """A life in a home that may be new; 3 too where not everything came back."""
    with scene.engine(fs) as (engine, clock):
        engine.finder.start_watching()
        engine.recover(lambda: False, lambda _done, _total: None)
        failed = bool(engine.recovery.failed)
        # What it has brought back is told by events too: the last of them must not come after the flush.
        engine.flush(catch_up_s=_EVENTS_S, out_of_time=lambda: clock.monotonic() > OUT_OF_TIME_S)
        return 3 if failed else engine.close_books(late=False)
