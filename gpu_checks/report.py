"""A report as a table, as JSON, as JUnit XML, and as a file that is whole or not there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import stat
from typing import Any

from .result import Check, Report, Verdict

SCHEMA = 1
FILE_LIMIT_BYTES = 64 * 1024  # what the hub and the sidecar read of a report at most
SUMMARY_CHARACTERS = (400, 200, 100, 50)  # one that is not ASCII takes up to 12 bytes

FOR_GROUP_TO_READ = stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP
FOR_ALL_TO_READ = FOR_GROUP_TO_READ | stat.S_IROTH  # node exporter and CI run as somebody else

WORDS = {Verdict.PASS: "pass", Verdict.WARN: "WARN", Verdict.UNKNOWN: "UNKNOWN", Verdict.FAIL: "FAIL"}


def as_data(report: Report) -> dict[str, Any]:
    """The report as plain data, in the order in which it is read."""
    data = {"schema": SCHEMA, **dataclasses.asdict(report), "verdict": report.verdict.value}
    data["checks"] = [{**dataclasses.asdict(check), "verdict": check.verdict.value} for check in report.checks]
    return data


def as_json(report: Report) -> str:
    """One JSON document, ASCII only: a terminal or a log in any encoding takes it."""
    return json.dumps(as_data(report), indent=2)


def bounded_json(report: Report, limit_bytes: int = FILE_LIMIT_BYTES) -> str:
    """The document in at most so many bytes: compact, and as much of the detail as fits. ``truncated`` says so.

    What goes first is what passed, then the GPUs, then the remaining checks from the end, then everything but verdict
    and summary; the summary itself is shortened last.
    """
    data = as_data(report)
    failed = [check for check in data["checks"] if check["verdict"] != Verdict.PASS.value]
    smaller = [data, {**data, "checks": failed}, {**data, "checks": failed, "gpus": []}]
    smaller += [{**data, "checks": failed[:most], "gpus": []} for most in range(len(failed), -1, -1)]
    bare = {name: data[name] for name in ("schema", "verdict", "summary", "level", "expected", "found")}
    smaller += [{**bare, "checks": [], "summary": _shortened(report.summary, most)} for most in SUMMARY_CHARACTERS]
    for attempt in smaller:
        marked = attempt if attempt is data else {**attempt, "truncated": True}
        text = json.dumps(marked, separators=(",", ":"))
        if len(text) <= limit_bytes:
            break
    return text


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def as_table(report: Report) -> str:
    """What a person reads: the GPUs, what was looked at, the summary. What passed on one GPU is one line."""
    labels = {gpu.uuid: f"GPU {number}" for number, gpu in enumerate(report.gpus)}
    lines = [f"{labels[gpu.uuid]}: {gpu.name}  {gpu.uuid}" for gpu in report.gpus]
    lines += [""] if lines else []
    passed: dict[str, list[str]] = {}
    for check in report.checks:
        if check.verdict is Verdict.PASS and check.gpu:
            passed.setdefault(check.gpu, []).append(check.name)
    for check in report.checks:
        where = labels.get(check.gpu, check.gpu)
        if check.verdict is Verdict.PASS and check.gpu:
            names = passed.pop(check.gpu, [])
            lines += [_row(check.verdict, where, ", ".join(names))] if names else []
        else:
            about = " – ".join(text for text in (check.cause, check.detail) if text)
            lines.append(_row(check.verdict, f"{check.name}, {where}" if where else check.name, about))
    return "\n".join([*lines, *_frameworks(report), "", report.summary, *_for_administrator(report)])


def _frameworks(report: Report) -> list[str]:
    if report.frameworks is None:
        return []
    told = [
        " ".join(part for part in (each.name, each.version, f"({each.build})" if each.build else "") if part)
        + f": {each.state}"
        for each in report.frameworks.found
    ]
    return ["", f"Frameworks of {report.frameworks.python}", *(f"  {line}" for line in told)]


def _row(verdict: Verdict, what: str, about: str) -> str:
    return f"{WORDS[verdict]:<8} {what:<16} {about}".rstrip()


def _for_administrator(report: Report) -> list[str]:
    actions = {check.admin_action: None for check in report.checks if check.verdict is report.verdict}
    return [f"For the administrator: {action}" for action in actions if action][:3]


def as_junit(report: Report, *, strict: bool) -> str:
    """JUnit XML: one test case per check; ``unknown`` is an error, a warning is a failure under ``strict``."""
    from xml.etree import ElementTree  # only for those who ask: each import delays every start from a zip archive

    outcomes = [_junit_outcome(check, strict=strict) for check in report.checks]
    suite = ElementTree.Element(
        "testsuite",
        name=f"gpu-check {report.level}",
        tests=str(len(report.checks)),
        failures=str(outcomes.count("failure")),
        errors=str(outcomes.count("error")),
        skipped="0",
        time=f"{report.duration_s:.3f}",
        timestamp=report.finished_at.rstrip("Z"),
    )
    for check, outcome in zip(report.checks, outcomes):
        name = f"{check.name} [{check.gpu}]" if check.gpu else check.name
        case = ElementTree.SubElement(suite, "testcase", classname="gpu_check", name=name, time="0")
        text = "\n".join(line for line in (check.detail, check.user_action, check.admin_action) if line)
        if outcome:
            ElementTree.SubElement(case, outcome, message=check.cause, type=check.verdict.value).text = text
        elif text:
            ElementTree.SubElement(case, "system-out").text = f"{check.cause}\n{text}".strip()
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _junit_outcome(check: Check, *, strict: bool) -> str:
    if check.verdict is Verdict.FAIL or (strict and check.verdict is Verdict.WARN):
        return "failure"
    return "error" if check.verdict is Verdict.UNKNOWN else ""


def write(path: str, text: str, *, mode: int = FOR_GROUP_TO_READ) -> None:
    """The file holds the text, or what it held before; a link at its place is replaced, not followed.

    Raises OSError.
    """
    directory, name = os.path.split(os.path.abspath(path))
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    temporary = f".{name[:200]}.{os.urandom(6).hex()}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            _fill(os.open(temporary, flags, stat.S_IRUSR | stat.S_IWUSR, dir_fd=descriptor), text, mode)
            os.rename(temporary, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        except OSError:
            _remove(temporary, descriptor)
            raise
    finally:
        os.close(descriptor)


def _fill(descriptor: int, text: str, mode: int) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(text.encode())
        os.fchmod(descriptor, mode)  # whatever the umask is: the reader is another user
        file.flush()
        os.fsync(file.fileno())


def _remove(name: str, directory: int) -> None:
    # It was not made, or what made it fail keeps it: the error that is raised says why.
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=directory)
