"""``storage-prepare``: what a pod's first init container does, before any other container uses Persist.

The kubelet makes the directory of a subPath itself where there is none: owned by root, with the mode of the claim's
root, or not at all where the server squashes root. So the whole claim is mounted here and the user's directory is made
by the user. It also puts the tools where the notebook's single-file mounts look for them: a file that is not there when
the kubelet mounts it becomes a directory.

It exits 0 whatever happened, because a pod whose restart policy is OnFailure would try anything else until its start
times out. What happened is in the container's termination message, as JSON of less than 4 KiB.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

import click

from sidecar.backup.mounts import is_mount_point
from sidecar.backup.persist import MIRRORS, OURS, explain
from sidecar.config import is_component
from sidecar.entry import legible, visible
from sidecar.errors import PersistForeign
from sidecar.fsops import CREATE_FLAGS, DIRECTORY_FLAGS, FileSystem, Tree, read_file, sync_directory, write_all
from sidecar.trouble import state_of_errno

SCHEMA = 1
TERMINATION_LOG = "/dev/termination-log"
"""Kubernetes' default terminationMessagePath."""
_MAX_BYTES = 4000
_TEXT_CHARACTERS, _TOOLS = 600, 10
_TOOL_MAX_BYTES = 64 << 20
_NO_DIRECTORY = {errno.ENOTDIR, errno.ELOOP}
_DENIED = {errno.EACCES, errno.EPERM}


@dataclass(frozen=True)
class Prepared:
    """What became of the user's directory."""

    state: str
    """``ok``: all directories stand, whether they can be written to or not. Else why not, in the words of the status
    document; ``unknown`` where nobody looked."""

    detail: str = ""
    """For the administrator."""

    is_new: bool = False
    """Whether the user had no directory before."""


class _Stopped(Exception):
    """The pod is being deleted."""


def prepared(fs: FileSystem, claim: str, user: str, *, require_mount: bool = True) -> Prepared:
    """The directory ``user`` of the claim at ``claim`` is there, with the two in it that no notebook can write to.

    No link below ``claim`` is followed, nothing that stands there is changed, and nothing in it is read.
    """
    if not is_component(user):
        return Prepared("unknown", f"{legible(os.fsencode(user))!r} is not the name of one directory")
    if require_mount and not is_mount_point(claim):
        return Prepared("missing", f"no claim is mounted at {claim}")
    try:
        with Tree.at(fs, claim) as tree:
            return _prepared(fs, tree.directory(b""), os.fsencode(user))
    except PersistForeign as refusal:
        return Prepared("foreign", str(refusal))
    except OSError as error:
        detail = explain(claim, error)
        if error.errno in _DENIED:
            detail += (
                f": uid {os.geteuid()} with gid {os.getegid()} must be able to make a directory in the claim's root"
                " (owner root:100, mode 2775) and in the user's own"
            )
        return Prepared(state_of_errno(error.errno or 0), detail)


def _prepared(fs: FileSystem, claim_fd: int, user: bytes) -> Prepared:
    fd, is_new = _directory(fs, claim_fd, user, legible(user))
    try:
        if not is_new:
            _check_owner(fs, claim_fd, fd, legible(user))
        for name in (MIRRORS, OURS):
            fs.close(_directory(fs, fd, name, f"{legible(user)}/{os.fsdecode(name)}")[0])
        sync_directory(fs, fd)
        sync_directory(fs, claim_fd)
    finally:
        fs.close(fd)
    return Prepared("ok", is_new=is_new)


def _directory(fs: FileSystem, at: int, name: bytes, shown: str) -> tuple[int, bool]:
    """The open directory ``name`` in ``at``, and whether it was made now. Raises ``OSError`` and ``PersistForeign``."""
    is_new = False
    try:
        # Looked for first: a full or read-only server may refuse to make even what is there.
        return _opened(fs, at, name, shown), is_new
    except FileNotFoundError:
        # Another server of the same user may be starting at this moment.
        with suppress(FileExistsError):
            fs.mkdir(name, 0o700, at=at)
            is_new = True
    return _opened(fs, at, name, shown), is_new


def _opened(fs: FileSystem, at: int, name: bytes, shown: str) -> int:
    try:
        return fs.open(name, DIRECTORY_FLAGS, at=at)
    except OSError as error:
        if error.errno in _NO_DIRECTORY:
            raise PersistForeign(f"{shown} on the claim is not a directory, and is left as it is") from error
        raise


def _check_owner(fs: FileSystem, claim_fd: int, fd: int, shown: str) -> None:
    """Raises ``PersistForeign`` where somebody else made the user's directory: he could read what is put there.

    Root may have made it, for a kubelet before us. A server that squashes everybody has its own idea of who we are:
    then it is asked.
    """
    owner = fs.fstat(fd).st_uid
    if owner not in (os.geteuid(), 0) and owner != _own_uid(fs, claim_fd):
        raise PersistForeign(f"{shown} on the claim belongs to uid {owner}, and is left as it is")


