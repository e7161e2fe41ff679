"""What a sidecar's status says and when, noted on a thread while a test does something else."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import pytest

from tests.processes import Place

_EVERY_S = 0.05
_SILENT: dict[str, Any] = {"state": "silent", "persist": {"state": "unknown"}, "pending": {"files": -1}, "failed": []}


class Diary:
    """Asks from entry to exit; prints every change with its second, which pytest shows where the test failed."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._status = _SILENT
        self._lines: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write, name="diary")
        self._began_s = time.monotonic()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        print("\n".join(self._lines))

    def _write(self) -> None:
        while not self._over.wait(_EVERY_S):
            try:
                self._status = self._place.status()
            except TimeoutError:
                self._status = _SILENT
            status = self._status
            said = {
                "state": status["state"],
                "persist": status.get("persist", {}).get("state"),
                "pending": status["pending"]["files"],
                "failed": len(status.get("failed", [])),
            }
            self.note(json.dumps(said), only_when_new=True)

    def note(self, text: str, *, only_when_new: bool = False) -> None:
        """``text`` is in the diary, with the second."""
        if not only_when_new or not any(line.endswith(text) for line in self._lines[-1:]):
            self._lines.append(f"{time.monotonic() - self._began_s:7.2f} s  {text}")

    def until(self, holds: Callable[[dict[str, Any]], object], what: str, deadline_s: float) -> float:
        """After how many seconds the status was so. Fails the test, naming ``what``, where that was too late."""
        started_s = time.monotonic()
        while not holds(self._status):
            if time.monotonic() - started_s > deadline_s:
                pytest.fail(f"not within {deadline_s} s: {what}; the status says {json.dumps(self._status)[:2000]}")
            time.sleep(_EVERY_S)  # between two looks
        self.note(what)
        return time.monotonic() - started_s

    def until_persist_is(self, state: str, deadline_s: float) -> float:
        """After how many seconds the status said that Persist is in ``state``, and that work is therefore not safe.

        On a full Persist the sidecar can go on ``watching``: what still fits is saved.
        """
        states = ("degraded", "watching") if state == "full" else ("degraded",)
        return self.until(
            lambda status: status["state"] in states and status.get("persist", {}).get("state") == state,
            f"Persist is {state}",
            deadline_s,
        )

    def until_all_is_safe(self, deadline_s: float) -> float:
        """After how many seconds the sidecar was watching, with nothing pending and nothing wrong."""
        return self.until(
            lambda status: (
                (status["state"], status.get("persist", {}).get("state")) == ("watching", "ok")
                and status["pending"]["files"] == 0
                and not status["failed"]
            ),
            "watching, and everything is safe",
            deadline_s,
        )
