"""The sidecar's settings, and their one way into and out of the environment.

The hub writes a sidecar's environment with ``to_environ`` and the sidecar reads it with ``from_environ``: both
directions stand side by side here, and ``from_environ(to_environ(s)) == s`` for every valid ``s``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from sidecar.errors import UsageError

PREFIX = "SIDECAR_"
DEFAULT_SERVER = "default"
"""The directory name of a user's unnamed server."""

POD_RUN_DIRECTORY = "/run/jupyterhub-sidecar"

SHORTEST_RETENTION_DAYS, LONGEST_RETENTION_DAYS = 1, 3650

_RESERVED = frozenset({"format.json"})

# With a Service called "sidecar" in the namespace the kubelet sets these in every container.
_SERVICE_LINK = re.compile(r"SIDECAR_(SERVICE_HOST|SERVICE_PORT.*|PORT(_.*)?)\Z")

_POD_UID = re.compile(r"[0-9A-Za-z.-]{0,64}")
_OWNER_CHARACTERS = 1024


@dataclass(frozen=True)
class Share:
    """One Shared mount. Raises ``ValueError``."""

    name: str
    access: str
    """For the user: ``rw`` or ``ro``."""

    def __post_init__(self) -> None:
        if not is_component(self.name) or set(self.name) & {":", "="}:
            raise ValueError(
                f"a share's name must be one path component without colon and equals sign, not {self.name!r}"
            )
        if self.access not in ("rw", "ro"):
            raise ValueError(f"a share is rw or ro, not {self.access!r}")

    def __str__(self) -> str:
        return f"{self.name}={self.access}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one sidecar needs to know. Every field has its variable in ``VARIABLES``.

    Durations are in seconds, sizes in bytes. Directories are absolute and used as they are, never resolved:
    resolving a path below a hung mount hangs.
    """

    home: str
    """The fast tier: the directory that is saved."""

    persist: str
    """The user's directory on Persist."""

    server: str = DEFAULT_SERVER
    """One path component; ``Backup/<server>`` is the mirror."""

    grace_s: float = 120.0
    """From SIGTERM to the end; the process is gone one second earlier."""

    require_mount: bool = True
    """Refuse a Persist that is no mount of its own: a backup into the pod's own disk is none."""

    mounts: tuple[str, ...] = ("Persist", "Shared")
    """Names directly below home that are other tiers: never read, never saved, never removed."""

    restore: bool = True
    """Bring the mirror back into the home before the first save."""

    quiet_s: float = 0.25
    """A changed file is copied once nothing has touched it for this long: most writers write in bursts."""

    max_delay_s: float = 1.25
    """A file that never goes quiet is copied after this long all the same: the promise is 3 s."""

    scan_interval_s: float = 60.0
    """Between two whole scans, which find what gave no event (memory-mapped writes, lost events)."""

    max_file_bytes: int = 1 << 30
    """Larger files are skipped, and named as skipped."""

    retention_days: int = 365
    """How long earlier versions of a file stay, ever fewer with age; the last one stays longer."""

    socket: str = ""
    """Where the running sidecar answers; empty for the place that ``socket_path`` derives."""

    gpu_report: str = ""
    """The last GPU report, shown in the status; empty for none."""

    shared: tuple[Share, ...] = ()
    """The Shared mounts, each at its name below ``shared_root``: only their state is looked after."""

    shared_root: str = "/watch/shared"
    """Where the sidecar sees the Shared mounts."""

    native: bool = True
    """The notebook has ended when SIGTERM comes. On clusters before 1.29 it has not, and may still be writing."""

    termination_log: str = ""
    """Where the last words go, for the kubelet to pick up; empty for nowhere."""
    pod_uid: str = ""
    """Kubernetes' name of this pod: a sidecar that is started again in it takes over from itself; empty for none."""

    owner: str = ""
    """Whose Persist this is; one that says it is somebody else's is refused. Empty where nobody knows."""

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise UsageError("; ".join(problems))

    @property
    def socket_path(self) -> str:
        """The socket of the sidecar of this home, Persist and server: found without touching any of them."""
        if self.socket:
            return self.socket
        import hashlib  # 3.5 MB of memory, of which a sidecar that is told its socket needs nothing

        key = "\0".join((self.home, self.persist, self.server)).encode("utf-8", "surrogateescape")
        return os.path.join(_run_directory(), hashlib.sha256(key).hexdigest()[:24] + ".sock")


def _run_directory() -> str:
    if os.access(POD_RUN_DIRECTORY, os.W_OK):
        return POD_RUN_DIRECTORY
    parent = os.environ.get("XDG_RUNTIME_DIR") or "/tmp"  # noqa: S108  the directory below is 0700 and checked
    return os.path.join(parent, f"jupyterhub-sidecar-{os.getuid()}")


