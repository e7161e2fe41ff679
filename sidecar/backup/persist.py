"""The user's directory on Persist: whether it can be used, and where everything lies on it.

``Backup/<server>`` is the plain mirror. Everything else is below ``.jupyterhub-sidecar``. Neither of these two
directories is ever renamed or removed by us: in a pod they are mount points of the notebook.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import groupby
from typing import Any

from sidecar.backup import newcomer
from sidecar.backup.directories import Directories
from sidecar.backup.mounts import is_mount_point, mount_id, mount_of
from sidecar.clock import Clock, iso, stamp
from sidecar.config import Settings
from sidecar.crew import Crew
from sidecar.entry import ancestors, join, legible, name_of, parent
from sidecar.errors import PersistError, PersistForeign, PersistMissing, PersistUnwell
from sidecar.fsops import FileSystem, read_file, sync_directory, write_file

log = logging.getLogger(__name__)

FORMAT = 1
MIRRORS = b"Backup"
OURS = b".jupyterhub-sidecar"
_FORMAT_FILE = b"format.json"
_FORMAT_MAX_BYTES = 65536
_ASIDE = b"aside"
_NO_DIRECTORY = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}

_REASONS = {
    errno.ENOENT: "is not there",
    errno.EROFS: "is read-only",
    errno.ENOSPC: "is full",
    errno.EDQUOT: "is over its quota",
    errno.ESTALE: "is stale: the server has forgotten it",
    errno.EACCES: "does not let us in",
    errno.EPERM: "does not let us in",
    errno.EIO: "has an input/output error",
}

_PASSING = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENOTCONN,
    errno.ECONNABORTED,
}
"""What a server, a network or a full disk says, and will not say for ever."""


def mirror_of(server: bytes) -> bytes:
    """Where the mirror of ``server`` lies, relative to Persist."""
    return MIRRORS + b"/" + server


def state_of(server: bytes) -> bytes:
    """Where journal, versions and staging of ``server`` lie, relative to Persist."""
    return OURS + b"/" + server


def explain(path: str, error: OSError) -> str:
    """What ``error`` says about the Persist at ``path``, in plain words."""
    return f"Persist at {path} {_REASONS.get(error.errno or 0, error.strerror or 'cannot be used')}"


def check_mounted(settings: Settings) -> None:
    """Persist is a mount of its own, where the settings ask for one. Raises ``PersistMissing``; writes nothing."""
    if settings.require_mount and not is_mount_point(settings.persist):
        raise _not_mounted(settings)


def _not_mounted(settings: Settings) -> PersistMissing:
    return PersistMissing(
        f"Persist at {settings.persist} is not mounted",
        hint="a backup into the pod's own disk is none; --no-require-mount allows it on one machine",
    )


@contextmanager
def persist_errors(settings: Settings) -> Iterator[None]:
    """Inside, an ``OSError`` is Persist's, and leaves as ``PersistError`` in plain words."""
    try:
        yield
    except OSError as error:
        reason = explain(settings.persist, error)
        if error.errno in _PASSING:
            raise PersistUnwell(reason, error) from error
        raise (PersistMissing if error.errno == errno.ENOENT else PersistError)(reason) from error


