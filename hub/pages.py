"""JupyterHub's own pages, where what stands in an address or a form can be anything."""

from __future__ import annotations

from typing import Any

from jupyterhub.handlers.login import LoginHandler  # type: ignore[import-untyped]  # has no type information
from jupyterhub.handlers.pages import RootHandler, SpawnPendingHandler  # type: ignore[import-untyped]


class CheckedNext:
    """For a handler of JupyterHub: a ``next`` that is no address at all is none, where JupyterHub answers HTTP 500."""

    request: Any

    def get_next_url(self, user: Any = None, default: str | None = None) -> str:
        ask: Any = super()
        try:
            address: str = ask.get_next_url(user, default)
        except ValueError:
            self.request.arguments.pop("next", None)
            address = ask.get_next_url(user, default)
        return address


class RootPage(CheckedNext, RootHandler):  # type: ignore[misc]  # jupyterhub's handlers are untyped
    """The hub's first page, which leads on."""


class SpawnPendingPage(CheckedNext, SpawnPendingHandler):  # type: ignore[misc]
    """The progress of a start."""


class LoginPage(CheckedNext, LoginHandler):  # type: ignore[misc]
    """The login page. A form without a user name is a wrong one."""

    async def post(self) -> None:
        for arguments in (self.request.body_arguments, self.request.arguments):
            arguments.setdefault("username", [b""])
        await super().post()


def page_routes() -> list[tuple[str, type]]:
    """The routes that must come before JupyterHub's own."""
    return [
        (r"/", RootPage),
        (r"/login", LoginPage),
        (r"/spawn-pending/([^/]+)", SpawnPendingPage),
        (r"/spawn-pending/([^/]+)/([^/]+)", SpawnPendingPage),
    ]