def _problems(settings: Settings) -> list[str]:
    found = []
    for name in ("home", "persist", "shared_root"):
        value = getattr(settings, name)
        if not os.path.isabs(value) or "\0" in value:
            found.append(f"{name} must be an absolute path, not {value!r}")
    if not is_component(settings.server):
        found.append(f"server must be one path component of at most 255 bytes, not {settings.server!r}")
    if settings.server in _RESERVED:
        found.append(f"server cannot be {settings.server!r}: a file of ours on Persist has that name")
    found += [
        f"mount {name!r} must be one path component without a colon"
        for name in settings.mounts
        if not is_component(name) or ":" in name
    ]
    found += [
        f"{name} must not contain a NUL byte"
        for name in ("socket", "gpu_report", "termination_log")
        if "\0" in getattr(settings, name)
    ]
    if not _POD_UID.fullmatch(settings.pod_uid):
        found.append(f"pod_uid must be at most 64 letters, digits, dots and hyphens, not {settings.pod_uid!r}")
    if "\0" in settings.owner or len(settings.owner) > _OWNER_CHARACTERS:
        found.append(f"owner must be at most {_OWNER_CHARACTERS} characters without a NUL byte")
    if not SHORTEST_RETENTION_DAYS <= settings.retention_days <= LONGEST_RETENTION_DAYS:
        found.append(
            f"retention_days must be {SHORTEST_RETENTION_DAYS} to {LONGEST_RETENTION_DAYS}, "
            f"not {settings.retention_days!r}"
        )
    for name in ("grace_s", "quiet_s", "max_delay_s", "scan_interval_s", "max_file_bytes"):
        value = getattr(settings, name)
        if not 0 < value < float("inf"):
            found.append(f"{name} must be a number above 0, not {value!r}")
    return found


def is_component(name: str) -> bool:
    """Whether ``name`` can be one directory name, and only that."""
    encoded = name.encode("utf-8", "surrogateescape")
    return 0 < len(encoded) <= 255 and name not in (".", "..") and "/" not in name and "\0" not in name


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("must be 0 or 1")
    return text == "1"


def _shares(text: str) -> tuple[Share, ...]:
    found = []
    for item in text.split(":"):
        if item:
            name, _, access = item.partition("=")
            found.append(Share(name, access))
    return tuple(found)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(":") if name)


# field → (variable, from text). Text is what str() gives, but for the two types below.
VARIABLES: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "home": ("SIDECAR_HOME", str),
    "persist": ("SIDECAR_PERSIST", str),
    "server": ("SIDECAR_SERVER", str),
    "grace_s": ("SIDECAR_GRACE", float),
    "require_mount": ("SIDECAR_REQUIRE_MOUNT", _flag),
    "mounts": ("SIDECAR_MOUNTS", _names),
    "restore": ("SIDECAR_RESTORE", _flag),
    "quiet_s": ("SIDECAR_QUIET", float),
    "max_delay_s": ("SIDECAR_MAX_DELAY", float),
    "scan_interval_s": ("SIDECAR_SCAN_INTERVAL", float),
    "max_file_bytes": ("SIDECAR_MAX_FILE_BYTES", int),
    "retention_days": ("SIDECAR_RETENTION_DAYS", int),
    "socket": ("SIDECAR_SOCKET", str),
    "gpu_report": ("GPU_CHECK_REPORT", str),
    "shared": ("SIDECAR_SHARED", _shares),
    "shared_root": ("SIDECAR_SHARED_ROOT", str),
    "native": ("SIDECAR_NATIVE", _flag),
    "termination_log": ("SIDECAR_TERMINATION_LOG", str),
    "pod_uid": ("SIDECAR_POD_UID", str),
    "owner": ("SIDECAR_OWNER", str),
}


def from_environ(environ: Mapping[str, str], **overrides: object) -> Settings:
    """The settings that ``environ`` describes, with ``overrides`` (of fields, ``None`` for none) on top.

    Raises ``UsageError`` naming every problem at once: a value that does not parse, a missing home or Persist, and
    a variable that begins with ``SIDECAR_`` but means nothing to this version.
    """
    values: dict[str, Any] = {}
    problems = []
    for field, (variable, parse) in VARIABLES.items():
        if overrides.get(field) is not None:
            values[field] = overrides[field]
        elif variable in environ:
            try:
                values[field] = parse(environ[variable])
            except ValueError as error:
                problems.append(f"{variable}={environ[variable]!r}: {error}")
    known = {variable for variable, _ in VARIABLES.values()}
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable not in known and not _SERVICE_LINK.match(variable):
            problems.append(f"{variable} is not a setting of this version")
    for field in ("home", "persist"):
        if field not in values:
            problems.append(f"--{field} or {VARIABLES[field][0]} is missing")
    try:
        settings = Settings(**{"home": "/", "persist": "/", **values})
    except UsageError as error:
        problems.append(str(error))
    if problems:
        raise UsageError("; ".join(problems))
    return settings


def to_environ(settings: Settings) -> dict[str, str]:
    """The variables that describe ``settings`` completely."""
    return {VARIABLES[field.name][0]: _text(getattr(settings, field.name)) for field in fields(settings)}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, tuple):
        return ":".join(map(str, value))
    return str(value)
