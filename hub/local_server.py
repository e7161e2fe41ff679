"""One server on one machine, in the order of a pod with a native sidecar: storage first, then the notebook; at the end
the notebook first, then the storage drains, and the fast home is wiped only if everything in it is safe."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass

from hub import home
from hub.gpu import MACHINE_GPU_VARIABLES, GpuVerdict, check_gpus, follow_up
from hub.plan import Plan
from hub.processes import MARK, Child, Process, end_all, last_line, listening, marked, start, until, with_descendants
from hub.storage_process import SAFE, Say, StorageFailed, StorageProcess

NOTEBOOK_PATIENCE_S = 4.0
"""For the notebook to end by itself after SIGTERM; with the sidecar's grace this stays below 20 s."""

_TOLD = (SAFE, 3, 5)
"""The sidecar's exit codes after a drain: all safe, some files not saved, the deadline passed."""

_READY_S = 240.0
_LISTENS_S = 60.0
_LOOK_EVERY_S = 0.5
_HEALTHY_S = 120.0
_BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)


@dataclass(frozen=True, kw_only=True)
class Programs:
    """What is run for a server: commands without their arguments."""

    sidecar: tuple[str, ...]
    gpu_preflight: tuple[str, ...]
    gpu_check: tuple[str, ...]
    notebook: tuple[str, ...]


class StartRefused(Exception):
    """The server was not started; the text is one readable line for the user."""


