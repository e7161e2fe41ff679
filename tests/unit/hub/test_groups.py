from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.groups import entitlement, is_admin, may_log_in, shares_of
from hub.policy_file import parse_policy
from hub.quantity import Size, parse_memory
from sidecar.config import Share

POLICY = parse_policy("""
groups:
  small: {profiles: [one], limits: {gpus: 0, cpus: 4, memory: 8G}, note: ask us}
  large: {profiles: [two, one], limits: {gpus: 2, cpus: 2, memory: 64G}}
  more-memory: {limits: {gpus: 0, cpus: 0, memory: 256G}, note: much memory}
  admins: {admin: true}
  a: {profiles: [two], limits: {gpus: 2, cpus: 4, memory: 64G}, admin: true}
everyone: {profiles: [one], limits: {gpus: 0, cpus: 1, memory: 1G}, note: nobody}
profiles:
  one: {display_name: One, image: "quay.io/a/b:1", cpus: 1, memory: 1G, gpus: 0}
  two: {display_name: Two, image: "quay.io/a/b:1", cpus: 4, memory: 64G, gpus: 2}
storage:
  shared:
    - {name: data, groups: [small], access: ro}
    - {name: team, groups: [large, other]}
    - {name: data, groups: [large], access: rw}
    - {name: all, access: ro}
    - {name: data, groups: [other], access: rw}
    - {name: data, groups: [other], access: ro}
    - {name: letter, groups: [a]}
login: [small, large, admins, a]
""")
NAMES = ("small", "large", "more-memory", "admins", "other")


def size(cpus: int, memory: str, gpus: int) -> Size:
    return Size(millicpu=cpus * 1000, memory_bytes=parse_memory(memory), gpus=gpus)


@pytest.mark.parametrize(
    ("groups", "profiles", "cap", "notes"),
    [
        ((), ("one",), size(1, "1G", 0), ("nobody",)),
        (("unknown",), ("one",), size(1, "1G", 0), ("nobody",)),
        (("small",), ("one",), size(4, "8G", 0), ("ask us",)),
        (("large", "small", "unknown"), ("one", "two"), size(4, "64G", 2), ("ask us",)),
        (("large",), ("two", "one"), size(2, "64G", 2), ()),
        (("admins",), ("one",), size(1, "1G", 0), ("nobody",)),
        (("more-memory",), ("one",), size(1, "256G", 0), ("much memory", "nobody")),
        (("more-memory", "large"), ("two", "one"), size(2, "256G", 2), ("much memory",)),
        (("SMALL", "small ", " small", "sm\u0430ll", "small\0"), ("one",), size(1, "1G", 0), ("nobody",)),
    ],
)
def test_several_groups_give_the_union_of_profiles_and_the_largest_of_each_limit(
    groups: tuple[str, ...], profiles: tuple[str, ...], cap: Size, notes: tuple[str, ...]
) -> None:
    allowed = entitlement(groups, POLICY)
    assert (allowed.profiles, allowed.cap, allowed.notes) == (profiles, cap, notes)


@given(st.lists(st.sampled_from(NAMES), unique=True), st.sampled_from(NAMES))
def test_one_more_group_never_gives_less_but_for_what_everyone_has(groups: list[str], more: str) -> None:
    before, after = entitlement(groups, POLICY), entitlement([*groups, more], POLICY)
    if any(name in ("small", "large") for name in groups):
        assert set(before.profiles) <= set(after.profiles)
        assert before.cap.fits(after.cap)


def test_the_order_of_groups_makes_no_difference() -> None:
    for groups in itertools.permutations(NAMES):
        assert entitlement(groups, POLICY) == entitlement(NAMES, POLICY)


def test_a_claim_that_is_a_text_is_no_group() -> None:
    assert entitlement("a large group, small and admins", POLICY) == entitlement((), POLICY)
    assert not is_admin("admins", POLICY)
    assert not may_log_in("small", POLICY)
    assert shares_of("large", POLICY) == shares_of((), POLICY)


@pytest.mark.parametrize(
    ("groups", "shares"),
    [
        ((), [("all", "ro")]),
        (("small",), [("data", "ro"), ("all", "ro")]),
        (("large",), [("team", "rw"), ("data", "rw"), ("all", "ro")]),
        (("small", "large"), [("data", "rw"), ("team", "rw"), ("all", "ro")]),
        (("other",), [("team", "rw"), ("all", "ro"), ("data", "rw")]),
    ],
)
def test_each_sees_the_shares_of_their_groups_with_the_best_access(
    groups: tuple[str, ...], shares: list[tuple[str, str]]
) -> None:
    assert shares_of(groups, POLICY) == tuple(Share(name, access) for name, access in shares)


@pytest.mark.parametrize(
    ("groups", "may"), [((), False), (("small",), True), (("other", "admins"), True), (("Small",), False)]
)
def test_only_members_of_the_listed_groups_log_in(groups: tuple[str, ...], may: bool) -> None:
    assert may_log_in(groups, POLICY) is may


def test_an_administrator_is_a_member_of_an_admin_group() -> None:
    assert is_admin(("small", "admins"), POLICY)
    assert not is_admin(("small", "Admins", ""), POLICY)
