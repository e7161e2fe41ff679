"""The Shared mounts, for the status: whether each is there, answers, and has room. Only probes ever touch them."""

from __future__ import annotations

import os
from typing import Any

from sidecar.backup.mounts import is_mount_point
from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.line import Line, encoded
from sidecar.probe import HUNG
from sidecar.trouble import state_of_errno

_EVERY_S = 60.0
_NAME = "share"


class Shares:
    """For the watchman's thread; ``documents`` is for any."""

    def __init__(self, clock: Clock, settings: Settings, line: Line) -> None:
        self._clock, self._line, self._must_be_mounted = clock, line, settings.require_mount
        self._shares = [
            (share.name, share.access, os.path.join(settings.shared_root, share.name)) for share in settings.shared
        ]
        self._states: list[tuple[str, int | None]] = [("unknown", None)] * len(self._shares)
        self._due_s = clock.monotonic()

    def ask(self) -> None:
        """Once a minute each is asked."""
        if self._clock.monotonic() < self._due_s:
            return
        self._due_s = self._clock.monotonic() + _EVERY_S
        for number, (_, _, path) in enumerate(self._shares):
            if self._must_be_mounted and not is_mount_point(path):
                self._states[number] = ("missing", None)
            else:
                self._line.send("probe", f"{_NAME}{number}", encoded(path))

    def hear(self, name: str, number: int, free_bytes: int) -> None:
        """What the probe called ``name`` was told: an errno, 0 where all is well, or ``HUNG``."""
        if name.startswith(_NAME):
            state = "ok" if number == 0 else "hung" if number == HUNG else state_of_errno(number)
            self._states[int(name.removeprefix(_NAME))] = (state, free_bytes if number == 0 else None)

    def documents(self) -> list[dict[str, Any]]:
        """For the status."""
        return [
            {"name": name, "access": access, "state": state, "free_bytes": free_bytes}
            for (name, access, _), (state, free_bytes) in zip(self._shares, self._states, strict=True)
        ]
