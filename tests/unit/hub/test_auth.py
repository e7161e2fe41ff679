from __future__ import annotations

import pytest
from traitlets.config import Config

from hub.auth import DemoAuthenticator


@pytest.mark.parametrize("settings", [{}, {"refresh_pre_spawn": False, "manage_groups": False}])
def test_groups_are_the_tables_at_every_start_whatever_is_set(settings: dict[str, bool]) -> None:
    login = DemoAuthenticator(config=Config({"DemoAuthenticator": settings}))
    assert login.refresh_pre_spawn
    assert login.manage_groups
