"""Histories of a home as hypothesis makes them: what was where at every time, and what a backup keeps of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from sidecar.backup.moves import Move
from sidecar.backup.path_history import is_within
from sidecar.entry import ancestors

TICK_NS = 1000
_NAMES = [b"a", b"b", b"c", b"a-", b"a0"]
_paths = st.lists(st.sampled_from(_NAMES), min_size=1, max_size=3).map(b"/".join)
_deep_paths = st.tuples(_paths, st.sampled_from([b"x", b"y", b"a"])).map(b"/".join)


@dataclass(frozen=True)
class Write:
    path: bytes
    pause: int


@dataclass(frozen=True)
class Delete:
    """Which of the paths there are: a file, or a directory with all in it."""

    choice: int
    pause: int


@dataclass(frozen=True)
class MoveDirectory:
    """Which of the directories, and where to. ``twice``: a kill made the store write it down again."""

    choice: int
    new: bytes
    pause: int
    twice: bool


Step = Write | Delete | MoveDirectory

_pauses = st.integers(1, 3)
_choices = st.integers(0, 11)
_moves = st.builds(MoveDirectory, _choices, _paths, st.integers(0, 2), st.integers(0, 9).map(lambda n: n == 0))
steps = st.lists(
    st.builds(Write, _deep_paths | _paths, _pauses) | st.builds(Delete, _choices, _pauses) | _moves,
    min_size=5,
    max_size=16,
)


@dataclass(frozen=True)
class Stored:
    """One content in the backup: the number that it has in this history, and its span; None: it is current."""

    place: bytes
    from_ns: int
    until_ns: int | None
    content: int

    def covers(self, at_ns: int) -> bool:
        return self.from_ns <= at_ns and (self.until_ns is None or at_ns < self.until_ns)


@dataclass
class History:
    """Replays steps, and remembers every state. A step that cannot be done is left out."""

    now_ns: int = 0
    current: dict[bytes, Stored] = field(default_factory=dict)
    versions: list[Stored] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    states: dict[int, dict[bytes, int]] = field(default_factory=lambda: {0: {}})
    vague: set[int] = field(default_factory=set)
    """Times between the two records of one move: nobody can say whether it had happened."""
    paths: set[bytes] = field(default_factory=lambda: {b""})
    """Every path of a file or a directory that there ever was."""

    @classmethod
    def of(cls, steps: list[Step]) -> History:
        history = cls()
        for step in steps:
            history._take(step)
        return history

    @property
    def stored(self) -> list[Stored]:
        return [*self.current.values(), *self.versions]

    @property
    def times(self) -> list[int]:
        """Every time that can be told from the others, and can be known."""
        return [at_ns for at_ns in range(0, self.now_ns + 2 * TICK_NS, TICK_NS) if at_ns not in self.vague]

    def at(self, at_ns: int) -> dict[bytes, int]:
        """Path → content at ``at_ns``."""
        return self.states[max(each for each in self.states if each <= at_ns)]

    def _take(self, step: Step) -> None:
        match step:
            case Write():
                if not self._is_free_for_file(step.path):
                    return
                self._wait(step.pause)
                self._end(step.path)
                self.current[step.path] = Stored(step.path, self.now_ns, None, len(self.states))
            case Delete():
                existing = sorted({*self.current, *self._directories()})
                if not existing:
                    return
                self._wait(step.pause)
                chosen = existing[step.choice % len(existing)]
                for path in [path for path in self.current if is_within(path, chosen)]:
                    self._end(path)
            case MoveDirectory():
                directories = self._directories()
                old = directories[step.choice % len(directories)] if directories else b""
                if not old or is_within(step.new, old) or not self._is_free(step.new):
                    return
                self._wait(max(step.pause, 1) if self._moved_last() else step.pause)
                self._move(old, step.new)
                if step.twice:
                    first_ns = self.now_ns
                    self._wait(1)
                    self.moves.append(Move(self.now_ns, old, step.new))
                    self.vague.update(range(first_ns, self.now_ns, TICK_NS))
        self.states[self.now_ns] = {path: stored.content for path, stored in self.current.items()}
        self.paths.update(self.current, self._directories())

    def _wait(self, ticks: int) -> None:
        self.now_ns += ticks * TICK_NS

    def _moved_last(self) -> bool:
        return bool(self.moves) and self.moves[-1].at_ns == self.now_ns

    def _end(self, path: bytes) -> None:
        old = self.current.pop(path, None)
        if old is not None:
            self.versions.append(Stored(path, old.from_ns, self.now_ns, old.content))

    def _move(self, old: bytes, new: bytes) -> None:
        for path in [path for path in self.current if is_within(path, old)]:
            moved = self.current.pop(path)
            place = new + path[len(old) :]
            self.current[place] = Stored(place, moved.from_ns, None, moved.content)
        self.moves.append(Move(self.now_ns, old, new))

    def _directories(self) -> list[bytes]:
        return sorted({above for path in self.current for above in ancestors(path)})

    def _is_free(self, path: bytes) -> bool:
        return not any(is_within(each, path) for each in self.current) and not any(
            above in self.current for above in ancestors(path)
        )

    def _is_free_for_file(self, path: bytes) -> bool:
        return path in self.current or self._is_free(path)
