"""What the groups of a user come to: the profiles they are offered, and the most they may have."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hub.policy import Everyone, Group, Policy
from hub.quantity import Size


@dataclass(frozen=True, kw_only=True)
class Entitlement:
    """``profiles`` are slugs in the order they are shown, the first being the default; ``cap`` is for all servers."""

    profiles: tuple[str, ...]
    cap: Size
    notes: tuple[str, ...]


def entitlement(groups: Collection[str], policy: Policy) -> Entitlement:
    """The union of the profiles of all ``groups``, and the largest of each of their limits.

    Names are compared exactly. Who is in no group with profiles gets what ``everyone`` gets.
    """
    members = [group for name, group in policy.groups.items() if name in groups and group.profiles]
    sources: Sequence[Group | Everyone] = members or [policy.everyone]
    profiles = dict.fromkeys(slug for source in sources for slug in source.profiles if slug in policy.profiles)
    cap = Size()
    for source in sources:
        if source.limits is not None:
            cap = cap.largest(source.limits.size)
    notes = dict.fromkeys(source.note for source in sources if source.note)
    return Entitlement(profiles=tuple(profiles), cap=cap, notes=tuple(notes))


def is_admin(groups: Collection[str], policy: Policy) -> bool:
    """Whether one of ``groups`` administrates the hub."""
    return any(group.admin for name, group in policy.groups.items() if name in groups)


def may_log_in(groups: Collection[str], policy: Policy) -> bool:
    """Whether the policy's login rule lets a member of ``groups`` in."""
    return policy.login == "everyone" or any(name in groups for name in policy.login)
