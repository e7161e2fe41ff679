"""Threads that do the same work on many files at once: as many as the latency of Persist asks for.

On a local disk a file costs mostly processor time, and one thread is the best: more only wait for the interpreter's
lock (123 µs a file with one, 182 µs with eight). On NFS a file is 8 to 15 round trips, and a thread mostly waits: by
Little's law it takes as many threads as a file takes times longer than its own processor time, to keep one processor
busy.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

MOST = 64
_AT_FIRST = 8

_COMPUTING_S = 0.00025
"""What one small file costs in processor time where a thread has to wait for it, apart from the waiting."""

_TELLING = 16
"""Fewer files than this say little about latency: one of them may have met anything."""

T = TypeVar("T")
R = TypeVar("R")


def threads_for(latency_s: float) -> int:
    """How many threads for files of which the quickest took ``latency_s``."""
    return max(1, min(MOST, round(latency_s / _COMPUTING_S)))


class Crew:
    """Works for one thread, which waits. Nothing runs between two calls of ``map``."""

    def __init__(self) -> None:
        self._pool = _pool()
        self._has_threads = False
        self.size = _AT_FIRST

    def map(
        self,
        work: Callable[[T], R],
        items: Sequence[T],
        *,
        apart: Callable[[T], Hashable] | None = None,
        learn: bool = False,
    ) -> list[R]:
        """``work`` of every item, in order. One that fails keeps none of the others from being done.

        Several threads do not take items together of which ``apart`` gives the same, as far as there are others: the
        kernel lets only one change a directory at a time. Where items take longer than the crew is made for, it grows
        while it works. With ``learn`` the next ``map`` has as many threads as these items have asked for. Raises the
        first error when all have ended.
        """
        order = range(len(items)) if apart is None or self.size == 1 else _spread([apart(item) for item in items])
        self._has_threads = True
        shift = _Shift(self._pool, work, items, order)
        shift.work(self.size)
        if learn and shift.done >= _TELLING:
            # The quickest: the others also waited for each other.
            self.size = threads_for(shift.quickest_s)
        if shift.errors:
            raise shift.errors[0]
        return shift.results  # type: ignore[return-value]  # without an error every place was filled

    def rest(self) -> None:
        """No thread waits for work: each keeps a hundred kilobytes. For moments in which there is nothing to do."""
        if self._has_threads:
            self._pool.shutdown(wait=False)
            self._pool, self._has_threads = _pool(), False

    def close(self) -> None:
        """The threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MOST, thread_name_prefix="persist")


def _spread(groups: Sequence[Hashable]) -> list[int]:
    """The positions of the first of each group, in their order, then those of the second of each, and so on."""
    met: Counter[Hashable] = Counter()
    turns = []
    for group in groups:
        turns.append(met[group])
        met[group] += 1
    return sorted(range(len(groups)), key=turns.__getitem__)


class _Shift(Generic[T, R]):
    """One call of ``map``."""

    def __init__(
        self, pool: ThreadPoolExecutor, work: Callable[[T], R], items: Sequence[T], order: Iterable[int]
    ) -> None:
        self._pool, self._work, self._items = pool, work, items
        self.results: list[R | None] = [None] * len(items)
        self.errors: list[Exception] = []
        self.done = 0
        self.quickest_s = self._lately_s = float("inf")
        self._waiting = iter(order)
        self._lock = threading.Lock()
        self._hands: list[Future[None]] = []
        self._size = 0

    def work(self, size: int) -> None:
        """All is done, by ``size`` threads or more."""
        self._size = min(size, len(self._items))
        if self._size <= 1:
            self._hand()
        else:
            self._hire(self._size)
        for hand in self._hands:  # those that are hired meanwhile too
            wait([hand])
        for hand in self._hands:
            hand.result()

    def _hire(self, count: int) -> None:
        self._hands += [self._pool.submit(self._hand) for _ in range(count)]

    def _hand(self) -> None:
        while True:
            with self._lock:
                position = next(self._waiting, None)
            if position is None:
                return
            began_s = time.perf_counter()
            try:
                self.results[position] = self._work(self._items[position])
            except Exception as error:  # noqa: BLE001  raised again by ``map``, when nobody works any more
                self.errors.append(error)
            with self._lock:
                self._note(time.perf_counter() - began_s)

    def _note(self, seconds: float) -> None:
        self.done += 1
        self.quickest_s = min(self.quickest_s, seconds)
        self._lately_s = min(self._lately_s, seconds)
        if self.done % _TELLING == 0:
            wanted = min(threads_for(self._lately_s), self._size + len(self._items) - self.done)
            self._lately_s = float("inf")
            if wanted > self._size:
                self._hire(wanted - self._size)
                self._size = wanted
