from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from hub.identity import owner_of
from hub.plan import local_directories, local_plan
from hub.policy_file import load_policy
from hub.resolve import Granted, resolve
from sidecar.config import Settings, from_environ, to_environ

PERSONS = st.tuples(
    st.text(max_size=20) | st.sampled_from(["ada", "sub:1", "sha256:1", "a" * 600]), st.text(max_size=9)
)


def test_a_name_that_is_given_to_another_person_is_another_owner() -> None:
    assert owner_of("ada", "1") != owner_of("ada", "2")
    assert owner_of("ada", "1") == owner_of("ada.lovelace", "1")
    assert owner_of("ada") == "ada"


def test_nobody_becomes_another_by_the_choice_of_a_name() -> None:
    long = "9" * 600
    victims = [owner_of("x", "1"), owner_of("x", long)]
    assert not {owner_of(name) for name in ("sub:1", f"sub:{long}", *victims)} & set(victims)


@given(PERSONS, PERSONS)
def test_two_owners_are_the_same_only_for_the_same_subject_or_the_same_name_without_one(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    assume(one != other)
    same = one[1] == other[1] and bool(one[1])
    assert (owner_of(*one) == owner_of(*other)) is same


@given(PERSONS)
def test_every_owner_passes_through_a_sidecars_environment(person: tuple[str, str]) -> None:
    settings = Settings(home="/h", persist="/p", owner=owner_of(*person))
    environ = to_environ(settings)
    environ["SIDECAR_OWNER"].encode()
    assert from_environ(environ) == settings


def test_a_plan_carries_the_owner_and_the_policys_storage_settings_to_the_sidecar() -> None:
    policy = load_policy()
    answer = resolve("ada", (), options={}, running={}, policy=policy)
    assert isinstance(answer, Granted)
    directories = local_directories("/data", "ada", "")
    known = local_plan(answer.decision, directories, policy, user="ada", subject="42").sidecar
    assert (known.owner, known.restore, known.retention_days) == ("sub:42", True, 365)
    assert local_plan(answer.decision, directories, policy, user="ada").sidecar.owner == "ada"
