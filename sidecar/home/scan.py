"""One directory of the home, read and sorted into what is saved and what is left out.

The scan is the truth: start, interval, overflow and the events of a new directory all come through here.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterable, Set
from dataclasses import dataclass

from sidecar import select
from sidecar.entry import Entry, Kind, name_of, parent
from sidecar.fsops import READ_FLAGS, FileSystem, Tree, read_file
from sidecar.home import ignore
from sidecar.outcome import Skipped

_MOST_KNOWN = 2000
"""Directories of which is remembered what holds in them; a walk goes from one to the next below it."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What one directory holds. ``names`` are all its names: what is missing among them is gone."""

    found: dict[bytes, Entry]
    """What is saved of it, by name."""
    directories: list[bytes]
    """The paths to read next: the directories in ``found``, and those in which only something is brought back."""
    skipped: list[Skipped]
    names: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Names:
    """The same without a look at any file: those over the cap are among ``files`` still."""

    files: list[bytes]
    """The names of files and links."""
    directories: list[bytes]
    """The paths to read next."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """The whole directory is left out."""

    reason: str


class Scanner:
    """Reads directories of ``home``; decides by ``select`` and ``ignore`` alone. For one thread."""

    def __init__(self, fs: FileSystem, home: Tree, mounts: frozenset[bytes], max_file_bytes: int) -> None:
        self._fs = fs
        self._home = home
        self._mounts = mounts
        self._max_file_bytes = max_file_bytes
        self._by_content: dict[bytes, str] = {}
        self._text = b""
        self._unreadable: str | None = None
        self._use(ignore.Rules(b"", mounts))

    # The user's rules.

    def load_rules(self) -> bool:
        """``~/.persistignore`` as it is now counts; whether that changes anything. The defaults alone count before."""
        text, unreadable = self._read_rules()
        if (text, unreadable) == (self._text, self._unreadable):
            return False
        self._text, self._unreadable = text, unreadable
        self._use(ignore.Rules(text, self._mounts))
        return True

    @property
    def rules_problem(self) -> str | None:
        """What of ``~/.persistignore`` does not count and why, for people; None where all of it does."""
        problem = self._unreadable or self._rules.problem
        return None if problem is None else f"{ignore.NAME.decode()}: {problem}"

    def _use(self, rules: ignore.Rules) -> None:
        self._rules = rules
        self._known_rules = {b"": rules.home}

    def _read_rules(self) -> tuple[bytes, str | None]:
        try:
            fd = self._fs.open(ignore.NAME, READ_FLAGS, at=self._home.directory(b""))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return b"", None
            reason = "it is a link" if error.errno == errno.ELOOP else f"it cannot be read, {error.strerror}"
            return b"", f"{reason}: the defaults count alone"
        try:
            if not stat.S_ISREG(self._fs.fstat(fd).st_mode):
                return b"", "it is no file: the defaults count alone"
            text = b""
            while len(text) <= ignore.MAX_BYTES and (block := self._fs.read(fd, ignore.MAX_BYTES + 1 - len(text))):
                text += block
        except OSError as error:
            return b"", f"it cannot be read, {error.strerror}: the defaults count alone"
        finally:
            self._fs.close(fd)
        if len(text) > ignore.MAX_BYTES:
            return b"", f"it has more than {ignore.MAX_BYTES} bytes: the defaults count alone"
        return text, None

    # What is left out.

    def skip_name(self, path: bytes) -> str | None:
        """Why ``path`` is left out whatever it is, or None. Costs no system call: events are filtered with it.

        What lies in a directory that is left out is left out too, also where that is so for what is in it, as far as
        ``read`` has seen it. None does not mean saved: a line like ``build/`` needs to know what ``path`` is, for which
        there is ``skip``, and a directory in which something is brought back must be entered.
        """
        if not path:
            return None
        here = self._rules_in(parent(path))
        left_out = here.left_out if here.is_closed else here.leaves_out(name_of(path))
        if left_out is None and path in self._by_content and self._rules_in(path).is_closed:
            return self._by_content[path]
        return None if left_out is None else left_out.reason

    def skip(self, path: bytes, status: os.stat_result) -> str | None:
        """Why ``path``, which is what ``status`` describes, is left out, or None: then it is saved."""
        if not path:
            return None
        is_directory = stat.S_ISDIR(status.st_mode)
        left_out = self._rules_in(parent(path)).decide(name_of(path), is_directory=is_directory)[0]
        if left_out is None and is_directory:
            left_out = self._rules_in(path).left_out
        return self.skip_status(status) if left_out is None else left_out.reason

    def is_brought_back(self, path: bytes) -> bool:
        """Whether a ``!`` line of the user matches the file ``path`` itself: a core dump is saved then."""
        return self._rules_in(parent(path)).decide(name_of(path), is_directory=False)[1]

    def is_ours(self, path: bytes) -> bool:
        """Whether ``path`` may be written to: it does not lie in another tier, and has no name that stays out always.

        What else is left out may be: the backup has only what was to be saved once, under the rules of its time.
        """
        names = path.split(b"/")
        beginnings = self._rules.not_ours
        return self._rules.fixed.get(names[0]) is None and not any(name.startswith(beginnings) for name in names)

    def skip_status(self, status: os.stat_result) -> str | None:
        """Why what ``status`` describes is left out, or None."""
        return select.skip_status(status, self._max_file_bytes)

    def status(self, path: bytes) -> os.stat_result:
        """The status of ``path`` itself, no link followed. Raises ``OSError``."""
        above, _, name = path.rpartition(b"/")
        return self._fs.lstat(name, at=self._home.directory(above))

    def _rules_in(self, directory: bytes) -> ignore.RulesHere:
        above, _, name = directory.rpartition(b"/")
        if self._known_rules.get(above) is self._rules.ordinary and directory not in self._by_content:
            return self._rules.ordinary.enter(name)
        way = []
        while (here := self._known_rules.get(directory)) is None:
            way.append(directory)
            directory = parent(directory)
        if len(self._known_rules) + len(way) > _MOST_KNOWN:
            self._known_rules = {b"": self._rules.home}
        for path in reversed(way):
            if here.is_closed:
                break
            here = here.enter(name_of(path))
            if path in self._by_content and not here.brought_back:
                here = here.without(self._by_content[path])
            self._known_rules[path] = here
        return here

    # Reading.

    def read(self, directory: bytes) -> Listing | Pruned:
        """What ``directory`` holds now. Raises ``OSError`` where it cannot be read or is no directory any more.

        What is left out by its name is not touched, above all no mount.
        """
        visit = self._visit(directory)
        if isinstance(visit, Pruned):
            return visit
        found: dict[bytes, Entry] = {}
        cap = self._max_file_bytes
        for name, status in self._fs.chosen(visit.fd, visit.choose):
            entry = Entry.of(status)
            if entry is None or (entry.size > cap and entry.kind is Kind.FILE):
                visit.skip(name, self.skip_status(status) or "not a file, a link or a directory")
                continue
            is_directory = entry.kind is Kind.DIRECTORY
            if visit.asks_for_kind and not visit.keeps(name, is_directory=is_directory):
                continue
            found[name] = entry
            if is_directory:
                visit.directories.append(visit.prefix + name)
        if visit.pruned is not None:
            return visit.pruned
        return Listing(found, visit.directories, visit.skipped, visit.names)

    def read_names(self, directory: bytes) -> Names | Pruned:
        """What ``directory`` holds now, without a look at any file: for a quick first walk that sets watches.

        Raises as ``read`` does.
        """
        visit = self._visit(directory)
        if isinstance(visit, Pruned):
            return visit
        files, directories = self._fs.chosen_by_kind(visit.fd, visit.choose)
        if visit.asks_for_kind:
            files = [name for name in files if visit.keeps(name, is_directory=False)]
            directories = [name for name in directories if visit.keeps(name, is_directory=True)]
        visit.directories += [visit.prefix + name for name in directories]
        return visit.pruned or Names(files, visit.directories)

    def _visit(self, directory: bytes) -> _Visit | Pruned:
        if directory in self._by_content:  # what is in it may have changed: that is looked at again
            here = self._rules_in(parent(directory)).enter(name_of(directory))
        else:
            here = self._rules_in(directory)
        if here.is_closed and here.left_out is not None:
            return Pruned(here.left_out.reason)
        try:
            return _Visit(self, directory, self._home.directory(directory), here)
        except OSError:
            self._by_content.pop(directory, None)
            raise

    def is_all_saved(self, directory: bytes, here: ignore.RulesHere, names: frozenset[bytes]) -> bool:
        """Whether nothing speaks of the ``names`` in ``directory``, where the rules are ``here``; False is not certain.

        It is so nearly everywhere, and costs less than an answer for each name.
        """
        return (
            here is self._rules.ordinary
            and names.isdisjoint(select.MARKERS)
            and not select.may_be_installed(directory)
            and directory not in self._by_content
            and not self._rules.suspects(names)
        )

    def skip_content(self, directory: bytes, fd: int, names: Set[bytes]) -> str | None:
        """Why ``directory``, open as ``fd`` and with ``names`` in it, is left out for what is in it, or None."""
        reason = None
        if directory:  # a home is never left out as a whole
            reason = select.skip_directory(names, lambda name: self._head(fd, name)) or self._installed(directory)
            if reason is not None and self._rules_in(directory).brought_back:
                reason = None
        if reason != self._by_content.get(directory):
            if reason is None:
                del self._by_content[directory]
            else:
                self._by_content[directory] = reason
            self._known_rules = {b"": self._rules.home}
        return reason

    def _installed(self, directory: bytes) -> str | None:
        environment = select.environment_of(directory)
        if environment is None:
            return None
        if any(self._rules_in(path).brought_back for path in (environment, parent(directory))):
            return None
        try:
            fd = self._home.directory(environment)
        except OSError:
            return None
        return select.INSTALLED if select.is_environment(self._head(fd, select.ENVIRONMENT_FILE)) else None

    def _head(self, fd: int, name: bytes) -> bytes:
        try:
            return read_file(self._fs, fd, name, select.HEAD_BYTES)
        except OSError:
            return b""


class _Visit:
    """One reading of a directory: ``choose`` is called with its names, before any of them is touched."""

    def __init__(self, scanner: Scanner, directory: bytes, fd: int, here: ignore.RulesHere) -> None:
        self._scanner, self._directory, self._here = scanner, directory, here
        self.fd = fd
        self.prefix = directory + b"/" if directory else b""
        self.asks_for_kind = here.asks_for_kind
        self.names: frozenset[bytes] = frozenset()
        self.directories: list[bytes] = []
        self.skipped: list[Skipped] = []
        self.pruned: Pruned | None = None

    def choose(self, names: Collection[bytes]) -> Iterable[bytes]:
        """Those of ``names`` that are not left out by their names alone; none where the directory is pruned."""
        self.names = frozenset(names)
        if self._scanner.is_all_saved(self._directory, self._here, self.names):
            return names
        if self._here.left_out is None:
            reason = self._scanner.skip_content(self._directory, self.fd, self.names)
            if reason is not None:
                self._here = self._here.without(reason)
                if self._here.is_closed:
                    self.pruned = Pruned(reason)
                    return ()
        left_out = self._here.sift(self.names)
        for name, why in left_out.items():
            self._leave_out(name, why)
        return [name for name in names if name not in left_out] if left_out else names

    def keeps(self, name: bytes, *, is_directory: bool) -> bool:
        """Whether ``name`` is saved, now that its kind is known. A passage is not, but is one of ``directories``."""
        left_out, _ = self._here.decide(name, is_directory=is_directory)
        if left_out is None:
            return True
        self._leave_out(name, left_out)
        if is_directory and self._here.leads_on(name, left_out):
            self.directories.append(self.prefix + name)
        return False

    def _leave_out(self, name: bytes, left_out: ignore.LeftOut) -> None:
        # In a passage everything is left out for the reason of the passage: one entry says it.
        if left_out is not self._here.left_out:
            self.skip(name, left_out.reason)

    def skip(self, name: bytes, reason: str) -> None:
        """``name`` is left out and named as such."""
        self.skipped.append(Skipped(self.prefix + name, reason))
