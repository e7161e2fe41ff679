from __future__ import annotations

import asyncio

import pytest
from traitlets.config import Config

from hub.auth import DemoAuthenticator

PASSWORD = "correct horse"


def login(data: object) -> object:
    authenticator = DemoAuthenticator()
    authenticator.password = PASSWORD
    return asyncio.run(authenticator.authenticate(None, data))


def test_a_demo_user_with_the_password_is_let_in() -> None:
    assert login({"username": "hpc", "password": PASSWORD}) == {
        "name": "hpc",
        "groups": ["cpsHPCAccess"],
        "admin": False,
    }


@pytest.mark.parametrize(
    "data",
    [
        None,
        "hpc",
        {},
        {"username": "hpc"},
        {"password": PASSWORD},
        {"username": "", "password": PASSWORD},
        {"username": "hpc", "password": 7},
        {"username": "hpc", "password": "\ud800"},
        {"username": ["hpc"], "password": PASSWORD},
        {"username": {}, "password": PASSWORD},
    ],
)
def test_whatever_else_is_sent_is_a_wrong_login(data: object) -> None:
    assert login(data) is None


@pytest.mark.parametrize("settings", [{}, {"refresh_pre_spawn": False, "manage_groups": False}])
def test_groups_are_the_tables_at_every_start_whatever_is_set(settings: dict[str, bool]) -> None:
    authenticator = DemoAuthenticator(config=Config({"DemoAuthenticator": settings}))
    assert authenticator.refresh_pre_spawn
    assert authenticator.manage_groups
