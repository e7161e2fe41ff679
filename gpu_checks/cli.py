"""The command ``gpu-check``."""

from __future__ import annotations

import os
import signal
import sys
import time

import click

from . import VERSION, quick, report
from .expect import LARGEST, ExpectationUnreadable, expectation
from .result import EXIT_UNKNOWN, EXIT_USAGE, Report, Verdict, exit_code

REPORT_VARIABLE = "GPU_CHECK_REPORT"
LONGEST_START_S = 3.0  # a start that took longer leaves the probes too little time to be fair to the GPU
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell has it

LEVELS = {quick.LEVEL: quick.run}

EXIT_CODES = """\b
Exit codes:
  0   pass, or a warning
  1   a warning, with --strict
  2   fail: a GPU that should be here cannot be used
  3   unknown: a required check could not be carried out
  64  wrong usage
"""


@click.command(name="gpu-check", epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("level", type=click.Choice(list(LEVELS)), default=quick.LEVEL)
@click.option(
    "--expect",
    type=click.IntRange(0, LARGEST),
    help="How many GPUs there should be; otherwise GPU_CHECK_EXPECT says so.",
)
@click.option("--json", "json_output", is_flag=True, help="Print the report as JSON, and nothing else.")
@click.option("--junit", metavar="FILE", help="Write the report as JUnit XML, too.")
@click.option("--strict", is_flag=True, help="A warning is exit code 1.")
@click.version_option(VERSION, prog_name="gpu-check")
def command(*, level: str, expect: int | None, json_output: bool, junit: str | None, strict: bool) -> int:
    """Say whether the GPUs here work, and if not, why and what to do.

    The level quick (the default) takes seconds: it counts the GPUs, compares memory and a kernel's result on each of
    them, and reads what the driver knows about their health.
    """
    try:
        expected = expectation(expect, os.environ)
    except ExpectationUnreadable as error:
        raise click.UsageError(str(error)) from error
    done = LEVELS[level](expected, os.environ, started=process_start())
    code = exit_code(done.verdict, strict=strict)
    if not _stored(done, junit, strict=strict) and done.verdict in (Verdict.PASS, Verdict.WARN):
        code = EXIT_USAGE
    _print(report.as_json(done) if json_output else report.as_table(done))
    return code


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


def _stored(done: Report, junit: str | None, *, strict: bool) -> bool:
    """Whether what was asked for on the command line was written. The hub's report file is best effort."""
    place = os.environ.get(REPORT_VARIABLE)
    if place:
        try:
            report.write(place, report.bounded_json(done))
        except (OSError, ValueError) as error:
            click.echo(f"gpu-check: cannot write {REPORT_VARIABLE}: {error}", err=True)
    if junit is None:
        return True
    try:
        directory, name = os.path.split(junit)
        report.write(os.path.join(os.path.realpath(directory), name), report.as_junit(done, strict=strict))
    except (OSError, ValueError) as error:
        click.echo(f"gpu-check: cannot write --junit: {error}", err=True)
        return False
    return True


def _print(text: str) -> None:
    """The text is on standard output, or nobody wants it: the verdict's exit code holds in any case."""
    try:
        click.echo(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes once more at its end


def main() -> None:
    """The process ends with one of the exit codes of DESIGN, whatever happens."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored by a careless parent, it would hide how our children end
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a name's characters may not exist in the terminal's encoding
    try:
        code = command.main(standalone_mode=False, prog_name="gpu-check")
    except click.ClickException as error:
        error.show()
        code = EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001  outermost: a defect of ours is "not checked", never a verdict
        click.echo(f"gpu-check: not checked: {type(error).__name__}: {error}", err=True)
        code = EXIT_UNKNOWN
    sys.exit(code)