def _own_uid(fs: FileSystem, claim_fd: int) -> int:
    """Who we are for the server: the owner of what we make."""
    name = b".jupyterhub-sidecar-" + os.urandom(8).hex().encode()
    fs.mkdir(name, 0o700, at=claim_fd)
    try:
        return fs.lstat(name, at=claim_fd).st_uid
    finally:
        fs.rmdir(name, at=claim_fd)


def put_tools(fs: FileSystem, source: str, target: str) -> tuple[list[str], str]:
    """Every file in ``source`` stands in ``target`` too, executable: the names, and why the rest does not."""
    names: list[str] = []
    try:
        with Tree.at(fs, source) as there, Tree.at(fs, target) as here:
            there_fd, here_fd = there.directory(b""), here.directory(b"")
            for name in sorted(fs.names(there_fd)):
                _put(fs, read_file(fs, there_fd, name, _TOOL_MAX_BYTES), here_fd, name)
                names.append(os.fsdecode(name))
    except OSError as error:
        return names, f"no tools, or not all, in {target}: {error.strerror}"
    return names, ""


def _put(fs: FileSystem, data: bytes, at: int, name: bytes) -> None:
    temporary = name + b".new"
    with suppress(FileNotFoundError):
        fs.unlink(temporary, at=at)
    fd = fs.open(temporary, CREATE_FLAGS, at=at)
    try:
        write_all(fs, fd, data)
        fs.fchmod(fd, 0o755)  # whatever the umask is
    finally:
        fs.close(fd)
    fs.rename(temporary, name, source_at=at, target_at=at)


def report(done: Prepared, user: str, tools: Sequence[str] = (), tools_detail: str = "") -> bytes:
    """What the hub is told, as JSON of less than 4 KiB."""
    texts = [done.detail, tools_detail, user, *tools[:_TOOLS]]
    length = _TEXT_CHARACTERS
    while True:
        detail, tools_detail, directory, *names = [visible(text)[:length] for text in texts]
        document = {
            "schema": SCHEMA,
            "persist": done.state,
            "detail": detail,
            "directory": directory,
            "new": done.is_new,
            "tools": names,
            "tools_detail": tools_detail,
        }
        message = json.dumps(document).encode()
        if len(message) <= _MAX_BYTES:
            return message
        length //= 2


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Exit codes:
  0  always; what happened is in the message
""",
)
@click.option(
    "--persist", metavar="DIR", envvar="PREPARE_PERSIST", required=True, help="The whole claim. [PREPARE_PERSIST]"
)
@click.option(
    "--user", metavar="NAME", envvar="PREPARE_USER", required=True, help="The user's directory. [PREPARE_USER]"
)
@click.option("--tools", metavar="DIR", envvar="PREPARE_TOOLS", help="Where the tools are to be. [PREPARE_TOOLS]")
@click.option(
    "--tools-from",
    metavar="DIR",
    envvar="PREPARE_TOOLS_FROM",
    default=os.path.join(sys.prefix, "tools"),
    help="Where the tools are. [PREPARE_TOOLS_FROM]",
)
@click.option("--no-require-mount", is_flag=True, help="Allow a claim that is no mount of its own.")
def storage_prepare(persist: str, user: str, tools: str | None, tools_from: str, no_require_mount: bool) -> bytes:
    """Make the user's directory on the claim mounted at DIR, and put the tools where the notebook finds them."""
    fs = FileSystem()
    names, tools_detail = put_tools(fs, tools_from, tools) if tools else ([], "")
    done = prepared(fs, os.path.abspath(persist), user, require_mount=not no_require_mount)
    return report(done, user, names, tools_detail)


def main() -> NoReturn:
    """The message is left, and the process exits 0."""
    signal.signal(signal.SIGTERM, _stop)  # process 1 has no handler of its own
    try:
        message = storage_prepare.main(standalone_mode=False)
    except click.ClickException as error:
        message = report(Prepared("unknown", error.format_message()), "")
    except BaseException as error:  # noqa: BLE001  outermost: whatever happened, nobody knows how Persist is
        message = report(Prepared("unknown", f"{type(error).__name__}: {error}"), "")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if isinstance(message, bytes):  # and not the exit code of --help
        _leave(message)
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(0)


def _leave(message: bytes) -> None:
    with suppress(OSError):  # nobody reads it
        print(message.decode(), flush=True)  # noqa: T201  the container's log
    path = os.environ.get("SIDECAR_TERMINATION_LOG") or TERMINATION_LOG
    try:
        # The kubelet has made the file and mounted it: it is written in place, and is not made.
        with open(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), "wb") as log:
            log.write(message)
    except OSError as error:
        with suppress(OSError):
            print(f"storage-prepare: no termination message: {error}", file=sys.stderr)  # noqa: T201


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  the handler's signature
    raise _Stopped("it was stopped before its end")


if __name__ == "__main__":
    main()
