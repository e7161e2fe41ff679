"""The shipped hub with any people in it: a JSON file says who is in which groups, and is read at every look."""

import json
import os
from pathlib import Path

from jupyterhub.auth import Authenticator  # type: ignore[import-untyped]  # jupyterhub has no type information

import hub
from hub.gate import gate_routes
from hub.policy_file import load_policy

c = get_config()  # type: ignore[name-defined]  # noqa: F821  traitlets puts it there
load_subconfig(os.path.join(os.path.dirname(hub.__file__), "jupyterhub_config.py"))  # type: ignore[name-defined]  # noqa: F821

_POLICY = os.environ["HUB_POLICY"]
_PEOPLE = Path(os.environ["CROWD_PEOPLE"])
_PASSWORD = os.environ["CROWD_PASSWORD"]


class Crowd(Authenticator):  # type: ignore[misc]
    """One password for all."""

    def __init__(self, **kwargs):  # type: ignore[no-untyped-def]
        super().__init__(**kwargs)
        self.manage_groups = self.refresh_pre_spawn = True
        self.allowed_users = set(json.loads(_PEOPLE.read_text()))

    def get_handlers(self, app):  # type: ignore[no-untyped-def]
        return [*gate_routes(load_policy(_POLICY)), *super().get_handlers(app)]

    async def authenticate(self, _handler, data):  # type: ignore[no-untyped-def]
        groups = json.loads(_PEOPLE.read_text()).get(data["username"])
        return (
            {"name": data["username"], "groups": groups}
            if groups is not None and data.get("password") == _PASSWORD
            else None
        )

    async def refresh_user(self, user, _handler=None, **_):  # type: ignore[no-untyped-def]
        return {"name": user.name, "groups": json.loads(_PEOPLE.read_text())[user.name]}


c.JupyterHub.authenticator_class = Crowd
c.JupyterHub.admin_users = {"admin"}
c.JupyterHub.services = [*c.JupyterHub.services, {"name": "starter", "api_token": os.environ["CROWD_SERVICE_TOKEN"]}]
c.JupyterHub.load_roles = [
    *c.JupyterHub.load_roles,
    {"name": "starter", "services": ["starter"], "scopes": ["servers", "list:users", "read:servers"]},
]