class LocalServer:
    """The processes and directories of one server. ``say`` tells its user, ``log`` the administrator."""

    def __init__(self, plan: Plan, programs: Programs, *, say: Say, log: logging.LoggerAdapter[logging.Logger]) -> None:
        self.plan = plan
        self._programs = programs
        self._say = say
        self._log = log
        self._mark = f"{plan.directories.server}#notebook"
        self._storage = StorageProcess(plan, programs.sidecar)
        self._notebook: Child | None = None
        self._starting = False
        self._ending: asyncio.Task[int] | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self, environ: Mapping[str, str], *, port: int) -> None:
        """The notebook listens on ``port``, with the variables of ``environ``, in a home that is restored and watched.

        Raises ``StartRefused``; nothing runs then.
        """
        self._starting = True
        try:
            self._prepare()
            await self._end_leftovers()
            if self.plan.check_gpus:
                await self._check_gpus(environ)
            self._go_on()
            self._storage.start()
            await self._storage.ready(self._say, longest_s=_READY_S)
            self._go_on()
            home.forget_kept(self.plan.directories)
            self._say(80, "Starting JupyterLab")
            await self._start_notebook(environ, port)
            if self.plan.check_frameworks:
                await self._check_frameworks(environ)
        except (StorageFailed, OSError) as error:
            await self.end()
            raise StartRefused(f"Your server was not started: {error}") from error
        except StartRefused:
            await self.end()
            raise
        finally:
            self._starting = False
        self._watch = asyncio.create_task(self._keep_watch())

    def adopt(self, notebook: Process) -> None:
        """Takes over the processes that an earlier hub started."""
        self._notebook = Child(notebook)
        self._storage.adopt()

    @property
    def notebook(self) -> Process | None:
        return self._notebook.process if self._notebook else None

    async def poll(self) -> int | None:
        """``None`` while the notebook runs or is being started; once it has ended and all is drained, its exit code."""
        if self._starting:
            return None
        if self._ending is None and self._notebook is not None and self._notebook.running():
            if self._watch is None:
                self._watch = asyncio.create_task(self._keep_watch())
            return None
        return await self.end()

    async def end(self) -> int:
        """Nothing of this server runs any more. The notebook's exit code, or 0. All callers share one end."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())
        return await asyncio.shield(self._ending)

    def _go_on(self) -> None:
        if self._ending is not None:
            raise StartRefused("Your server was stopped before it had started.")

    def _prepare(self) -> None:
        for line in home.prepare(self.plan.directories):
            self._log.warning("%s", line)
        try:
            home.forget_report(self.plan.directories)
        except OSError as error:
            self._log.warning("the report of the last GPU check cannot be removed: %s", error)
        kept = home.kept_note(self.plan.directories)
        if kept:
            self._say(10, f"Storage: the home of your last session was kept, {kept}. It is being saved now.")
        else:
            self._say(10, "Storage: preparing your home")

    async def _end_leftovers(self) -> None:
        """Ends what a killed hub left running: two notebooks must not write to one home."""
        left = await end_all(with_descendants(marked(self._mark)), patience_s=NOTEBOOK_PATIENCE_S)
        if self._storage.adopt():
            self._say(20, "Storage: saving the last session first")
            await self._storage.end()
        left += [child.process for child in self._storage.leftovers()]
        if left:
            raise StartRefused(f"A process of your last session does not end (pid {left[0].pid}).")

    async def _check_gpus(self, environ: Mapping[str, str]) -> None:
        expected = self.plan.size.gpus
        self._say(25, f"GPU check: testing {expected} GPU{'s' if expected > 1 else ''}")
        report = self.plan.directories.gpu_report
        kept = ("PATH", "HOME", "LANG", *MACHINE_GPU_VARIABLES)
        minimal = {name: environ[name] for name in kept if name in environ}
        settings = {"GPU_CHECK_EXPECT": str(expected), "GPU_CHECK_REPORT": report}
        environ = {**minimal, **settings}
        verdict = await check_gpus(self._programs.gpu_preflight, expected=expected, environ=environ)
        self._tell(verdict)
        try:
            home.keep_report(self.plan.directories, verdict.report)
        except OSError as error:
            self._log.warning("the report of the GPU check cannot be written: %s", error)
        if self.plan.block_on_gpu and verdict.verdict in ("fail", "unknown"):
            raise StartRefused(f"Your server was not started: its GPUs need attention. {verdict.line}")

    async def _check_frameworks(self, environ: Mapping[str, str]) -> None:
        """The check goes on by itself, and ends with the notebook: it carries its mark."""
        obstacle = await follow_up(self._programs.gpu_check, environ={**environ, MARK: self._mark})
        if obstacle:
            self._log.warning("the notebook's frameworks are not checked: %s", obstacle)

    async def _start_notebook(self, environ: Mapping[str, str], port: int) -> None:
        log = os.path.join(self.plan.directories.server, "notebook.log")
        self._notebook = notebook = start(
            self._programs.notebook,
            environ={**environ, MARK: self._mark},
            cwd=self.plan.directories.home,
            log=log,
        )
        await until(lambda: not notebook.running() or listening(port), _LISTENS_S)
        self._go_on()
        if not notebook.running():
            raise StartRefused(f"JupyterLab ended with exit code {notebook.exit_code()}: {last_line(log)}")

    def _tell(self, verdict: GpuVerdict) -> None:
        self._say(30, verdict.line)
        level = logging.INFO if verdict.verdict == "pass" else logging.WARNING
        self._log.log(level, "%s", verdict.line)

    async def _keep_watch(self) -> None:
        """Drains when the notebook ends by itself; starts the sidecar again when it does."""
        failures, started = 0, time.monotonic()
        while self._ending is None and self._notebook is not None:
            if not self._notebook.running():
                self._log.warning("the notebook ended by itself (exit code %s)", self._notebook.exit_code())
                await self.end()
                return
            if not self._storage.running:
                failures = 0 if time.monotonic() - started > _HEALTHY_S else failures
                wait_s = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
                self._log.error("the sidecar ended (%s); starting it again in %g s", self._storage.last_line(), wait_s)
                await asyncio.sleep(wait_s)
                failures, started = failures + 1, time.monotonic()
                if self._ending is None:
                    self._start_storage_again()
            await asyncio.sleep(_LOOK_EVERY_S)

    def _start_storage_again(self) -> None:
        try:
            self._storage.start()
        except OSError as error:
            self._log.error("the sidecar cannot be started: %s", error)

    async def _end(self) -> int:
        began = time.monotonic()
        code = await self._end_notebook()
        safe = await self._storage.end()
        if not os.path.lexists(self.plan.directories.home):
            return code  # not made yet, or removed by its user
        if safe not in _TOLD:
            # Adopted from an earlier hub, killed, or crashed: its exit code says nothing. A last backup does.
            remaining_s = NOTEBOOK_PATIENCE_S + 1 + self.plan.sidecar.grace_s - (time.monotonic() - began)
            safe = await self._back_up(longest_s=max(2.0, remaining_s))
        await self._settle(safe)
        return code

    async def _back_up(self, *, longest_s: float) -> int | None:
        try:
            return await self._storage.backup(longest_s=longest_s)
        except OSError as error:
            self._log.error("the sidecar cannot be started: %s", error)
            return None

    async def _end_notebook(self) -> int:
        family = with_descendants(marked(self._mark))  # before the end makes orphans of them
        if self._notebook is not None and self._notebook.running():
            self._notebook.send(signal.SIGTERM)
            await self._notebook.ended(NOTEBOOK_PATIENCE_S)
        # Kernels and terminals have sessions of their own, and can be left over.
        left = await end_all({*family, *marked(self._mark)}, patience_s=0.5)
        for process in left:
            self._log.error("process %s of the notebook does not end", process.pid)
        return (self._notebook.exit_code() if self._notebook else 0) or 0

    async def _settle(self, safe: int | None) -> None:
        """Wipes the home, or keeps it and says why."""
        directories = self.plan.directories
        reason = home.obstacle(directories)
        if safe != SAFE:
            reason = (
                f"because not everything in it could be saved (sidecar: exit code {safe}: {self._storage.last_line()})"
            )
        if not reason:
            try:
                await home.wipe(directories)
            except OSError as error:
                reason = f"because it could not be removed: {error}"
            else:
                self._log.info("everything is saved; the fast home is wiped")
                return
        self._log.error("THE HOME IS KEPT at %s, %s", directories.home, reason)
        try:
            await home.note_kept(directories, reason)
        except OSError as error:  # a full disk, for one: the home is kept all the same
            self._log.error("the note about it cannot be written: %s", error)
