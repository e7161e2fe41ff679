"""`jupyterhub-sidecar up`: everything is checked first, then the hub takes this process's place."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable

import yaml

from hub.launch import LOGIN, Launch, hub_directory, hub_mark, tools_directory
from hub.no_cluster import NO_CLUSTER
from hub.oidc import Oidc, SettingsError, kept_crypt_key
from hub.policy_file import PolicyError, load_policy
from hub.processes import MARK, end_all, marked

LOCAL_WARNING = (
    "This hub runs on one machine for trying out: all users share one account of the operating system, so they are not "
    "isolated from each other; limits are not enforced; and the backup is not read-only in the notebook."
)

_CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NOTEBOOK_ENVIRONMENT = os.path.join(_CHECKOUT, ".venv-notebook")
_GPU_CHECK = os.path.join(_CHECKOUT, "build", "gpu-check.pyz")
_LONGEST_DATA = 1024
_RELEASE_S = 5.0
"""A killed process has lost its memory, and so its mark, a moment before the kernel closes its sockets."""


class CannotStart(Exception):
    """The hub is not started. ``problems`` has one line for each reason."""

    def __init__(self, problems: list[str], *, exit_code: int = 1) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.exit_code = exit_code


def run_hub(*, port: int, data: str, policy_file: str, notebook_environment: str, say: Callable[[str], None]) -> None:
    """Does not return: this process becomes the hub. Raises ``CannotStart`` before anything is started."""
    data = os.path.abspath(data)
    launch_problems, exit_code = _problems(data, policy_file, notebook_environment)
    try:
        oidc = _oidc(port)
    except SettingsError as error:
        launch_problems += error.problems
        exit_code = 2
    if launch_problems:
        raise CannotStart(launch_problems, exit_code=exit_code)
    _lock(data)
    killed_before = _end_remains(data)
    obstacle = _occupied(port, patience_s=_RELEASE_S if killed_before else 0.0)
    if obstacle:
        raise CannotStart([f"port {port} on 127.0.0.1: {obstacle}; choose another with --port (or PORT=…)"])
    hub_port, proxy_port = _inner_ports(data, port)
    if oidc is not None and not oidc.crypt_keys:
        try:
            key = kept_crypt_key(os.path.join(hub_directory(data), "crypt_key"))
        except SettingsError as error:
            raise CannotStart(error.problems) from error
        oidc = dataclasses.replace(oidc, crypt_keys=(key,))
    launch = Launch(
        data=data,
        policy_file=os.path.abspath(policy_file),
        notebook_environment=os.path.abspath(notebook_environment),
        password=os.environ.get("HUB_PASSWORD") or secrets.token_hex(6),
        port=port,
        hub_port=hub_port,
        proxy_port=proxy_port,
        oidc=oidc,
    )
    _write_files(data)
    for line in _welcome(launch):
        say(line)
    _become_hub(launch)


def _problems(data: str, policy_file: str, notebook_environment: str) -> tuple[list[str], int]:
    """Every reason not to start that can be seen without starting, and the exit code it leads to."""
    found: list[str] = []
    exit_code = 1
    try:
        load_policy(os.path.abspath(policy_file))
    except PolicyError as error:
        found += [f"{policy_file}: {problem}" for problem in error.problems]
        exit_code = error.exit_code
    singleuser = os.path.join(notebook_environment, "bin", "jupyterhub-singleuser")
    if not os.access(singleuser, os.X_OK):
        found.append(f"no notebook environment: {singleuser} is missing; `make install` makes it")
    if ":" in data or not data.isprintable():
        found.append("DATA cannot be a path with a colon or a control character: it becomes part of PATH")
    elif len(os.fsencode(data)) > _LONGEST_DATA:
        found.append(f"DATA is too long a path: more than {_LONGEST_DATA} bytes")
    else:
        found += _writable(data)
    return found, exit_code


def _oidc(port: int) -> Oidc | None:
    """How to log in with an identity provider, if the environment says so. Raises ``SettingsError``."""
    login = os.environ.get(LOGIN) or "demo"
    if login not in ("demo", "oidc"):
        raise SettingsError([f"{LOGIN} must be demo or oidc"])
    callback_url = f"http://127.0.0.1:{port}/hub/oauth_callback"
    return Oidc.from_environ(os.environ, callback_url=callback_url) if login == "oidc" else None


def _writable(data: str) -> list[str]:
    probe = os.path.join(hub_directory(data), f".probe-{os.getpid()}")
    try:
        os.makedirs(data, mode=0o700, exist_ok=True)
        os.makedirs(hub_directory(data), mode=0o700, exist_ok=True)
        with open(probe, "xb") as file:
            file.write(b"writable")
        os.unlink(probe)
    except OSError as error:
        return [f"DATA {data} cannot be written: {error.strerror}"]
    return []


def _lock(data: str) -> None:
    """Nobody else runs a hub on ``data``, as long as this process lives: the lock is inherited by the hub."""
    descriptor = os.open(os.path.join(hub_directory(data), "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise CannotStart([f"another hub already runs on DATA {data}"]) from error
    os.set_inheritable(descriptor, True)


def _end_remains(data: str) -> bool:
    """Ends the proxy and the culler of a hub that was killed; whether one was. Servers are left to the new hub, which
    adopts them."""
    asyncio.run(end_all(marked(hub_mark(data)), patience_s=3.0))
    # JupyterHub would send signals to whatever process has this number by now.
    try:
        os.unlink(os.path.join(hub_directory(data), "proxy.pid"))
    except FileNotFoundError:
        return False
    return True


def _occupied(port: int, *, patience_s: float = 0.0) -> str:
    """Why nobody can listen on ``port``, even after ``patience_s``; empty if it is free."""
    deadline = time.monotonic() + patience_s
    while True:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError as error:
                obstacle = os.strerror(error.errno or 0)
            else:
                return ""
        if time.monotonic() >= deadline:
            return obstacle
        time.sleep(0.05)


def _inner_ports(data: str, port: int) -> tuple[int, int]:
    """The ports between hub, proxy and notebooks: those of the last time, if they are free.

    Notebooks that survived a killed hub look for the new one where the old one was.
    """
    record = os.path.join(hub_directory(data), "ports.json")
    ports: list[int] = []
    with contextlib.suppress(OSError, ValueError), open(record, encoding="utf-8") as file:
        ports = [int(number) for number in json.load(file)]
    if len(ports) != 2 or port in ports or any(not 1024 <= number < 65536 or _occupied(number) for number in ports):
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            two.bind(("127.0.0.1", 0))
            ports = [int(one.getsockname()[1]), int(two.getsockname()[1])]
        with open(record, "w", encoding="utf-8") as file:
            json.dump(ports, file)
    return ports[0], ports[1]


def _write_files(data: str) -> None:
    with open(os.path.join(hub_directory(data), "kubeconfig"), "w", encoding="utf-8") as file:
        yaml.safe_dump(NO_CLUSTER, file)
    os.makedirs(tools_directory(data), mode=0o755, exist_ok=True)
    link = os.path.join(tools_directory(data), "gpu-check")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(link)
    if os.path.exists(_GPU_CHECK):
        os.symlink(_GPU_CHECK, link)


def _welcome(launch: Launch) -> list[str]:
    return [
        f"JupyterHub starts on http://127.0.0.1:{launch.port}/ (Ctrl-C stops it and all of its servers)",
        "",
        f"  users     {_users(launch)}",
        f"  data      {launch.data}; the hub's log is hub/hub.log in it",
        "  saved     what is in the home: all the time, and when a server ends; it comes back at the next start",
        "  not saved caches and what can be made again, sockets and devices, files over 1 GiB",
        "  beware    all users share your account: no isolation, no limits enforced, the backup is not read-only",
        "",
    ]


def _users(launch: Launch) -> str:
    if launch.oidc is None:
        return f"researcher (no group), hpc (cpsHPCAccess), admin (jupyter_admin); password: {launch.password}"
    provider = launch.oidc.issuer or launch.oidc.authorize_url
    return f"those of {provider}, which must know the callback address {launch.oidc.callback_url}"


def _become_hub(launch: Launch) -> None:
    # A script that started us with & has SIGINT ignored, and the hub and its culler would inherit that.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)
    config = os.path.join(os.path.dirname(os.path.abspath(__file__)), "jupyterhub_config.py")
    environ = {
        **os.environ,
        **launch.to_environ(),
        MARK: hub_mark(launch.data),
        "KUBECONFIG": os.path.join(hub_directory(launch.data), "kubeconfig"),
    }
    sys.stdout.flush()
    os.chdir(hub_directory(launch.data))
    os.execve(sys.executable, [sys.executable, "-P", "-m", "hub.serve", "-f", config], environ)  # noqa: S606
