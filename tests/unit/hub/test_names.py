from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.names import directory_name, server_directory
from sidecar.config import is_component

NAMES = ["bob", "bob-", "-bob", "Bob", "maria.huber", "Maria.Huber", "müller", "mu\u0308ller", "a" * 255, "a" * 256]
NAMES += ["default", "persist", "..", ".", "", "a/b", "a\0b", "a---" + "0" * 32, "bob---x", " bob", "bob\n", "\ud800"]


@pytest.mark.parametrize(("name", "directory"), [("bob", "bob"), ("maria.huber", "maria.huber"), ("a_b-c", "a_b-c")])
def test_a_plain_name_stays_readable(name: str, directory: str) -> None:
    assert directory_name(name) == directory


def test_different_names_get_different_directories() -> None:
    assert len({directory_name(name) for name in NAMES}) == len(NAMES)


def test_only_the_unnamed_server_is_default() -> None:
    assert server_directory("") == "default"
    assert server_directory("default") != "default"
    assert server_directory("persist") != "persist"


@given(st.text(), st.text())
def test_every_name_is_one_safe_directory_of_its_own(one: str, other: str) -> None:
    directory = directory_name(one)
    assert is_component(directory)
    assert directory.isascii()
    assert directory[0] not in ".-"
    assert len(directory) <= 75
    assert (directory == directory_name(other)) is (one == other)
