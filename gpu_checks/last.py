"""The last report, read from its file. The file lies where its user can write, so nothing in it is trusted."""

from __future__ import annotations

import json
import os
import stat

from .facts import Malformed, decode
from .report import FILE_LIMIT_BYTES, SCHEMA
from .result import Report, Verdict, plain


class NoReport(Exception):
    """There is no report, or it is none of ours; the text says which."""


def last_report(path: str) -> Report:
    """The report in this file. Raises NoReport."""
    try:
        data = json.loads(_content(path))
    except OSError as error:
        raise NoReport(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise NoReport(f"{path}: not a report of gpu-check") from error
    if not isinstance(data, dict) or data.pop("schema", None) != SCHEMA:
        raise NoReport(f"{path}: not a report of gpu-check, or of another version")
    data.pop("truncated", None)
    try:
        return decode(Report, data)
    except (Malformed, RecursionError) as error:
        raise NoReport(f"{path}: not a report of gpu-check, or of another version") from error


def _content(path: str) -> bytes:
    """A small regular file, without following a link or waiting for a pipe. Raises OSError, ValueError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("not a regular file")
        content = file.read(FILE_LIMIT_BYTES + 1)
    if len(content) > FILE_LIMIT_BYTES:
        raise ValueError("too large")
    return content


def holds(report: Report, expected: int | None) -> Verdict:
    """The report's verdict for somebody who expects so many GPUs: one for another number has not checked that."""
    if expected is not None and report.expected != expected and report.verdict is not Verdict.FAIL:
        return Verdict.UNKNOWN
    return report.verdict


def cleaned(text: str) -> str:
    """Text from the file for a terminal: several lines, each without control characters."""
    return "\n".join(plain(line, 1000) for line in text.split("\n"))
