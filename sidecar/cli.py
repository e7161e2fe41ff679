"""The command line of the sidecar."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Concatenate, ParamSpec

import click

from sidecar import errors
from sidecar.archive import Archive, Past, home_path
from sidecar.backup.persist import persist_errors
from sidecar.clock import Clock, iso, parse_time
from sidecar.config import Settings, from_environ
from sidecar.entry import legible, visible
from sidecar.errors import SidecarError, UsageError, WriterActive
from sidecar.fsops import FileSystem, Tree
from sidecar.line import Supervised
from sidecar.restore import Kept, Restored, Restorer, Result, Wanted, in_order
from sidecar.server import ask, ask_patiently
from sidecar.status import path_fields, silent, size_text, stopped, summary

_STATUS_S, _LEAST_WAIT_S = 1.6, 0.4
"""The promise is 2 s from the start of the process; the interpreter takes its part of it, more on a busy machine."""
_BACKUP_WAIT_S = 5.0

_EXIT_CODES = """\b
Exit codes:
  0  everything is safe
  1  a defect of the sidecar
  2  usage or configuration
  3  some files could not be saved, or restored
  4  Persist cannot be used
  5  the deadline passed with files unsaved
"""

_READY_EXIT_CODES = """\b
Exit codes:
  0  the notebook can start
  1  not yet
  2  usage or configuration
"""

P = ParamSpec("P")


def _with_settings(command: Callable[Concatenate[Settings, P], int]) -> Callable[..., None]:
    """``command`` gets the settings that options and environment describe; its result is the exit code."""

    @click.option("--home", metavar="DIR", help="The fast home. [SIDECAR_HOME]")
    @click.option("--persist", metavar="DIR", help="The user's directory on Persist. [SIDECAR_PERSIST]")
    @click.option("--server", metavar="NAME", help="The server's name; the unnamed one is 'default'. [SIDECAR_SERVER]")
    @click.option("--grace", metavar="SECONDS", type=float, help="From SIGTERM to the end. [SIDECAR_GRACE]")
    @click.option("--no-require-mount", is_flag=True, help="Allow a Persist that is no mount of its own.")
    @wraps(command)
    def wrapped(
        home: str | None,
        persist: str | None,
        server: str | None,
        grace: float | None,
        no_require_mount: bool,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        try:
            settings = from_environ(
                os.environ,
                home=None if home is None else os.path.abspath(home),
                persist=None if persist is None else os.path.abspath(persist),
                server=server,
                grace_s=grace,
                require_mount=False if no_require_mount else None,
            )
            code = command(settings, *args, **kwargs)
        except SidecarError as error:
            click.echo(f"sidecar: {error}", err=True)
            code = error.exit_code
        sys.exit(code)

    return wrapped


@click.group(epilog=_EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="jupyterhub-sidecar")
def cli() -> None:
    """Keep what matters of a notebook's fast home on Persist, and bring it back."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s sidecar %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
    )


@cli.command(epilog=_READY_EXIT_CODES)
@click.option(
    "--wait", metavar="SECONDS", type=float, default=10.0, show_default=True, help="For the answer to change."
)
@click.option(
    "--within",
    metavar="SECONDS",
    type=float,
    default=120.0,
    show_default=True,
    help="From the container's start: then it is ready in any case.",
)
@_with_settings
def ready(settings: Settings, wait: float, within: float) -> int:
    """Say whether the notebook can start: its work is back, or has taken long enough. For the start-up probe of a pod.

    What is still going on is printed in one line.
    """
    from sidecar.readiness import container_age_s, wait_until_ready

    def status() -> Mapping[str, Any] | None:
        try:
            return ask(settings.socket_path, {"op": "status"}, _LEAST_WAIT_S)
        except TimeoutError:
            return None

    not_yet = wait_until_ready(status, wait_s=wait, within_s=within, age_s=container_age_s)
    if not_yet:
        click.echo(visible(not_yet))
    return errors.EXIT_DEFECT if not_yet else errors.EXIT_SAFE


def _patience_s() -> float:
    """For so long an answer can be waited for."""
    with open("/proc/self/stat", "rb") as stat:
        started_ticks = int(stat.read().rpartition(b") ")[2].split()[19])  # proc(5): since the machine's start
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")
    return max(_LEAST_WAIT_S, _STATUS_S - age_s)


@cli.command(epilog=_EXIT_CODES)
@_with_settings
def run(settings: Settings) -> int:
    """Restore the home, watch it and save it until SIGTERM; then save what changed last.

    A second SIGTERM cuts that short. SIGUSR1 is the notice that the end may be near.
    """
    from sidecar.lifecycle import run as live

    supervised = click.get_current_context().find_object(Supervised)
    assert supervised is not None  # ``main`` starts this command below a supervisor
    return live(settings, supervised, FileSystem(), Clock())


