"""The last words of a sidecar: on the last line of its log, and in the container's termination message, for the hub.

A termination message is read by the kubelet from a file when the container has ended, and shown in the pod's status, of
which it may take up 4096 bytes.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from sidecar import errors
from sidecar.config import Settings
from sidecar.desk import Desk
from sidecar.status import SCHEMA, Status

log = logging.getLogger(__name__)

_MAX_BYTES = 4000
_NAMED = 20


class Farewell:
    """Says how the end went, once for each way to end."""

    def __init__(self, settings: Settings, desk: Desk) -> None:
        self._settings, self._desk = settings, desk

    def say(self, code: int) -> None:
        """All is done that can be done; the process ends with ``code``."""
        status = self._desk.current()
        self._leave_message(code, status)
        if code == errors.EXIT_SAFE:
            log.info("the end, exit code 0: all safe")
        else:
            log.error("the end, exit code %d: NOT SAVED: %s", code, _unsaved(status))

    def say_late(self, code: int) -> None:
        """The time is up, and the process ends with ``code`` whatever it is doing."""
        status = self._desk.current()
        self._leave_message(code, status)
        log.critical("the time is up, exit code %d: NOT SAVED: %s; %s", code, _unsaved(status), status.detail)

    def _leave_message(self, code: int, status: Status) -> None:
        if not self._settings.termination_log:
            return
        try:
            with open(self._settings.termination_log, "wb") as file:
                file.write(termination_message(code, status))
        except OSError as error:
            log.warning("no termination message: %s", error)


def termination_message(code: int, status: Status) -> bytes:
    """What the hub is told, as JSON of less than 4 KiB."""
    left = status.left_behind or {}
    files = [item["path"] for item in left.get("files", [])[:_NAMED]] if code != errors.EXIT_SAFE else []
    while True:
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "exit_code": code,
            "protected": {"files": status.protected_files, "bytes": status.protected_bytes},
            "restored": {"files": status.restored_files},
            "left_behind": {"count": 0 if code == errors.EXIT_SAFE else _count(status), "files": files},
            "persist": status.persist_state,
        }
        message = json.dumps(document).encode()
        if len(message) <= _MAX_BYTES:
            return message
        files = files[:-1]


def _count(status: Status) -> int:
    if status.left_behind:
        return int(status.left_behind.get("count", 0))
    return status.pending_files + len(status.failed)


def _unsaved(status: Status) -> str:
    return f"{_count(status)} files; Persist is {status.persist_state}"
