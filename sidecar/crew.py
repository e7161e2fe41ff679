"""Threads that do the same work on many files at once: as many as the latency of Persist asks for.

On a local disk a file costs mostly processor time, and one thread is the best: more only wait for the interpreter's
lock (123 µs a file with one, 182 µs with eight). On NFS a file is 5 to 7 round trips, and a thread mostly waits: by
Little's law it takes as many threads as a file takes times longer than its own processor time, to keep one processor
busy.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Generic, TypeVar

MOST = 64
_AT_FIRST = 8

_COMPUTING_S = 0.0002
"""What one small file costs in processor time, with the calls of a local file system."""

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
        self._pool = ThreadPoolExecutor(MOST, thread_name_prefix="persist")
        self.size = _AT_FIRST

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """``work`` of every item, in order. One that fails keeps none of the others from being done.

        Raises the first error when all have ended.
        """
        results: list[R | None] = [None] * len(items)
        errors: list[Exception] = []
        waiting = iter(range(len(items)))
        lock = threading.Lock()

        def hand() -> None:
            while True:
                with lock:
                    position = next(waiting, None)
                if position is None:
                    return
                try:
                    results[position] = work(items[position])
                except Exception as error:  # noqa: BLE001  raised again below, when nobody works any more
                    errors.append(error)

        hands = min(self.size, len(items))
        if hands <= 1:
            hand()
        else:
            futures = [self._pool.submit(hand) for _ in range(hands)]
            wait(futures)
            for future in futures:
                future.result()
        if errors:
            raise errors[0]
        return results  # type: ignore[return-value]  # without an error every place was filled

    def learn(self, seconds: Sequence[float]) -> None:
        """What each file of a batch took: the next batch has as many threads as that asks for."""
        if len(seconds) >= _TELLING:
            # The quickest: the others also waited for each other.
            self.size = threads_for(min(seconds))

    def close(self) -> None:
        """The threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Timed(Generic[T, R]):
    """``work``, with the seconds that each call took."""

    def __init__(self, work: Callable[[T], R]) -> None:
        self._work = work
        self.seconds: list[float] = []

    def __call__(self, item: T) -> R:
        started_s = time.perf_counter()
        try:
            return self._work(item)
        finally:
            self.seconds.append(time.perf_counter() - started_s)
