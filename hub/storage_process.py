"""The sidecar of one server as a process: started, asked how it is, and ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hub.plan import Plan
from hub.processes import MARK, Child, kill_session, last_line, marked, start
from hub.text import visible
from sidecar.config import to_environ

Say = Callable[[int, str], None]
READY = frozenset({"watching", "degraded"})
SAFE = 0
_ASK_EVERY_S = 0.2
_ANSWER_S = 5.0
_KEEP = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "XDG_RUNTIME_DIR")


class StorageFailed(Exception):
    """The sidecar did not get ready; the text is one readable line."""


class StorageProcess:
    """The sidecar that ``plan`` describes. ``command`` is the program, without its subcommand."""

    def __init__(self, plan: Plan, command: Sequence[str]) -> None:
        self._plan = plan
        self._command = tuple(command)
        self._log = os.path.join(plan.directories.server, "sidecar.log")
        self._mark = f"{plan.directories.server}#storage"
        self.child: Child | None = None

    def start(self) -> None:
        """The process runs; it may end again at once. Raises ``OSError``."""
        self.child = start(
            [*self._command, "run", "--no-require-mount"],
            environ=self._environ(),
            cwd=self._plan.directories.run,
            log=self._log,
        )

    def adopt(self) -> bool:
        """Finds the process that an earlier hub started; whether there is one."""
        found = self.leftovers()
        self.child = found[0] if found else None
        return bool(found)

    def leftovers(self) -> list[Child]:
        """The processes of this server's sidecar, whoever started them; the oldest, which started the others, first."""
        return [Child(process) for process in sorted(marked(self._mark), key=lambda process: process.age_key)]

    @property
    def running(self) -> bool:
        return self.child is not None and self.child.running()

    async def ready(self, say: Say, *, longest_s: float) -> None:
        """Waits until the home is restored and watched; after ``longest_s`` the start goes on without that.

        Raises ``StorageFailed`` when the process ends instead.
        """
        deadline = asyncio.get_running_loop().time() + longest_s
        while True:
            status = await self._ask()
            if self.child is None or not self.child.running():
                code = self.child.exit_code() if self.child else None
                raise StorageFailed(f"the storage sidecar ended with exit code {code}: {self.last_line()}")
            if status is not None and status.get("state") in READY:
                say(70, describe(status))
                return
            if asyncio.get_running_loop().time() > deadline:
                say(70, "Storage: not ready yet; it goes on in the background.")
                return
            if status is not None:
                say(40, describe(status))
            await asyncio.sleep(_ASK_EVERY_S)

    async def end(self) -> int | None:
        """Drains: SIGTERM, then the rest of the grace. The exit code, or ``None`` where it cannot be known."""
        if self.child is None:
            return None
        self.child.send(signal.SIGTERM)
        if not await self.child.ended(self._plan.sidecar.grace_s):
            self.child.send(signal.SIGKILL)
            await self.child.ended(2.0)
        return self.child.exit_code()

    async def backup(self, *, longest_s: float) -> int | None:
        """Saves once, without a running sidecar; the exit code, or ``None`` if it took too long."""
        code, _ = await self._run("backup", longest_s=longest_s)
        return code

    def last_line(self) -> str:
        """The last line that the sidecar wrote."""
        return last_line(self._log)

    async def _ask(self) -> Mapping[str, Any] | None:
        """The status document, or ``None`` while there is none."""
        _, output = await self._run("status", "--json", longest_s=_ANSWER_S)
        try:
            status = json.loads(output)
        except (ValueError, RecursionError):
            return None
        return status if isinstance(status, dict) else None

    async def _run(self, *arguments: str, longest_s: float) -> tuple[int | None, bytes]:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            *arguments,
            env=self._environ(),
            cwd=self._plan.directories.run,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), longest_s)
        except TimeoutError:
            return None, b""
        finally:
            kill_session(process.pid)
            await process.wait()
        return process.returncode, output

    def _environ(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEEP if name in os.environ}
        return {**kept, "HOME": self._plan.directories.run, MARK: self._mark, **to_environ(self._plan.sidecar)}


def describe(status: Mapping[str, Any]) -> str:
    """What the sidecar is doing, in plain words."""
    protected, pending = _files(status.get("protected")), _files(status.get("pending"))
    restored = _files(status.get("restored"))
    match status.get("state"):
        case "restoring":
            return f"Storage: bringing your work back from Persist: {_count(restored)}"
        case "watching":
            back = f"{_count(restored)} brought back from Persist; " if restored else ""
            rest = f", {_count(pending)} to go" if pending else ""
            safe = f"{_count(protected)} safe{rest}" if protected or pending else "nothing is in it yet"
            return f"Storage: {back}your home is being saved: {safe}"
        case "degraded":
            return f"Storage: NOT everything can be saved{_why(status)}; `sidecar status` says more"
        case "draining":
            return "Storage: saving the last session first"
        case _:
            return "Storage: preparing your home"


def _why(status: Mapping[str, Any]) -> str:
    persist, detail = status.get("persist"), status.get("detail")
    state = persist.get("state") if isinstance(persist, dict) else None
    reasons = [f"Persist is {state}"] if isinstance(state, str) and state != "ok" else []
    reasons += [detail] if isinstance(detail, str) and detail else []
    return f" ({visible('; '.join(reasons), limit=200)})" if reasons else ""


def _files(document: object) -> int:
    files = document.get("files") if isinstance(document, dict) else None
    return files if isinstance(files, int) else 0


def _count(files: int) -> str:
    return f"{files:,} file" + ("" if files == 1 else "s")
