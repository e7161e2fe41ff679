"""Directory names for users and servers: two different names never get the same directory."""

from __future__ import annotations

import hashlib
import re

DEFAULT_SERVER = "default"
"""The directory of a user's unnamed server."""

_RESERVED = frozenset({DEFAULT_SERVER, "persist"})
_PLAIN = re.compile(r"[a-z0-9](?:[a-z0-9._]|-(?!-))*", re.ASCII)
_PLAIN_LENGTH = 40
_HASH_LENGTH = 32


def directory_name(name: str) -> str:
    """One path component for ``name``: injective, at most 75 ASCII characters, readable where it can be.

    A plain name (small letters, digits, ``.``, ``_``, single hyphens) stays as it is. Every other name, and the
    reserved ones, becomes its plain remainder, ``---`` and 128 bits of its SHA-256: no plain name has three hyphens.
    """
    if _PLAIN.fullmatch(name) and len(name) <= _PLAIN_LENGTH and name not in _RESERVED:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_LENGTH]
    remainder = re.sub(r"[^a-z0-9]+", "-", name.lower())[:_PLAIN_LENGTH].strip("-") or "x"
    return f"{remainder}---{digest}"


def server_directory(server: str) -> str:
    """``directory_name`` for a server; the unnamed one is ``default``, and no named one is."""
    return directory_name(server) if server else DEFAULT_SERVER
