"""What the groups of a user come to: profiles, caps and shares."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from hub.policy import Everyone, Group, Policy
from hub.quantity import Size
from sidecar.config import Share


@dataclass(frozen=True, kw_only=True)
class Entitlement:
    """``profiles`` are slugs in the order they are shown, the first being the default; ``cap`` is for all servers."""

    profiles: tuple[str, ...]
    cap: Size
    notes: tuple[str, ...]


def entitlement(groups: Collection[str], policy: Policy) -> Entitlement:
    """The union of the profiles of all ``groups``, and the largest of each of their limits.

    Names are compared exactly. Who is in no group with profiles gets what ``everyone`` gets, beside the limits and
    notes of their groups.
    """
    members = _members(groups, policy)
    sources: list[Group | Everyone] = list(members)
    if not any(group.profiles for group in members):
        sources.append(policy.everyone)
    profiles = dict.fromkeys(slug for source in sources for slug in source.profiles if slug in policy.profiles)
    limits = [source.limits for source in sources if source.limits is not None]
    cap = Size(
        millicpu=max((limit.millicpu for limit in limits), default=0),
        memory_bytes=max((limit.memory_bytes for limit in limits), default=0),
        gpus=max((limit.gpus for limit in limits), default=0),
    )
    notes = dict.fromkeys(source.note for source in sources if source.note)
    return Entitlement(profiles=tuple(profiles), cap=cap, notes=tuple(notes))


def is_admin(groups: Collection[str], policy: Policy) -> bool:
    """Whether one of ``groups`` administers the hub."""
    return any(group.admin for group in _members(groups, policy))


def may_log_in(groups: Collection[str], policy: Policy) -> bool:
    """Whether the policy's login rule lets a member of ``groups`` in."""
    return policy.login == "everyone" or not _names(groups).isdisjoint(policy.login)


def shares_of(groups: Collection[str], policy: Policy) -> tuple[Share, ...]:
    """The directories of Shared that a member of ``groups`` sees, in the policy's order; each with the best access.

    Where ``policy.storage.shared`` is empty there are no such directories, and everybody has the whole claim.
    """
    names = _names(groups)
    access: dict[str, str] = {}
    for share in policy.storage.shared:
        if (not share.groups or not names.isdisjoint(share.groups)) and access.get(share.name) != "rw":
            access[share.name] = share.access
    return tuple(Share(name, best) for name, best in access.items())


def _members(groups: Collection[str], policy: Policy) -> list[Group]:
    names = _names(groups)
    return [group for name, group in policy.groups.items() if name in names]


def _names(groups: Collection[str]) -> frozenset[str]:
    """``groups`` to look names up in; none in what is no collection of names.

    A text is a collection of its letters and contains each part of itself: a claim that came as one must not count.
    """
    if isinstance(groups, str):
        return frozenset()
    return frozenset(name for name in groups if isinstance(name, str))
