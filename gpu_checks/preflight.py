"""``gpu-preflight``: the driver-level check before a notebook starts, as the init container of a pod runs it.

It leaves its report as the container's termination message, on standard output, and in the run directory, and always
exits 0: a pod whose restart policy is OnFailure would retry anything else until the start times out. Whether a bad
verdict stops the start is for whoever reads it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Mapping
from types import FrameType
from typing import NoReturn

from . import quick, report
from .cli import REPORT_VARIABLE, process_start
from .expect import expectation
from .result import Verdict, plain
from .streams import complete
from .verdict import OPENINGS

TERMINATION_VARIABLE = "GPU_CHECK_TERMINATION_LOG"
TERMINATION_LOG = "/dev/termination-log"  # Kubernetes' default terminationMessagePath
MESSAGE_LIMIT_BYTES = 4000  # the kubelet cuts a message after 4096


class Stopped(Exception):
    """The pod is being deleted."""


def main() -> NoReturn:
    """The report is left behind, and the process exits 0."""
    complete()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, _stop)
    try:
        full, message = checked(os.environ)
    except BaseException as error:  # noqa: BLE001  outermost: whatever happened, nothing was checked
        full = message = unknown(f"{type(error).__name__}: {error}")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        leave(full, message, os.environ)
    finally:
        os._exit(0)


def checked(environ: Mapping[str, str]) -> tuple[str, str]:
    """The report in full, and as a message. Raises ExpectationUnreadable."""
    done = quick.run(expectation(None, environ), environ, started=process_start())
    return report.bounded_json(done), report.bounded_json(done, MESSAGE_LIMIT_BYTES)


def unknown(why: str) -> str:
    """The message of a check that was not carried out."""
    summary = f"{OPENINGS[Verdict.UNKNOWN]} – {plain(why)}"
    return json.dumps(
        {
            "schema": report.SCHEMA,
            "verdict": Verdict.UNKNOWN.value,
            "summary": summary,
            "level": quick.LEVEL,
            "checks": [],
        }
    )


def leave(full: str, message: str, environ: Mapping[str, str]) -> None:
    """Each of the three places has the report, or standard error why not; one does not keep the others from it."""
    place = environ.get(REPORT_VARIABLE)
    if place:
        try:
            report.write(place, full)
        except (OSError, ValueError) as error:
            _complain(REPORT_VARIABLE, error)
    try:
        _write_message(environ.get(TERMINATION_VARIABLE) or TERMINATION_LOG, message)
    except (OSError, ValueError) as error:
        if environ.get(TERMINATION_VARIABLE):
            _complain(TERMINATION_VARIABLE, error)
    with contextlib.suppress(OSError):
        os.write(1, message.encode() + b"\n")


def _write_message(path: str, message: str) -> None:
    """The file, which the kubelet has made and mounted, is written in place: it cannot be replaced, and is not made."""
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "wb") as file:
        file.write(message.encode())


def _complain(variable: str, error: Exception) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"gpu-preflight: cannot write {variable}: {error}\n".encode("utf-8", "backslashreplace"))


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Stopped("it was stopped before its end")


if __name__ == "__main__":
    main()
