"""A sidecar as a process of its own, in directories of its own, and nothing of it left when a test is over."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from sidecar.server import ask

CHECKOUT = Path(__file__).resolve().parent.parent
DEADLINE_S = 20.0


def wait_until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """``condition`` holds. Fails the test, naming ``what``, where it does not within ``deadline_s``."""
    give_up_at = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > give_up_at:
            pytest.fail(f"not within {deadline_s} s: {what}")
        time.sleep(0.01)  # between two looks


def tree(top: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every path below ``top`` with its mode, its modification time and its content; for links their target."""
    found = {}
    for directory, names, files in os.walk(top):
        for name in names + files:
            path = Path(directory, name)
            status = path.lstat()
            if path.is_symlink():
                content = os.fsencode(path.readlink())
            else:
                content = path.read_bytes() if path.is_file() else b""
            mtime_ns = 0 if path.is_dir() and not path.is_symlink() else status.st_mtime_ns
            found[str(path.relative_to(top))] = (status.st_mode, mtime_ns, content)
    return found


class MountNamespace:
    """A process that holds mounts nobody else sees; they are gone when it is."""

    def __init__(self, mounts: str) -> None:
        """``mounts`` is a line of shell. Skips the test where the kernel does not let us mount."""
        user = [] if os.geteuid() == 0 else ["-Ur"]
        self._enter = [] if os.geteuid() == 0 else ["-U", "--preserve-credentials"]
        self.process = subprocess.Popen(
            ["unshare", *user, "-m", "--propagation", "private", "sh", "-c", f"{mounts} && echo ready && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != b"ready\n":
            self.close()
            pytest.skip("mounting in a namespace of one's own is not allowed here")

    @property
    def prefix(self) -> list[str]:
        """The beginning of a command that runs inside."""
        return ["nsenter", *self._enter, "-t", str(self.process.pid), "-m", "--"]

    def seen(self, path: Path) -> Path:
        """Where ``path`` of the inside is seen from the outside."""
        return Path(f"/proc/{self.process.pid}/root{path}")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Place:
    """A home, a Persist, and the sidecars that a test starts on them."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.home = top / "home"
        self.persist = top / "persist"
        self.home.mkdir()
        self.persist.mkdir()
        # A socket's path has 107 bytes at most, and pytest's directories are long.
        self.run_directory = Path(tempfile.mkdtemp(prefix="jhs-"))
        self.socket = str(self.run_directory / "s")
        self.prefix: list[str] = []
        self.require_mount = False
        self.settings: dict[str, str] = {}
        self.log = top / "log"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._namespace: MountNamespace | None = None
        self.persist_inside = self.persist

    def mount_persist(self, how: str) -> None:
        """Persist is a mount of its own, which only the sidecars see; ``persist`` is then where the test sees it."""
        namespace = MountNamespace(f"mount -t {how} none {self.persist}")
        self.move_into(namespace, namespace.seen(self.persist))

    def move_into(self, namespace: MountNamespace, persist: Path) -> None:
        """The sidecars live in ``namespace``, which ends with this place; the test sees Persist at ``persist``."""
        self._namespace = namespace
        self.prefix = namespace.prefix
        self.require_mount = True
        self.persist = persist

    def remount_persist(self, options: str) -> None:
        """The mount of Persist has ``options``, for example ``ro``."""
        subprocess.run([*self.prefix, "mount", "-o", f"remount,{options}", str(self.persist_inside)], check=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if self._namespace is not None:
            self._namespace.close()
        if self.log.exists():  # shown where the test failed
            print(self.log.read_text(errors="replace")[-4000:])
        shutil.rmtree(self.run_directory)

    @property
    def mirror(self) -> Path:
        return self.persist / "Backup" / "default"

    @property
    def environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SIDECAR_", "GPU_CHECK_"))}
        temporary = self.run_directory / "tmp"
        temporary.mkdir(exist_ok=True)
        temporary.chmod(0o777)
        return {
            **kept,
            "PYTHONPATH": str(CHECKOUT),
            "TMPDIR": str(temporary),
            "SIDECAR_SOCKET": self.socket,
            **self.settings,
        }

    def command(self, *words: str) -> list[str]:
        mount = [] if self.require_mount else ["--no-require-mount"]
        where = ["--home", str(self.home), "--persist", str(self.persist_inside), *mount]
        return [*self.prefix, sys.executable, "-m", "sidecar", words[0], *where, *words[1:]]

    def spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """``command`` runs in a process group of its own until the test is over at the latest."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                env=self.environ,
                cwd=self.top,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                process_group=0,
            )
        self._processes.append(process)
        return process

    def start(self, *options: str, state: str = "watching") -> subprocess.Popen[bytes]:
        """A running sidecar that has come as far as ``state``."""
        process = self.spawn(self.command("run", *options))
        wait_until(lambda: process.poll() is not None or self.status()["state"] == state, f"the sidecar is {state}")
        assert process.poll() is None, f"it ended with {process.returncode}: {self.log.read_text()}"
        return process

    def status(self) -> dict[str, Any]:
        """What the running sidecar says; ``stopped`` where none answers."""
        return ask(self.socket, {"op": "status"}, 1.5) or {"state": "stopped", "pending": {"files": 0}}

    def flush(self, *, accept_deletions: bool = False) -> dict[str, Any]:
        """Everything changed before is safe, or the reply says what is not."""
        reply = ask(self.socket, {"op": "flush", "accept_deletions": accept_deletions}, 60.0)
        assert reply is not None, "the sidecar did not answer"
        return reply

    def run(self, *words: str, deadline_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """One command of the sidecar, to its end."""
        return subprocess.run(
            self.command(*words),
            env=self.environ,
            cwd=self.top,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=deadline_s,
            check=False,
        )

    def run_json(self, *words: str) -> Any:
        """What a command says as JSON."""
        result = self.run(*words)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def end(self, process: subprocess.Popen[bytes], deadline_s: float = DEADLINE_S) -> int:
        """The exit code after SIGTERM."""
        process.terminate()
        return process.wait(deadline_s)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """No warning. Its engine, which would still answer for a moment, is gone too."""
        process.kill()
        process.wait()
        wait_until(lambda: self.status()["state"] == "stopped", "nobody answers any more")

    def processes(self) -> set[int]:
        """Every process that a sidecar of this place was, or started: known by its environment, of whichever thread."""
        mark = os.fsencode(f"SIDECAR_SOCKET={self.socket}")
        found = set()
        for environ in Path("/proc").glob("[0-9]*/task/[0-9]*/environ"):
            with suppress(OSError):  # gone meanwhile
                if mark in environ.read_bytes().split(b"\0"):
                    found.add(int(environ.parts[2]))
        return found

    def new_home(self) -> None:
        """The next sidecar finds an empty home, as after a lost pod."""
        shutil.move(self.home, tempfile.mkdtemp(prefix="old-home-", dir=self.top))
        self.home.mkdir()
