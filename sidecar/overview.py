"""How things stand between the home and its backup, for the status document."""

from __future__ import annotations

from itertools import islice
from typing import Any

from sidecar.backup.index import Index
from sidecar.clock import Clock, iso
from sidecar.config import Settings
from sidecar.ending import Ending
from sidecar.fsops import Tree
from sidecar.gate import Gate
from sidecar.home.finder import Finder
from sidecar.home.scan import Scanner
from sidecar.saving.saver import Saver
from sidecar.status import Status

_LOOKED_AT = 1000
"""As many waiting files are asked for their size: the status is made in every turn."""


class Overview:
    """Asks everybody; changes nothing. For the thread of the engine."""

    def __init__(
        self,
        clock: Clock,
        settings: Settings,
        home: Tree,
        *,
        scanner: Scanner,
        finder: Finder,
        saver: Saver,
        index: Index,
        gate: Gate,
        ending: Ending,
    ) -> None:
        self._clock, self._settings, self._home = clock, settings, home
        self._scanner, self._finder, self._saver, self._index = scanner, finder, saver, index
        self._gate, self._trouble, self._ending = gate, gate.trouble, ending
        self.restored_files = 0

    def status(self, state: str, detail: str) -> Status:
        """A ``watching`` sidecar with trouble is ``degraded``."""
        saver, finder, index, books = self._saver, self._finder, self._index, self._saver.books
        if state == "watching" and (self._trouble or saver.braked):
            state = "degraded"
        oldest = [at_s for at_s in (finder.settle.oldest_s(), self._gate.queued_since_s) if at_s]
        waiting = len(finder.settle) + len(finder.backlog) + finder.unseen
        return Status(
            state=state,
            server=self._settings.server,
            detail=detail or self._scanner.rules_problem or "",
            protected_files=index.files,
            protected_bytes=index.file_bytes,
            pending_files=len(saver) + len(books.retry) + waiting,
            pending_bytes=saver.owed_bytes + self._waiting_bytes(),
            held_back=self._held_back(),
            pending_since=min(oldest, default=None),
            restored_files=self.restored_files,
            skipped=dict(finder.skips.shown),
            skipped_count=finder.skips.count,
            failed={**books.failed, **finder.unreadable},
            last_saved_at=None if books.saved_at_ns is None else iso(books.saved_at_ns),
            persist_state=self._persist_state(),
            persist_since=self._trouble.since_s,
            free_bytes=self._gate.free_bytes,
            watches=finder.watch.watches if finder.watch else 0,
            overflows=finder.watch.overflows if finder.watch else 0,
            limit_reached=finder.watch.limit_reached if finder.watch else False,
            scan_interval_s=round(finder.scan_interval_s, 3),
            left_behind=self._ending.left_behind,
            brake=self._brake_document(),
        )

    def _persist_state(self) -> str:
        failed = self._saver.books.failed.values()
        if not self._trouble and any(why.startswith("does not fit") for why in failed):
            return "full"
        return self._trouble.state

    def _brake_document(self) -> dict[str, Any] | None:
        if not self._saver.braked:
            return None
        return {
            "paths": len(self._saver.braked),
            "reason": "over half of the files vanished at once; they stay in the backup until you accept the deletions",
        }

    def _held_back(self) -> dict[bytes, str]:
        now_s = self._clock.monotonic()
        return {
            path: f"large, and changes all the time: copied again in {max(0.0, at_s - now_s):.0f} s"
            for path, at_s in self._saver.pace.waiting().items()
        }

    def _waiting_bytes(self) -> int:
        total = 0
        finder = self._finder
        for path in [*islice(finder.settle.paths(), _LOOKED_AT), *islice(finder.backlog, _LOOKED_AT)]:
            try:
                total += self._scanner.status(path).st_size
            except OSError:
                continue
        self._home.forget()
        return total
