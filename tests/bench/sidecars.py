"""A sidecar as a process of its own, the way the product runs it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sidecar.server import ask
from tests.bench.commands import Ran, Refused, run_timed
from tests.bench.trees import IncompleteCopyError

_CHECKOUT = Path(__file__).resolve().parents[2]
_FIRST_COPY_FILES_PER_S = 200
"""Whoever is slower than this is taken to be stuck."""


class SidecarFailedError(Exception):
    """A sidecar did not do what is to be measured."""


class Sidecar:
    """``sidecar run``. On the way out it is told to end, and must say that all is safe."""

    def __init__(self, home: Path, persist: Path, *, tracer: Sequence[str] = ()) -> None:
        """``tracer`` is a command that begins with the sidecar's, and leaves it the child of this process."""
        self.home, self.persist = home, persist
        self.mirror = persist / "Backup" / "default"
        # A socket's path has 107 bytes at most.
        self._run = Path(tempfile.mkdtemp(prefix="jhs-"))
        self._socket = str(self._run / "s")
        self._log = self._run / "log"
        self.started_s = time.monotonic()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*tracer, *_words("run", home, persist)],
                env=_environ(self._socket),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self.process.returncode is None:
                self._end()
        finally:
            self.kill()
            shutil.rmtree(self._run)

    def _end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(150)  # its grace is 120 s
        if code != 0:
            raise SidecarFailedError(f"the sidecar ended with {code}: {self._said()}")

    def kill(self) -> None:
        """It is gone, with all that it started."""
        if self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def status(self) -> dict[str, Any]:
        """What it says of itself; its state is ``starting`` before it answers. Raises ``SidecarFailedError``."""
        if self.process.poll() is not None:
            raise SidecarFailedError(f"the sidecar ended with {self.process.returncode}: {self._said()}")
        try:
            return ask(self._socket, {"op": "status"}, 5.0) or {"state": "starting"}
        except TimeoutError:
            return {"state": "silent"}

    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-600:]

    def wait_until_watching(self, timeout_s: float = 300.0) -> float:
        """The seconds from its start until it says that it watches."""
        while self.status()["state"] != "watching":
            self._not_later_than(self.started_s + timeout_s, "it did not come to watch")
            time.sleep(0.005)
        return time.monotonic() - self.started_s

    def wait_until_safe(self, files: int, look: Callable[[], object] = lambda: None) -> None:
        """All of at least ``files`` files are safe. ``look`` is called meanwhile, twice a second or more at first."""
        begin_s = time.monotonic()
        end_s = begin_s + 300 + files / _FIRST_COPY_FILES_PER_S
        while True:
            status = self.status()
            if (
                status["state"] == "watching"
                and not status["pending"]["files"]
                and status["protected"]["files"] >= files
            ):
                return
            self._not_later_than(end_s, f"{files} files were not safe: {status['state']}, {status.get('pending')}")
            look()
            time.sleep(min(0.5, 0.02 + (time.monotonic() - begin_s) / 10))

    def wait_for(self, name: str, content: bytes, timeout_s: float = 600.0) -> float:
        """The seconds from this call until the mirror has ``content`` under ``name``."""
        started_s, mirrored = time.monotonic(), self.mirror / name
        while not mirrored.is_file() or mirrored.read_bytes() != content:
            self._not_later_than(started_s + timeout_s, f"{name} was not saved")
            time.sleep(0.002)
        return time.monotonic() - started_s

    def _not_later_than(self, end_s: float, what: str) -> None:
        if time.monotonic() > end_s:
            raise SidecarFailedError(f"{what} in time: {self._said()}")


def back_up(home: Path, persist: Path) -> Ran:
    """``sidecar backup`` from its start to its end. Raises ``IncompleteCopyError`` where it ends with another code."""
    run = tempfile.mkdtemp(prefix="jhs-")
    try:
        outcome = run_timed(_words("backup", home, persist), _environ(os.path.join(run, "s")))
    finally:
        shutil.rmtree(run)
    if isinstance(outcome, Refused):
        raise IncompleteCopyError(outcome.reason)
    return outcome


def _words(command: str, home: Path, persist: Path) -> list[str]:
    where = ["--home", str(home), "--persist", str(persist), "--no-require-mount"]
    return [sys.executable, "-m", "sidecar", command, *where]


def _environ(socket: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SIDECAR_", "GPU_CHECK_"))}
    return {**kept, "PYTHONPATH": str(_CHECKOUT), "SIDECAR_SOCKET": socket}
