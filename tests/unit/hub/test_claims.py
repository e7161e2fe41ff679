from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.claims import LONGEST_NAME, MOST_GROUPS, Claims, Malformed, read_claims, user_name_problem

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)

IGNORABLE = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\ufe00\ufe0f\uffa0\U000e0100\U000e01ef"


def claims(groups_key: str = "oauth_user.groups", **info: Any) -> Claims | Malformed:
    info = {"sub": "1f", "preferred_username": "mia", **info}
    return read_claims(
        {"oauth_user": info}, user_key="oauth_user", name_claim="preferred_username", groups_key=groups_key
    )


def test_groups_are_taken_as_authentik_sends_them() -> None:
    assert claims(groups=["cpsHPCAccess", "staff", "cpsHPCAccess"]) == Claims(
        subject="1f", name="mia", groups=("cpsHPCAccess", "staff")
    )


def test_groups_can_stand_anywhere_in_the_answer() -> None:
    found = claims("oauth_user.realm_access.roles", realm_access={"roles": ["a"]})
    assert isinstance(found, Claims)
    assert found.groups == ("a",)


def test_no_such_claim_is_no_group_and_says_so() -> None:
    for key in ("oauth_user.groups", "oauth_user.sub.groups", "groups"):
        found = claims(key)
        assert found == Claims(subject="1f", name="mia", groups=(), groups_sent=False)


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ("cpsHPCAccess", "sent a string as groups, not a list of group names"),
        (None, "sent nothing as groups"),
        (True, "sent a truth value as groups"),
        (3, "sent a number as groups"),
        ({"cpsHPCAccess": True}, "sent an object as groups"),
        (["a", 1], "sent a number among the groups"),
        (["a", None], "sent nothing among the groups"),
        ([{"name": "cpsHPCAccess"}], "sent an object among the groups"),
        ([["cpsHPCAccess"]], "sent a list among the groups"),
        (["g"] * 10_000, f"sent 10000 groups; {MOST_GROUPS} are the most"),
    ],
)
def test_anything_but_a_list_of_strings_is_malformed(groups: object, said: str) -> None:
    found = claims(groups=groups)
    assert isinstance(found, Malformed)
    assert said in found.reason


def test_groups_whose_names_cannot_be_stored_or_shown_are_left_out() -> None:
    found = claims(groups=["", "a\nb", "\u202ea", "a\x00", "\ud800", "x" * (LONGEST_NAME + 1), "ok", "<b>"])
    assert isinstance(found, Claims)
    assert (found.groups, found.left_out) == (("ok", "<b>"), 6)


@pytest.mark.parametrize("sub", [None, "", 7, "x" * 256, "a\nb", ["1"]])
def test_without_a_usable_sub_nobody_is_anybody(sub: object) -> None:
    assert isinstance(claims(sub=sub, groups=[]), Malformed)


@pytest.mark.parametrize("name", [None, 7, ["mia"], {"name": "mia"}])
def test_a_user_name_is_a_string(name: object) -> None:
    assert isinstance(claims(preferred_username=name, groups=[]), Malformed)


@given(JSON, st.sampled_from(["oauth_user.groups", "oauth_user", "groups.a", "oauth_user.a.b", "", "."]))
def test_any_answer_is_somebody_or_malformed_in_one_readable_line(info: object, key: str) -> None:
    for answer in (info, {"sub": "1f", "preferred_username": "mia", "groups": info}):
        found = read_claims({"oauth_user": answer}, user_key="oauth_user", name_claim="name", groups_key=key)
        assert isinstance(found, Claims) or found.reason.isprintable()


@pytest.mark.parametrize(
    "name",
    ["mia", "maria.huber", "maria@example.org", "Mia", "müller", "o'neil", "mia huber", "_svc", "7", "李雷", "x" * 255],
)
def test_names_that_people_have_are_user_names(name: str) -> None:
    assert user_name_problem(name) is None


@pytest.mark.parametrize(
    "name",
    ["", "../x", "..", ".", "a/b", "a\\b", "x" * 256, "<b>", "a<b", 'a"b', "a&b", "a%2fb", "a{b}", "a:b", "a\nb",
     "a\x00", "a\u202eb", "a\ud800", "a\u00a0b", " a", "a ", "-rf", "@a", "a;b", "a|b", "$(a)", "~root",
     *(f"bob{character}" for character in IGNORABLE), *IGNORABLE],
)  # fmt: skip
def test_what_may_not_be_a_user_name_is_refused_in_one_readable_line(name: str) -> None:
    problem = user_name_problem(name)
    assert problem is not None
    assert problem.isprintable()
