"""An engine in this process, in directories of its own: for what has to happen between two of its turns."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.engine import Engine
from sidecar.fsops import FileSystem
from tests.processes import tree


@contextmanager
def watching_engine(
    top: Path, fs: FileSystem | None = None, fill: Callable[[Path], None] = lambda _home: None
) -> Iterator[tuple[Engine, Path, Path]]:
    """An engine that watches a home, which was filled by ``fill``; the home, and the mirror."""
    home, persist = top / "home", top / "persist"
    home.mkdir()
    persist.mkdir()
    fill(home)
    time.sleep(0.3)  # what was there before is not fresh
    settings = Settings(home=str(home), persist=str(persist), require_mount=False)
    engine = Engine(fs or FileSystem(), Clock(), settings, wake=lambda: None)
    try:
        engine.finder.start_watching()
        yield engine, home, persist / "Backup" / "default"
    finally:
        engine.close()


def turn_until(engine: Engine, condition: Callable[[], object], what: str, deadline_s: float = 20.0) -> None:
    """``engine`` has its turns until ``condition`` holds. Fails the test, naming ``what``, at the deadline."""
    give_up_at = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < give_up_at, f"not within {deadline_s} s: {what}"
        engine.turn()
        time.sleep(0.01)  # between two turns


def differences(home: Path, mirror: Path) -> dict[str, str]:
    """The paths at which ``mirror`` is not as ``home``, in kind, mode, time or content."""
    ours, theirs = _seen(home), _seen(mirror)
    return {
        path: "missing" if path not in theirs else "different" if path in ours else "not in the home"
        for path in ours.keys() | theirs.keys()
        if ours.get(path) != theirs.get(path)
    }


def _seen(top: Path) -> dict[str, tuple[int, int, bytes] | None]:
    """None for a directory: its mode in the mirror is the mirror's."""
    return {
        path: None if stat.S_ISDIR(mode) else (stat.S_IMODE(mode), mtime_ns, content)
        for path, (mode, mtime_ns, content) in tree(top).items()
        if path != "Save"
    }
