"""Where on Persist the contents of a path lie, and which path a content had, though directories were moved. Pure.

A content lies where it was at its end: a version where it left the mirror, a current one where it is now. Undoing the
moves between a time and that end, the latest first, gives the path that it had at the time. Only directories are moved,
so a content is always in the same place as its neighbours in the directory that it lies in.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sidecar.backup.moves import Move
from sidecar.entry import ancestors, join, name_of, parent


@dataclass(frozen=True, slots=True)
class Stay:
    """A content was at ``path`` from ``from_ns`` until just before ``until_ns``; None: it still is."""

    path: bytes
    from_ns: int
    until_ns: int | None


def is_within(path: bytes, directory: bytes) -> bool:
    """Whether ``path`` is ``directory`` or below it; everything is within the home, ``b""``."""
    return not directory or path == directory or path.startswith(directory + b"/")


class PathHistory:
    """Translates between paths and places under ``moves``, which are sorted by time."""

    def __init__(self, moves: Sequence[Move]) -> None:
        self._moves = moves
        self._times = [move.at_ns for move in moves]
        self._arrivals: dict[bytes, list[int]] = {}
        """Which moves led to a directory, by their positions."""
        for position, move in enumerate(moves):
            self._arrivals.setdefault(move.new, []).append(position)
        self._known: dict[tuple[bytes, int, int], bytes] = {}

    # From a place to paths.

    def path_at(self, at_ns: int, place: bytes, until_ns: int | None) -> bytes:
        """The path that the content in ``place``, which ends at ``until_ns`` or is current, had at ``at_ns``."""
        first, end = bisect_right(self._times, at_ns), self._end(until_ns)
        directory = parent(place)
        if first >= end or not directory:
            return place
        key = directory, first, end
        if key not in self._known:
            for position in self._undone(directory, first, end):
                directory = self._origin(directory, position)
            self._known[key] = directory
        return join(self._known[key], name_of(place))

    def stays(self, place: bytes, from_ns: int, until_ns: int | None) -> Iterator[Stay]:
        """Where the content in ``place`` was during its span, the latest first."""
        directory, name = parent(place), name_of(place)
        for position in self._undone(directory, bisect_right(self._times, from_ns), self._end(until_ns)):
            yield Stay(join(directory, name), self._times[position], until_ns)
            directory, until_ns = self._origin(directory, position), self._times[position]
        yield Stay(join(directory, name), from_ns, until_ns)

    def _undone(self, directory: bytes, first: int, end: int) -> Iterator[int]:
        """The moves, of those from ``first`` until before ``end``, that brought ``directory``, the latest first."""
        while (position := self._arrival(directory, end)) >= first:
            yield position
            directory, end = self._origin(directory, position), position

    def _end(self, until_ns: int | None) -> int:
        return len(self._moves) if until_ns is None else bisect_left(self._times, until_ns)

    def _arrival(self, directory: bytes, end: int) -> int:
        """The last of the first ``end`` moves that brought ``directory``; -1 where none did."""
        latest = -1
        while directory:
            arrivals = self._arrivals.get(directory, ())
            if count := bisect_left(arrivals, end):
                latest = max(latest, arrivals[count - 1])
            directory = parent(directory)
        return latest

    def _origin(self, directory: bytes, position: int) -> bytes:
        move = self._moves[position]
        return move.old + directory[len(move.new) :]

    # From a path to places.

    def of(self, path: bytes) -> list[bytes]:
        """Every place where a content can lie that was ever at ``path``.

        Never too few, and sometimes too many: ``stays`` tells.
        """
        return self._traced(_Trace(path, with_below=False), 0, path)

    def within(self, path: bytes, at_ns: int | None) -> list[bytes]:
        """Places that hold all that was ``path``, or below it, at ``at_ns``, or at any time at all.

        Some of it may lie below such a place, and other things too: ``path_at`` and ``stays`` tell. No place is below
        another.
        """
        if not path:
            return [path]
        trace = _Trace(path, with_below=True)
        if at_ns is None:
            return _outermost(self._traced(trace, 0, path))
        return _outermost(self._traced(trace, bisect_right(self._times, at_ns), None))

    def _traced(self, trace: _Trace, first: int, always: bytes | None) -> list[bytes]:
        for move in self._moves[first:]:
            trace.follow(move)
            if always is not None:
                trace.mark(always)
        return list(trace.visited)


def _outermost(places: Sequence[bytes]) -> list[bytes]:
    """Those of ``places`` that are not below another of them."""
    known = set(places)
    return [place for place in places if known.isdisjoint(ancestors(place))]


class _Trace:
    """Follows what was in one place, or ``with_below`` in one directory, through the moves."""

    def __init__(self, path: bytes, *, with_below: bool) -> None:
        self._with_below = with_below
        self.visited: dict[bytes, None] = {}
        # Of every place its mark says whether something that is followed may be there: the nearest one above it,
        # where it has none of its own.
        self._marks: dict[bytes, bool] = {}
        self._marked: list[bytes] = []
        self.mark(path)

    def follow(self, move: Move) -> None:
        """What is followed is where ``move`` has brought it."""
        leaving = self._below(move.old)
        if not self._is_marked(move.old) and not any(self._marks[mark] for mark in leaving):
            return
        arriving = {move.new + place[len(move.old) :]: self._is_marked(place) for place in [move.old, *leaving]}
        # Nothing can have been at the new place, unless a move is written down twice: then what it brought stays there.
        for place in [move.new, *self._below(move.new)]:
            arriving[place] = self._is_marked(place) or self._is_marked(move.old + place[len(move.new) :])
        self._clear(move.old)
        self._set(move.old, is_there=False)
        for place, is_there in arriving.items():
            self._set(place, is_there=is_there)

    def mark(self, place: bytes) -> None:
        """What is in ``place`` is followed from here on."""
        if self._with_below:
            self._clear(place)
        self._set(place, is_there=True)

    def _is_marked(self, place: bytes) -> bool:
        while self._with_below and place and place not in self._marks:
            place = parent(place)
        return self._marks.get(place, False)

    def _below(self, place: bytes) -> list[bytes]:
        # In the order of bytes all that begins with "place/" comes together, before "place0".
        start, end = (bisect_left(self._marked, place + after) for after in (b"/", b"0"))
        return self._marked[start:end]

    def _clear(self, place: bytes) -> None:
        for mark in self._below(place):
            del self._marks[mark]
            del self._marked[bisect_left(self._marked, mark)]

    def _set(self, place: bytes, *, is_there: bool) -> None:
        if place not in self._marks:
            insort(self._marked, place)
        self._marks[place] = is_there
        if is_there:
            self.visited[place] = None
