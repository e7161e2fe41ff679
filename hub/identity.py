"""Who a directory on Persist belongs to, as the sidecar records it there and refuses everybody else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

_LONGEST = 512


def owner_of(user: str, subject: str = "") -> str:
    """The owner to record: the identity provider's ``subject`` where it is known, the name of ``user`` where not.

    A name can be given to another person later, a subject never (OpenID Connect Core, section 2, ``sub``): the next
    person of the name is refused the Persist of the last one. A subject never counts as a name, nor a name as a
    subject. What would not pass through an environment variable is recorded by its SHA-256.
    """
    owner = f"sub:{subject}" if subject else user
    mistakable = not subject and user.startswith(("sub:", "sha256:"))
    if mistakable or "\0" in owner or len(owner) > _LONGEST or not _encodes(owner):
        kind = "sub" if subject else "name"
        return f"sha256:{hashlib.sha256(f'{kind}:{subject or user}'.encode('utf-8', 'surrogatepass')).hexdigest()}"
    return owner


def subject_of(user: Any) -> str:
    """The identity provider's subject of ``user``, a user of the hub; empty where nobody knows one."""
    ask: Callable[[Any], str] | None = getattr(getattr(user, "authenticator", None), "subject_of", None)
    return ask(user) if ask is not None else ""


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
