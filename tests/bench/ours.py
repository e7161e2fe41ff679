"""Our engine inside the benchmark's process: what a running sidecar does for a flush, without the way there."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.engine import Engine
from sidecar.fsops import FileSystem
from tests.bench.trees import IncompleteCopyError

_CATCH_UP_S = 5.0


class Ours:
    """An engine on ``home`` and ``persist``, with the settings it ships with but for ``settings``."""

    def __init__(self, home: Path, persist: Path, **settings: Any) -> None:
        _raise_descriptor_limit()
        self.mirror = persist / "Backup" / "default"
        chosen = Settings(home=str(home), persist=str(persist), require_mount=False, **settings)
        self._engine = Engine(FileSystem(), Clock(), chosen, wake=lambda: None)

    def first_copy(self) -> None:
        """The home is watched from now on, and all of it is safe. Raises ``IncompleteCopyError``."""
        self._engine.finder.start_watching()
        self._engine.flush(catch_up_s=_CATCH_UP_S, out_of_time=lambda: False)
        self._check()

    def flush(self) -> None:
        """All that changed since is safe: durable, the old contents kept. Raises ``IncompleteCopyError``."""
        self._engine.finder.catch_up(_CATCH_UP_S)
        self._engine.flush_now(lambda: False)
        self._check()

    def _check(self) -> None:
        unsaved = self._engine.unsaved()
        if unsaved:
            raise IncompleteCopyError(f"{len(unsaved)} files are not saved, {next(iter(unsaved))!r} among them")

    def close(self) -> None:
        self._engine.close()


def _raise_descriptor_limit() -> None:
    """As the sidecar's process does it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def timed(work: Any) -> float:
    """The seconds that ``work()`` takes."""
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s
