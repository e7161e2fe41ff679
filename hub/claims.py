"""What an identity provider says about a person, checked before anything believes it. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from hub.text import ignorable, quoted, visible

LONGEST_NAME = 255  # what JupyterHub's database holds, of users and of groups
MOST_GROUPS = 1000
"""Each group is a row of the hub's database, written while everybody waits."""

_IN_NAMES = frozenset("@.+-_~' ")


@dataclass(frozen=True, kw_only=True)
class Claims:
    """Somebody: ``subject`` never changes and is never given to anybody else; ``name`` can be."""

    subject: str
    name: str
    """As the provider spells it."""

    groups: tuple[str, ...]
    """Without repetition, in the order of the provider."""

    left_out: int = 0
    """Groups whose names cannot be stored or shown: nobody is a member of them here."""

    groups_sent: bool = True
    """Whether there was such a claim at all."""


@dataclass(frozen=True)
class Malformed:
    """``reason`` is one readable line without control characters."""

    reason: str


def read_claims(state: Mapping[str, object], *, user_key: str, name_claim: str, groups_key: str) -> Claims | Malformed:
    """Who logged in, in the answers of the provider. Total: any JSON value gives one of the two.

    ``state[user_key]`` is the answer about the user; ``groups_key`` leads to the groups through ``state``, with a dot
    between the keys. Without such a claim the user is in no group; any claim but a list of strings is malformed.
    """
    info = state.get(user_key)
    if not isinstance(info, dict):
        return Malformed(f"the identity provider's answer about the user is {_kind(info)}, not an object")
    subject, name = info.get("sub"), info.get(name_claim)
    if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST_NAME or not subject.isprintable():
        return Malformed("the identity provider sent no usable sub, which says who the user is")
    if not isinstance(name, str):
        return Malformed(f"the identity provider sent {_kind(name)} as {visible(name_claim)}, not a user name")
    sent, groups = _at(state, groups_key)
    if not sent:
        return Claims(subject=subject, name=name, groups=(), groups_sent=False)
    if not isinstance(groups, list):
        return Malformed(f"the identity provider sent {_kind(groups)} as groups, not a list of group names")
    if len(groups) > MOST_GROUPS:
        return Malformed(f"the identity provider sent {len(groups)} groups; {MOST_GROUPS} are the most")
    names = [group for group in groups if isinstance(group, str)]
    if len(names) != len(groups):
        odd = next(group for group in groups if not isinstance(group, str))
        return Malformed(f"the identity provider sent {_kind(odd)} among the groups, not a group name")
    kept = [group for group in names if _is_group_name(group)]
    return Claims(subject=subject, name=name, groups=tuple(dict.fromkeys(kept)), left_out=len(names) - len(kept))


def user_name_problem(name: str) -> str | None:
    """Why ``name`` cannot be the name of a user, in one readable line; ``None`` if it can.

    A name becomes part of addresses, cookies, labels and pages: letters and digits of any script, and what else is
    common in names and mail addresses.
    """
    if not name:
        return "the user name is empty"
    if len(name) > LONGEST_NAME:
        return f"the user name has {len(name)} characters; {LONGEST_NAME} are the most"
    shown = quoted(name, limit=40)
    if not (name[0] == "_" or unicodedata.category(name[0])[0] in "LN"):
        return f"the user name {shown} does not begin with a letter or a digit"
    if name.endswith(" "):
        return f"the user name {shown} ends with a space"
    for character in name:
        if ignorable(character):
            return f"the user name {shown} contains U+{ord(character):04X}, which cannot be seen"
        if character not in _IN_NAMES and unicodedata.category(character)[0] not in "LMN":
            return f"the user name {shown} contains {quoted(character)}"
    return None


def _is_group_name(name: str) -> bool:
    return 0 < len(name) <= LONGEST_NAME and visible(name, limit=20 * LONGEST_NAME) == name


def _at(state: Mapping[str, object], key: str) -> tuple[bool, object]:
    """Whether there is something at ``key``, and what."""
    value: object = state
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return False, None
        value = value[part]
    return True, value


def _kind(value: object) -> str:
    names = ((bool, "a truth value"), (str, "a string"), (int | float, "a number"), (list, "a list"))
    if value is None:
        return "nothing"
    return next((name for kind, name in names if isinstance(value, kind)), "an object")
