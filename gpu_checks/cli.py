"""The command ``gpu-check``."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import sys
import time
from collections.abc import Callable

import click

from . import VERSION, last, quick, report
from .expect import LARGEST, ExpectationUnreadable, expectation
from .result import EXIT_OK, EXIT_UNKNOWN, EXIT_USAGE, Report, Verdict, exit_code, plain
from .streams import complete, say

REPORT_VARIABLE = "GPU_CHECK_REPORT"
LONGEST_START_S = 3.0  # a start that took longer leaves the probes too little time to be fair to the GPU
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell has it

SHORT = "short"

EXIT_CODES = """\b
Exit codes:
  0   pass, or a warning
  1   a warning, with --strict
  2   fail: a GPU that should be here cannot be used
  3   unknown: a required check could not be carried out, or there is no last report
  64  wrong usage
"""


@click.command(name="gpu-check", epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("level", type=click.Choice([quick.LEVEL, SHORT]), default=quick.LEVEL)
@click.option(
    "--expect",
    type=click.IntRange(0, LARGEST),
    help="How many GPUs there should be; otherwise GPU_CHECK_EXPECT says so.",
)
@click.option("--json", "json_output", is_flag=True, help="Print the report as JSON, and nothing else.")
@click.option("--junit", metavar="FILE", help="Write the report as JUnit XML, too.")
@click.option("--prometheus", "prom", metavar="FILE", help="Write the report for Prometheus' textfile collector, too.")
@click.option("--last", "show_last", is_flag=True, help="Check nothing: show the last report, in GPU_CHECK_REPORT.")
@click.option("--strict", is_flag=True, help="A warning is exit code 1.")
@click.option(
    "--background",
    is_flag=True,
    help="With short: return at once, check the frameworks at the lowest priority, and add them to the report in the "
    "file GPU_CHECK_REPORT.",
)
@click.version_option(VERSION, prog_name="gpu-check")
def command(
    *,
    level: str,
    expect: int | None,
    json_output: bool,
    junit: str | None,
    prom: str | None,
    show_last: bool,
    strict: bool,
    background: bool,
) -> int:
    """Say whether the GPUs here work, and if not, why and what to do.

    The level quick (the default) ends within 10 seconds: it counts the GPUs, tests 2 MiB of memory and a kernel's
    result on each of them, and reads what the driver knows about their health. It does not cover the rest of the
    memory: 256 MB and more are for the level medium, which this version does not have.

    The level short then runs PyTorch and TensorFlow, as far as the notebook's Python has them, on each GPU (on the CPU
    where no GPU is expected), and verifies their results. That can take minutes.
    """
    try:
        expected = expectation(expect, os.environ)
    except ExpectationUnreadable as error:
        raise click.UsageError(str(error)) from error
    place = os.environ.get(REPORT_VARIABLE, "")
    if background:
        if level != SHORT or not place or any((json_output, junit, prom, show_last, strict)):
            raise click.UsageError(f"--background goes with short alone, and needs {REPORT_VARIABLE}")
        return _in_background(expected, place)
    if show_last:
        if junit or prom:
            raise click.UsageError("--last shows the last report; --junit and --prometheus are for a new one")
        return _last(place, expected, json_output=json_output, strict=strict)
    done = _run(level, expected, _before(place))
    code = exit_code(done.verdict, strict=strict)
    _store(place, done)
    texts = {"--junit": (junit, lambda: report.as_junit(done, strict=strict))}
    texts["--prometheus"] = (prom, lambda: _metrics(done))
    written = [_written(option, path, text) for option, (path, text) in texts.items() if path is not None]
    if not all(written) and done.verdict in (Verdict.PASS, Verdict.WARN):
        code = EXIT_USAGE
    say(report.as_json(done) if json_output else report.as_table(done))
    return code


def _run(level: str, expected: int | None, before: Report | None) -> Report:
    """The report of this level. What quick does not need is not loaded for it: it is to be quick."""
    if level == quick.LEVEL:
        return quick.run(expected, os.environ, started=process_start(), before=before)
    from . import short

    return short.run(expected, os.environ, started=process_start(), before=before)


def _in_background(expected: int | None, place: str) -> int:
    """The frameworks are being checked; nothing is known yet, which a hook must not take for a failure."""
    from . import background, short

    background.detach(lambda: short.after_start(expected, os.environ, place))
    return EXIT_OK


def _metrics(done: Report) -> str:
    from .prometheus import as_prometheus  # only for those who ask: each import delays every start from a zip archive

    return as_prometheus(done)


def _last(place: str, expected: int | None, *, json_output: bool, strict: bool) -> int:
    """Shows the last report; without one nothing is known. One about another number of GPUs says so."""
    if not place:
        raise click.UsageError(f"--last needs {REPORT_VARIABLE}, the file of the last report")
    try:
        done = last.last_report(place)
    except last.NoReport as error:
        say(f"gpu-check: no last report: {plain(str(error))}", err=True)
        return EXIT_UNKNOWN
    verdict = last.holds(done, expected)
    if json_output:
        say(report.as_json(done))
    else:
        say(last.cleaned(f"{report.as_table(done)}\nThis was the report of {done.finished_at}."))
    if verdict is not done.verdict:
        say(f"gpu-check: it expected {done.expected} GPUs, not {expected}: check again", err=True)
    return exit_code(verdict, strict=strict)


def _before(place: str) -> Report | None:
    """The last report to compare with, if there is one that can be read."""
    try:
        return last.last_report(place) if place else None
    except last.NoReport:
        return None


def process_start() -> float:
    """When this process was started, by the monotonic clock: on a busy machine the interpreter alone takes a while.

    Its age is field 22 of ``/proc/self/stat``, in ticks since the machine's start (proc(5)); where that makes no sense,
    as in some sandboxes, it counts from now.
    """
    now = time.monotonic()
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return now
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return now - min(age_s, LONGEST_START_S) if 0 <= age_s < 60 else now


def _store(place: str, done: Report) -> None:
    """The report is in the hub's file, or a line says why not: it is best effort."""
    if place:
        try:
            report.write(place, report.bounded_json(done))
        except (OSError, ValueError) as error:
            say(f"gpu-check: cannot write {REPORT_VARIABLE}: {error}", err=True)


def _written(option: str, path: str, text: Callable[[], str]) -> bool:
    """Whether what was asked for on the command line was written.

    Only a regular file is replaced: as root, renaming a file onto /dev/stdout would take it from everybody.
    """
    directory, name = os.path.split(path)
    try:
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "not a regular file", path)
        report.write(os.path.join(os.path.realpath(directory), name), text(), mode=report.FOR_ALL_TO_READ)
    except (OSError, ValueError) as error:
        say(f"gpu-check: cannot write {option}: {error}", err=True)
        return False
    return True


def main() -> None:
    """The process ends with one of the exit codes of DESIGN, whatever happens."""
    complete()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored by a careless parent, it would hide how our children end
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a name's characters may not exist in the terminal's encoding
    try:
        code = command.main(standalone_mode=False, prog_name="gpu-check")
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            error.show()
        code = EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001  outermost: a defect of ours is "not checked", never a verdict
        say(f"gpu-check: not checked: {type(error).__name__}: {error}", err=True)
        code = EXIT_UNKNOWN
    sys.exit(code)
