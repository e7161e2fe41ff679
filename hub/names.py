"""Directory names for users and servers: two different names never get the same directory.

A new deployment uses ``slug``, which is total. The other schemes name the directories that an older deployment has on
its NFS. Those can send two names to one directory, so they refuse every name that could be one of two.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Literal

from hub.text import hidden, quoted
from sidecar.config import is_component

DEFAULT_SERVER = "default"
"""The directory of a user's unnamed server."""

DirectoryScheme = Literal["slug", "safe", "escape", "raw"]

# format.json lies beside the servers' directories on Persist.
_RESERVED = frozenset({DEFAULT_SERVER, "persist", "format.json"})
_PLAIN = re.compile(r"[a-z0-9](?:[a-z0-9._]|-(?=[a-z0-9._]))*")
_PLAIN_LENGTH = 40
_HASH_LENGTH = 32
_SAFE_LENGTH = 48  # as KubeSpawner 7 expands {username}: spawner.py, _expand_user_properties


class NameRefused(ValueError):
    """A user who gets no directory; the text says why, in one line."""


def directory_name(name: str) -> str:
    """One path component for ``name``: injective, at most 75 ASCII characters, readable where it can be.

    A plain name (small letters, digits, ``.``, ``_``, single hyphens between them) stays as it is. Every other name,
    and the reserved ones, becomes its plain remainder, ``---`` and 128 bits of its SHA-256: no plain name has three
    hyphens. No two are the same on a file system that does not tell large letters from small ones, nor in KubeSpawner,
    which strips hyphens from the end of what it expands.
    """
    if _PLAIN.fullmatch(name) and len(name) <= _PLAIN_LENGTH and name not in _RESERVED:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_LENGTH]
    remainder = re.sub(r"[^a-z0-9]+", "-", name.lower())[:_PLAIN_LENGTH].strip("-") or "x"
    return f"{remainder}---{digest}"


def server_directory(server: str) -> str:
    """``directory_name`` for a server; the unnamed one is ``default``, and no named one is."""
    return directory_name(server) if server else DEFAULT_SERVER


def user_directory(name: str, scheme: DirectoryScheme = "slug") -> str:
    """The one path component of the user ``name`` on Persist. Raises ``NameRefused``, but not for ``slug``.

    ``safe`` and ``escape`` are KubeSpawner's ``{username}`` under that ``slug_scheme``, ``raw`` its
    ``{unescaped_username}`` and the variable ``JUPYTERHUB_USER``. Of ``safe`` 32 bits tell apart the names that are no
    plain label: who makes two of them meet on purpose is refused by the owner that is recorded on Persist.
    """
    if scheme == "slug":
        return directory_name(name)
    if any(hidden(character) for character in name):
        raise _refused(name, "has characters that cannot be seen")
    directory = _raw(name) if scheme == "raw" else _kubespawner(name, scheme)
    if not is_component(directory):
        raise _refused(name, "is no directory's name: one part of a path, at most 255 bytes")
    if directory.startswith("."):
        raise _refused(name, "begins with a dot")
    if directory in _RESERVED:
        raise _refused(name, "is reserved")
    if directory.endswith("-"):
        # KubeSpawner strips it from what it expands: the directory of bob- is that of bob.
        raise _refused(name, "ends with a hyphen, and its directory would be that of the name without it")
    return directory


def _kubespawner(name: str, scheme: Literal["safe", "escape"]) -> str:
    from kubespawner.slugs import escape_slug, safe_slug  # loads all of KubeSpawner, which takes more than a second

    return str(safe_slug(name, max_length=_SAFE_LENGTH) if scheme == "safe" else escape_slug(name))


def _raw(name: str) -> str:
    """``name``, where no other is the same to a file server that looks at neither case nor composition."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    if name != folded:
        raise _refused(name, "has large letters, or others that some file servers do not tell apart")
    return name


def _refused(name: str, why: str) -> NameRefused:
    return NameRefused(f"the user name {quoted(name)} {why}: no directory on Persist can be given to it")