class Layout:
    """The directories of one server on Persist, opened for reading; ``prepare`` makes them for writing."""

    def __init__(self, fs: FileSystem, clock: Clock, settings: Settings) -> None:
        self.fs = fs
        self.clock = clock
        self.server = os.fsencode(settings.server)
        self._owner = settings.owner
        self._aside = state_of(self.server) + b"/" + _ASIDE
        self.root = Directories.at(fs, settings.persist)
        # Asked of what is open: between a look at the path and opening it, what was mounted there can be gone.
        if settings.require_mount and mount_of(self.root.directory(b"")) != mount_id(settings.persist):
            self.root.close()
            raise _not_mounted(settings)
        self.unsynced: set[bytes] = set()
        """Directories that something was put into and that could not be synced then."""

    def check_format(self) -> bool:
        """Whether Persist carries our marker. Raises ``PersistForeign`` where it is not ours to write to."""
        return self._marker() is not None

    def _marker(self) -> dict[str, Any] | None:
        try:
            text = read_file(self.fs, self.root.directory(OURS), _FORMAT_FILE, _FORMAT_MAX_BYTES)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            if error.errno in _NO_DIRECTORY:
                raise PersistForeign(f"{os.fsdecode(OURS)} on Persist is not a directory of ours") from error
            raise
        try:
            marker: dict[str, Any] = json.loads(text)
            found, owner = marker["format"], marker.get("owner") or ""
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise PersistForeign(
                f"{os.fsdecode(OURS + b'/' + _FORMAT_FILE)} on Persist cannot be understood"
            ) from error
        if found != FORMAT:
            raise PersistForeign(
                f"Persist has format {found}, this version writes format {FORMAT}", hint="use the later version"
            )
        if self._owner and owner not in ("", self._owner):
            raise PersistForeign(
                f"Persist belongs to {owner!r} and not to {self._owner!r}",
                hint="is the right directory mounted? Nothing was written",
            )
        return marker

    def _mark(self) -> None:
        """Persist carries our marker, with its owner if we know him. Raises ``OSError`` and ``PersistForeign``."""
        marker = self._marker()
        if marker is not None and (not self._owner or marker.get("owner")):
            return
        at = self.root.directory(OURS)
        document = marker or {"format": FORMAT, "product": "jupyterhub-sidecar", "created_at": iso(self.clock.now_ns())}
        if self._owner:
            document["owner"] = self._owner
        # The other servers of the same user may do this at the same moment: each with a file of its own.
        temporary = _FORMAT_FILE + b"." + os.urandom(8).hex().encode()
        try:
            write_file(self.fs, at, _FORMAT_FILE, json.dumps(document).encode() + b"\n", temporary=temporary)
        except OSError:
            with suppress(OSError):
                self.fs.unlink(temporary, at=at)
            raise
        self._marker()  # somebody else may have been first with another owner

    def prepare(self) -> bool:
        """Every directory that saving needs is there, and the marker; whether the mirror is a new one.

        Raises ``OSError`` and ``PersistForeign``.
        """
        self.check_format()
        for top in (MIRRORS, OURS):
            self.make(top)
        self._mark()
        state = state_of(self.server)
        is_new = bool(self.make(mirror_of(self.server)))
        for path in (state, state + b"/versions", state + b"/staging"):
            self.make(path)
        self.clear_the_way(newcomer.NAME)
        # Those that were there too: whoever made them may have been killed before they were durable.
        aside = [self._aside] if self._is_directory(self._aside) else []
        for path in (b"", MIRRORS, OURS, state, *aside):
            sync_directory(self.fs, self.root.directory(path))
        return is_new

    def make(self, path: bytes) -> list[bytes]:
        """The directory ``path`` is there, with all above it; which directories that changed, for ``sync_directory``.

        A link or a file that stands in the way is moved aside, never followed and never destroyed. Raises ``OSError``.
        """
        changed: list[bytes] = []
        if self._is_directory(path):
            return changed
        levels = [path]
        while (above_path := parent(levels[-1])) and not self._is_directory(above_path):
            levels.append(above_path)
        for level in reversed(levels):
            above = self.root.directory(parent(level))
            try:
                self.fs.mkdir(name_of(level), 0o700, at=above)
            except FileExistsError:
                if self._is_directory(level):
                    continue
                if level in (MIRRORS, OURS, state_of(self.server), self._aside):
                    raise PersistForeign(f"{os.fsdecode(level)} on Persist is not a directory") from None
                self.move_aside(level)
                self.fs.mkdir(name_of(level), 0o700, at=above)
            changed.append(parent(level))
        return changed

    def clear_the_way(self, *names: bytes) -> None:
        """What stands where our files ``names`` of this server are to be, and is none, is moved aside."""
        state = state_of(self.server)
        for name in names:
            try:
                status = self.fs.lstat(name, at=self.root.directory(state))
            except FileNotFoundError:
                continue
            if not stat.S_ISREG(status.st_mode):
                log.warning("%s on Persist is no file: it is moved aside", legible(name))
                self.move_aside(join(state, name))

    def make_all(self, paths: Iterable[bytes], crew: Crew) -> set[bytes]:
        """As ``make``, for any number of directories. What was open before may be closed."""
        wanted = list(paths)
        changed = self._make_by_level(wanted, crew) if crew.size > 1 else set()
        for path in wanted:
            self.root.make_room(path.count(b"/") + 1)
            changed.update(self.make(path))
        return changed

    def _make_by_level(self, paths: Iterable[bytes], crew: Crew) -> set[bytes]:
        """As many of the directories as can be made many at a time are there: nothing stood in their way."""
        changed: set[bytes] = set()
        every = {each for path in paths for each in (*ancestors(path), path)}
        if len(every) > self.root.most // 2:
            return changed
        self.root.make_room(len(every))
        for _, level in groupby(sorted(every, key=_depth), key=_depth):
            together = list(level)
            self.root.open_all(together, crew)
            missing = [each for each in together if self.root.is_open(parent(each)) and not self.root.is_open(each)]
            made = crew.map(self._make_one, [(name_of(each), self.root.directory(parent(each))) for each in missing])
            changed.update(parent(each) for each, is_new in zip(missing, made, strict=True) if is_new)
            self.root.open_all(missing, crew)
        return changed

    def _make_one(self, one: tuple[bytes, int]) -> bool:
        try:
            self.fs.mkdir(one[0], 0o700, at=one[1])
        except FileExistsError:
            return False
        return True

    def _is_directory(self, path: bytes) -> bool:
        try:
            self.root.directory(path)
        except OSError as error:
            if error.errno not in _NO_DIRECTORY:
                raise
            return False
        return True

    def move_aside(self, path: bytes) -> None:
        """What stood at ``path`` stands in our ``aside`` directory, whole. Raises ``OSError``."""
        self.make(self._aside)
        sync_directory(self.fs, self.root.directory(parent(self._aside)))  # before anything is nowhere else
        above, target = self.root.directory(parent(path)), self.root.directory(self._aside)
        taken = set(self.fs.names(target))
        base = stamp(self.clock.now_ns()).encode()
        name = next(n for n in (base + b"-%d" % count for count in range(len(taken) + 1)) if n not in taken)
        self.fs.rename(name_of(path), name, source_at=above, target_at=target)
        self.unsynced.add(self._aside)
        self.root.forget(path)
        sync_directory(self.fs, target)
        self.unsynced.clear()

    def close(self) -> None:
        self.root.close()


def _depth(path: bytes) -> int:
    return path.count(b"/")
