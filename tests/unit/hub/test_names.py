from __future__ import annotations

import unicodedata
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubespawner.slugs import escape_slug, safe_slug

from hub.names import DirectoryScheme, NameRefused, directory_name, server_directory, user_directory
from hub.policy_file import parse_policy
from hub.resolve import Granted, Refused, resolve
from sidecar.config import Settings, is_component
from tests.unit.hub.policies import SMALL

NAMES = ["bob", "bob-", "-bob", "Bob", "maria.huber", "Maria.Huber", "müller", "mu\u0308ller", "a" * 255, "a" * 256]
NAMES += ["default", "persist", "format.json", "..", ".", "", ".hidden", "a/b", "a\0b", "a---" + "0" * 32, "bob---x"]
NAMES += [
    " bob",
    "bob\n",
    "\ud800",
    "Straße",
    "strasse",
    "ﬁ",
    "fi",
    "MARIA.HUBER",
    "maria-huber",
    "maria_huber",
    "bob--",
]
SCHEMES: tuple[DirectoryScheme, ...] = get_args(DirectoryScheme)
LEGACY = SCHEMES[1:]

# Names near those that trouble: one letter apart, in another case, composed otherwise.
NEAR = st.text(alphabet="abAB-._/ \0üÜ\u0308\u202e{}$()", max_size=6)
ANY_NAME = st.sampled_from(NAMES) | NEAR | st.text(max_size=300)


def of(name: str, scheme: DirectoryScheme) -> str | None:
    """The directory of ``name``, or ``None`` for a refusal."""
    try:
        return user_directory(name, scheme)
    except NameRefused as refusal:
        reason = str(refusal)
    assert reason.isprintable()
    assert len(reason) < 300
    return None


@pytest.mark.parametrize(("name", "directory"), [("bob", "bob"), ("maria.huber", "maria.huber"), ("a_b-c", "a_b-c")])
def test_a_plain_name_stays_readable(name: str, directory: str) -> None:
    assert user_directory(name) == directory


def test_different_names_get_different_directories() -> None:
    assert len({directory_name(name) for name in NAMES}) == len(NAMES)


def test_only_the_unnamed_server_is_default() -> None:
    assert server_directory("") == "default"
    assert server_directory("default") != "default"
    assert server_directory("persist") != "persist"


@given(ANY_NAME)
def test_every_server_has_a_directory_that_the_sidecar_accepts(name: str) -> None:
    Settings(home="/h", persist="/p", server=server_directory(name))


@given(ANY_NAME, ANY_NAME)
def test_every_name_is_one_safe_directory_of_its_own(one: str, other: str) -> None:
    directory = directory_name(one)
    assert is_component(directory)
    assert directory.isascii()
    assert directory == directory.lower()
    assert not directory.startswith(".")
    assert len(directory) <= 75
    assert (directory == directory_name(other)) == (one == other)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_troublesome_name_has_a_directory_of_its_own_or_is_refused(scheme: DirectoryScheme) -> None:
    found = {name: directory for name in NAMES if (directory := of(name, scheme)) is not None}
    assert len({directory.casefold() for directory in found.values()}) == len(found)
    if scheme == "slug":
        assert len(found) == len(NAMES)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(one=ANY_NAME, other=ANY_NAME)
def test_two_names_never_share_a_directory_on_any_file_server(scheme: DirectoryScheme, one: str, other: str) -> None:
    directories = [directory for name in (one, other) if (directory := of(name, scheme)) is not None]
    for directory in directories:
        assert is_component(directory)
        assert not directory.startswith(".")
        assert directory not in ("default", "persist", "format.json")
    same_to_some = {unicodedata.normalize("NFKC", each).casefold().rstrip("-") for each in directories}
    assert len(same_to_some) == len(directories) or one == other


@pytest.mark.parametrize(
    ("scheme", "name", "directory"),
    [
        ("safe", "maria.huber", "maria-huber---47e4e9da"),
        ("safe", "bob", "bob"),
        ("safe", "bob-", "bob---671cc3ed"),
        ("escape", "maria.huber", "maria-2ehuber"),
        ("escape", "bob-", "bob-2d"),
        ("escape", "Bob", "-42ob"),
        ("raw", "maria.huber", "maria.huber"),
        ("raw", "maria@uni.example", "maria@uni.example"),
        ("raw", "müller", "müller"),
        ("raw", "bob-", None),
        ("raw", "Bob", None),
        ("raw", "mu\u0308ller", None),
        ("raw", "..", None),
        ("raw", "", None),
        ("raw", ".ssh", None),
        ("raw", "a/b", None),
        ("raw", "ü" * 128, None),
        ("raw", "a\nb", None),
        ("raw", "default", None),
        ("safe", "persist", None),
        ("escape", "a" * 256, None),
        ("safe", "\ud800", None),
    ],
)
def test_the_directories_of_an_older_deployment_are_found_under_their_names(
    scheme: DirectoryScheme, name: str, directory: str | None
) -> None:
    assert of(name, scheme) == directory


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60))
def test_an_older_name_is_what_kubespawner_made_of_it(name: str) -> None:
    assert of(name, "safe") in (None, safe_slug(name, max_length=48))
    assert of(name, "escape") in (None, escape_slug(name))


@pytest.mark.parametrize("name", ["..", "bob-", "Bob", "a\u202eb", "default"])
def test_a_user_without_a_directory_is_refused_before_anything_is_started(name: str) -> None:
    policy = parse_policy(f"{SMALL}storage: {{persist: {{directory: raw}}}}\n")
    answer = resolve(name, (), options={}, running={}, policy=policy)
    assert isinstance(answer, Refused)
    assert answer.kind == "forbidden"
    assert "no directory on Persist" in answer.reason
    assert answer.reason.isprintable()
    assert isinstance(resolve(name, (), options={}, running={}, policy=parse_policy(SMALL)), Granted)
