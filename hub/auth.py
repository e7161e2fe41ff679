"""Who logs in on one machine: a few demo users in the groups of the shipped policy, with one password for all."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

from jupyterhub.auth import Authenticator  # type: ignore[import-untyped]  # jupyterhub has no type information
from traitlets import Unicode

from hub.gate import gate_routes
from hub.groups import is_admin, may_log_in
from hub.launch import Launch
from hub.policy_file import SHIPPED, load_policy

DEMO_USERS: Mapping[str, tuple[str, ...]] = {
    "researcher": (),
    "hpc": ("cpsHPCAccess",),
    "admin": ("jupyter_admin",),
}


class DemoAuthenticator(Authenticator):  # type: ignore[misc]
    """Knows ``DEMO_USERS`` and nobody else. Their groups are the table's, at every login, refresh and start."""

    password = Unicode(config=True, help="The password of all demo users.")
    policy_file = Unicode(SHIPPED, config=True, help="The policy file; the shipped one by default.")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.manage_groups = True
        self.refresh_pre_spawn = True  # a group that an admin gave by REST is gone before it gives GPUs
        self.allowed_users = set(DEMO_USERS)

    def get_handlers(self, app: Any) -> list[tuple[Any, ...]]:
        return [*gate_routes(load_policy(self.policy_file)), *super().get_handlers(app)]

    async def authenticate(self, handler: Any, data: object) -> dict[str, Any] | None:  # noqa: ARG002
        """The user with their groups, or ``None`` for a wrong name or password. ``data`` is what anybody sent."""
        fields = data if isinstance(data, Mapping) else {}
        name, given, wanted = fields.get("username"), fields.get("password"), self.password.encode()
        if not isinstance(name, str) or not isinstance(given, str):
            return None
        right = hmac.compare_digest(given.encode(errors="surrogatepass"), wanted) and bool(wanted)
        return self._member(name) if right else None

    async def refresh_user(self, user: Any, handler: Any = None, **_: Any) -> dict[str, Any] | bool:  # noqa: ARG002
        return self._member(user.name) or False

    def _member(self, name: str) -> dict[str, Any] | None:
        policy = load_policy(self.policy_file)
        groups = DEMO_USERS.get(name)
        if groups is None or not may_log_in(groups, policy):
            return None
        return {"name": name, "groups": list(groups), "admin": is_admin(groups, policy)}


def configure_login(c: Any, launch: Launch) -> None:
    """``c``, a hub's configuration, lets the people of an identity provider in, or else the demo users."""
    if launch.oidc is not None:
        launch.oidc.configure(c, launch.policy_file)
    else:
        c.JupyterHub.authenticator_class = DemoAuthenticator
        c.DemoAuthenticator.password = launch.password
        c.DemoAuthenticator.policy_file = launch.policy_file