@cli.command(epilog=_EXIT_CODES)
@click.option("--accept-deletions", is_flag=True, help="Let the mass deletion that the brake holds back go through.")
@_with_settings
def backup(settings: Settings, accept_deletions: bool) -> int:
    """Save everything once. Beside a running sidecar, ask it to."""
    from sidecar.backup.persist import check_mounted
    from sidecar.once import back_up_once

    check_mounted(settings)
    try:
        running = ask_patiently(settings.socket_path, {"op": "status"}, _BACKUP_WAIT_S) is not None
    except TimeoutError as error:
        raise WriterActive("the running sidecar does not answer") from error
    if not running:
        return back_up_once(settings, FileSystem(), Clock(), accept_deletions=accept_deletions)
    # One that is started again meanwhile is asked again.
    reply = ask_patiently(settings.socket_path, {"op": "flush", "accept_deletions": accept_deletions}, 24 * 3600.0)
    if reply is None:
        raise SidecarError("the running sidecar ended before it answered")
    if reply.get("persist") not in ("ok", "full"):
        click.echo(f"sidecar: Persist is {reply.get('persist')}", err=True)
        return errors.EXIT_PERSIST
    if not reply.get("complete") and not reply.get("unsaved"):
        click.echo("sidecar: it ended before everything was looked at", err=True)
        return errors.EXIT_UNSAVED
    if reply.get("unsaved") or reply.get("brake"):
        click.echo(f"sidecar: {reply.get('unsaved')} files could not be saved; sidecar status names them", err=True)
        return errors.EXIT_UNSAVED
    return errors.EXIT_SAFE


@cli.command(epilog=_EXIT_CODES)
@click.option("--json", "as_json", is_flag=True, help="The whole status as JSON.")
@_with_settings
def status(settings: Settings, as_json: bool) -> int:
    """Say how safe the work is, within 2 s and without touching Persist."""
    try:
        document = ask_patiently(settings.socket_path, {"op": "status"}, _patience_s()) or stopped(settings.server)
    except TimeoutError:
        document = silent(settings.server)
    click.echo(json.dumps(document, indent=2) if as_json else summary(document))
    return errors.EXIT_SAFE


@cli.command(epilog=_EXIT_CODES)
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@_with_settings
def versions(settings: Settings, path: str, as_json: bool) -> int:
    """Show what PATH was, and when: each time can be given to restore --at."""
    where = home_path(settings, path)
    with persist_errors(settings):
        archive = Archive(FileSystem(), Clock(), settings)
        try:
            past = archive.history(where)
        finally:
            archive.close()
    if as_json:
        click.echo(json.dumps({"schema": 1, "versions": [_version_document(where, each) for each in past]}, indent=2))
    else:
        for each in past:
            until = "now" if each.until_ns is None else iso(each.until_ns)
            click.echo(f"{iso(each.from_ns)}  until {until:27}  {size_text(each.size):>12}")
    return errors.EXIT_SAFE


def _version_document(path: bytes, past: Past) -> dict[str, Any]:
    return {
        **path_fields(path),
        "from": iso(past.from_ns),
        "until": None if past.until_ns is None else iso(past.until_ns),
        "size": past.size,
        "kind": past.kind.name.lower(),
        "current": past.until_ns is None,
    }


@cli.command(epilog=_EXIT_CODES)
@click.argument("paths", metavar="[PATH]...", nargs=-1)
@click.option("--at", "at_text", metavar="TIME", help="As it was then: ISO 8601, UTC without an offset.")
@click.option("--to", "target", metavar="DIR", help="Put it there instead, with the same relative paths.")
@click.option("--dry-run", is_flag=True, help="Only say what would come back.")
@_with_settings
def restore(settings: Settings, paths: tuple[str, ...], at_text: str | None, target: str | None, dry_run: bool) -> int:
    """Bring back PATH, or everything that is missing. Nothing that is there is ever overwritten."""
    at_ns = None if at_text is None else parse_time(at_text)
    where = [home_path(settings, path) for path in paths] or [b""]
    fs = FileSystem()
    with persist_errors(settings):
        archive = Archive(fs, Clock(), settings)
    try:
        with persist_errors(settings):
            wanted = in_order({item.path: item for path in where for item in archive.wanted(path, at_ns)}.values())
        if dry_run:
            for item in wanted:
                click.echo(f"would restore {legible(item.path)}")
            return errors.EXIT_SAFE
        return _put_back(fs, archive, wanted, target or settings.home, asked=bool(paths))
    finally:
        archive.close()


def _put_back(fs: FileSystem, archive: Archive, wanted: list[Wanted], target: str, *, asked: bool) -> int:
    try:
        os.makedirs(target, exist_ok=True)
        tree = Tree.at(fs, target)
    except OSError as error:
        raise UsageError(f"cannot restore to {target}: {error.strerror}") from error
    with tree:
        restorer = Restorer(fs, archive.layout.root, tree, lambda: False)
        results: list[Result] = []
        with click.progressbar(
            wanted, label="restoring", file=sys.stderr, hidden=not sys.stderr.isatty()
        ) as shown_progress:
            for count, item in enumerate(shown_progress):
                results.append(restorer.restore(item))
                if count % 256 == 255:
                    restorer.end_batch()
    return _report(results, asked=asked)


def _report(results: list[Result], *, asked: bool) -> int:
    restored = sum(isinstance(result, Restored) for result in results)
    kept = [result for result in results if isinstance(result, Kept)]
    failed = [result for result in results if not isinstance(result, Restored | Kept)]
    for result in failed:
        click.echo(f"not restored: {legible(result.path)}: {getattr(result, 'reason', 'not in the backup')}", err=True)
    click.echo(f"{restored} restored, {len(kept)} were there and were left alone, {len(failed)} could not be restored")
    if asked and kept:
        click.echo(f"left alone: {legible(kept[0].path)} exists; --to DIR puts the copy elsewhere", err=True)
    return errors.EXIT_UNSAVED if failed or (asked and kept and not restored) else errors.EXIT_SAFE
