"""The running sidecar answers on a Unix socket: one line of JSON asked, one answered.

``{"op": "status"}`` gives the status, ``{"op": "flush"}`` returns when everything changed before it is safe; whoever
has waited long enough closes the connection, which ends the flush. One sidecar holds the lock beside the socket: a
second one for the same home, Persist and server does not start.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
import socketserver
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sidecar.errors import UsageError, WriterActive

_LINE_MAX_BYTES = 64 << 20
"""A status names 3,000 paths at most; one can have 4 kB, and take five times as much in JSON."""
_REQUEST_MAX_BYTES = 65536

Answer = Callable[[Mapping[str, Any], Callable[[], bool]], Mapping[str, Any]]
"""The reply to a request. The second argument tells, on any thread, whether whoever asked is gone meanwhile."""


@contextlib.contextmanager
def only_writer(socket_path: str, patience_s: float = 0.0, *, insist: bool = False) -> Iterator[Callable[[], None]]:
    """Inside, this process is the only sidecar with this socket on the machine, until it calls what this gives.

    Raises ``WriterActive``; but not where it may ``insist``, because whoever holds the lock was killed and only hangs.

    One that has been killed, and is not gone yet, is waited for at most ``patience_s``.
    """
    _prepare_directory(os.path.dirname(socket_path))
    fd = os.open(socket_path + ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        give_up_s = time.monotonic() + patience_s
        while not _locked(fd):
            if time.monotonic() >= give_up_s:
                if insist:
                    break
                raise WriterActive("another sidecar already saves this home", hint="sidecar status shows it")
            time.sleep(0.02)
        yield lambda: fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _prepare_directory(path: str) -> None:
    os.makedirs(path, mode=0o700, exist_ok=True)
    found = os.stat(path, follow_symlinks=False)
    # In a shared /tmp somebody else could have made it first, and would then own the socket.
    if not stat.S_ISDIR(found.st_mode) or (
        found.st_uid not in (os.getuid(), 0) and not os.environ.get("SIDECAR_SOCKET")
    ):
        raise UsageError(f"{path} belongs to somebody else", hint="SIDECAR_SOCKET names another place")


class _Handler(socketserver.StreamRequestHandler):
    timeout = 10.0

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        try:
            line = self.rfile.readline(_REQUEST_MAX_BYTES)
        except OSError:
            return  # whoever connected says nothing, or is gone
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise TypeError("a request is an object")
            reply = json.dumps(server.answer(request, self._asker_is_gone))
        except (ValueError, TypeError, RecursionError) as error:  # the last for [[[[…
            reply = json.dumps({"error": str(error)})
        with contextlib.suppress(OSError):  # whoever asked is gone
            self.wfile.write(reply.encode() + b"\n")

    def _asker_is_gone(self) -> bool:
        hung_up = select.poll()
        hung_up.register(self.connection, 0)  # only what is always told: that the other side has closed
        return bool(hung_up.poll(0))


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str, answer: Answer) -> None:
        self.answer = answer
        super().__init__(path, _Handler)


@contextlib.contextmanager
def answering(socket_path: str, answer: Answer) -> Iterator[None]:
    """Inside, requests are answered on threads of their own. Raises ``UsageError`` for a path too long for a socket."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(socket_path)  # of a sidecar that was killed: the lock says it is gone
    try:
        server = _Server(socket_path, answer)
    except OSError as error:
        raise UsageError(f"no socket at {socket_path}: {error}", hint="SIDECAR_SOCKET names another place") from error
    os.chmod(socket_path, 0o600)
    ours = os.lstat(socket_path).st_ino
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 3600}, daemon=True, name="answers")
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if os.lstat(socket_path).st_ino == ours:  # and not that of a sidecar that came after us
                os.unlink(socket_path)


def alive_path(socket_path: str) -> str:
    """The file that the supervisor keeps locked as long as it lives, whether there is an engine that answers or not."""
    return socket_path + ".alive"


def ask_patiently(socket_path: str, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any] | None:
    """As ``ask``; an engine that is just being started again is waited for."""
    until_s = time.monotonic() + timeout_s
    while (reply := ask(socket_path, request, max(0.1, until_s - time.monotonic()))) is None:
        if not _is_alive(socket_path):
            return None
        if time.monotonic() >= until_s:
            raise TimeoutError("it is being started")
        time.sleep(0.05)
    return reply


def _is_alive(socket_path: str) -> bool:
    try:
        fd = os.open(alive_path(socket_path), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _locked(fd)
    finally:
        os.close(fd)


def ask(socket_path: str, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any] | None:
    """The running sidecar's answer; None where none runs. Raises ``TimeoutError`` where one is silent."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(socket_path)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as lines:
                reply = json.loads(lines.readline(_LINE_MAX_BYTES))
    except TimeoutError:
        raise
    except (OSError, ValueError):
        return None
    return reply if isinstance(reply, dict) else None
