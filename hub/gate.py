"""Refuses a start before JupyterHub has recorded anything of it.

JupyterHub makes the server's record, stores the options and creates tokens before it asks the spawner, and logs a
traceback for what a form brings. These handlers stand before its own (the routes of an authenticator come first),
judge, and hand over unchanged what is granted.
"""

from __future__ import annotations

import asyncio
import html
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeVar

from jupyterhub.apihandlers.users import UserServerAPIHandler  # type: ignore[import-untyped]  # has no type information
from jupyterhub.handlers.pages import SpawnHandler  # type: ignore[import-untyped]
from jupyterhub.scopes import needs_scope, scope_definitions  # type: ignore[import-untyped]
from tornado.httputil import url_concat
from tornado.web import HTTPError, authenticated

from hub.admission import Pending, RefusedRequest, judge
from hub.form import form_options
from hub.freshness import groups_in_doubt
from hub.groups import entitlement
from hub.policy import Policy
from hub.resolve import Granted, Refused, resolve
from hub.text import quoted, visible

# JupyterHub 6 split the right to start a server from the right to see it.
_START = "start:servers" if "start:servers" in scope_definitions else "servers"
_Method = TypeVar("_Method", bound=Callable[..., Any])
_with_scope: Callable[[str], Callable[[_Method], _Method]] = needs_scope
_FIELDS = frozenset({"name", "display_name", "user_options"})
_NOT_OPTIONS = frozenset({"next", "display_name", "_xsrf"})


def gate_routes(policy: Policy) -> list[tuple[str, type, dict[str, Any]]]:
    """The routes that must come before JupyterHub's own."""
    settings = {"policy": policy, "pending": Pending()}
    return [
        (r"/api/users/([^/]+)/server", ServerGate, settings),
        (r"/api/users/([^/]+)/servers/([^/]*)", ServerGate, settings),
        (r"/spawn", SpawnGate, settings),
        (r"/spawn/([^/]+)", SpawnGate, settings),
        (r"/spawn/([^/]+)/([^/]+)", SpawnGate, settings),
    ]


class ServerGate(UserServerAPIHandler):  # type: ignore[misc]  # jupyterhub's handlers are untyped
    """The REST API for one server."""

    def initialize(self, policy: Policy, pending: Pending) -> None:
        super().initialize()
        self._policy = policy
        self._pending = pending

    @_with_scope(_START)
    async def post(self, user_name: str, server_name: str = "") -> None:
        options, _ = self._options_in_body()
        user = self.find_user(user_name)
        if user:
            await refreshed(self, user)
        granted = admit(user, server_name, options, self._policy, self._pending) if user else nullcontext()
        with granted:
            await _started(super().post(user_name, server_name))

    @_with_scope(_START)
    async def put(self, user_name: str, server_name: str = "") -> None:
        self._refuse_stored(user_name)
        await super().put(user_name, server_name)

    @_with_scope(_START)
    async def patch(self, user_name: str, server_name: str = "") -> None:
        self._refuse_unknown_fields()
        self._refuse_stored(user_name)
        await super().patch(user_name, server_name)

    def get_json_body(self) -> Any:
        """The object in the body, or ``None``. JupyterHub takes whatever is not empty for an object."""
        body = super().get_json_body()
        if body and not isinstance(body, dict):
            raise HTTPError(400, "the body must be a JSON object")
        return body

    def _refuse_unknown_fields(self) -> None:
        """JupyterHub 6.1 fails over a field that it does not know, and over a name that is no text."""
        body = self.get_json_body() or {}
        unknown = [quoted(name) for name in body if name not in _FIELDS]
        if unknown:
            raise HTTPError(400, visible(f"no such field: {', '.join(unknown)}", limit=300))
        if not isinstance(body.get("name", ""), str):
            raise HTTPError(400, "name must be a string")

    def _refuse_stored(self, user_name: str) -> None:
        """Options that are only stored are judged without regard to what runs now."""
        options, given = self._options_in_body()
        user = self.find_user(user_name)
        if user is None or not given:
            return
        groups = [group.name for group in user.groups]
        answer = resolve(user.name, groups, options=options, running={}, policy=self._policy)
        if isinstance(answer, Refused):
            raise RefusedRequest(answer)

    def _options_in_body(self) -> tuple[object, bool]:
        """The options as JupyterHub will read them, and whether there are any."""
        if not self.request.body.strip():
            return None, False
        try:
            body = json.loads(self.request.body)
        except (ValueError, RecursionError) as error:
            raise HTTPError(400, "the body is not JSON") from error
        if not body:
            return None, False
        # JupyterHub 5 knows no other form than the options themselves.
        if hasattr(self, "get_server_json_body") and isinstance(body, dict):
            if "user_options" in body:
                return body["user_options"], body["user_options"] is not None
            if "display_name" in body or self.request.method == "PATCH":
                return None, False
        return body, True


class SpawnGate(SpawnHandler):  # type: ignore[misc]
    """The spawn page: its form, and options in its address."""

    def initialize(self, policy: Policy, pending: Pending) -> None:
        super().initialize()
        self._policy = policy
        self._pending = pending

    @authenticated
    async def get(self, user_name: str | None = None, server_name: str = "") -> None:
        go_on = partial(super().get, user_name, server_name or "")
        fields = _decoded(self.request.query_arguments)
        if any(name.startswith("opt-") for name in fields):
            fields = {name[4:]: values for name, values in fields.items() if name.startswith("opt-")}
        if fields:
            await self._judged(user_name or self.current_user.name, server_name or "", fields=fields, go_on=go_on)
        elif user_name in (None, self.current_user.name) and not await login_lasts(self, self.current_user):
            # Not to the login page, which would find the user logged in and come back.
            login = self.authenticator.login_url(self.hub.base_url)
            self.redirect(url_concat(login, {"next": self.request.uri}))
        else:
            await go_on()

    @authenticated
    async def post(self, user_name: str | None = None, server_name: str = "", **rest: str) -> None:
        go_on = partial(super().post, user_name, server_name or "", **rest)
        fields = _decoded(self.request.body_arguments)
        fields.update({f"{name}_file": [] for name in self.request.files})
        await self._judged(user_name or self.current_user.name, server_name or "", fields=fields, go_on=go_on)

    async def _render_form(self, for_user: Any, spawner_options_form: str, message: str = "", **more: str) -> Any:
        """The page, with a word about GPUs that cannot be had now, before anybody tries."""
        doubt = groups_in_doubt(for_user)
        groups = [group.name for group in for_user.groups]
        if doubt and not message and entitlement(groups, self._policy).cap.gpus:
            warning = f'<div class="alert alert-warning" role="alert">{html.escape(doubt)}</div>'
            spawner_options_form = warning + spawner_options_form
        return await super()._render_form(
            for_user=for_user, spawner_options_form=spawner_options_form, message=message, **more
        )

    @_with_scope("servers")
    async def _judged(
        self,
        user_name: str,
        server_name: str = "",
        *,
        fields: dict[str, list[str]],
        go_on: Callable[[], Awaitable[None]],
    ) -> None:
        """Goes on if the start is granted; if not, shows the form again with the reason."""
        user = self.find_user(user_name)
        try:
            if user:
                await refreshed(self, user)
            options = form_options(fields)
            granted = admit(user, server_name, options, self._policy, self._pending) if user else nullcontext()
        except RefusedRequest as refusal:
            self.log.warning("Not starting a server for %s: %s", user_name, refusal.jupyterhub_message)
            self.set_status(refusal.status_code)
            form = await user.spawner.get_options_form()
            message = refusal.jupyterhub_message
            self.finish(await self._render_form(for_user=user, spawner_options_form=form, message=message))
            return
        with granted:
            await _started(go_on())


async def login_lasts(handler: Any, user: Any) -> bool:
    """Whether ``user`` need not log in again: in this request the identity provider was asked for their groups, whoever
    sent it. What it does not answer leaves the groups in doubt.

    JupyterHub looks at them again at most once in a request, so this costs nothing.
    """
    return not handler.authenticator.refresh_pre_spawn or await handler.refresh_auth(user, force=True) is not None


async def refreshed(handler: Any, user: Any) -> None:
    """As ``login_lasts``. Raises ``RefusedRequest`` if ``user`` must log in again."""
    if not await login_lasts(handler, user):
        raise RefusedRequest(Refused(f"the login of {quoted(user.name)} has ended: log in again", "forbidden"))


async def _started(start: Awaitable[None]) -> None:
    """JupyterHub has answered a start. A stop in the middle cancels the start, and it calls that its own error."""
    try:
        await start
    except asyncio.CancelledError as error:
        raise HTTPError(409, "the server was stopped before it had started") from error


def admit(user: Any, server: str, options: object, policy: Policy, pending: Pending) -> AbstractContextManager[None]:
    """What was granted counts from now on, while the context lasts; ``None`` as options means the saved ones.

    Raises ``RefusedRequest``. A server that runs, or is about to, is left to JupyterHub's own answer.
    """
    if _active(user, server):
        return nullcontext()
    saved = user.orm_spawners.get(server) if options is None else None
    stored = saved.user_options if saved is not None else None
    answer = judge(user, server, stored or options, policy, pending=pending)
    if isinstance(answer, Granted):
        return pending.start(user, server, answer.decision.size)
    if stored:
        answer = Refused(f"{answer.reason} (these are the options of the last start; choose anew)", answer.kind)
    raise RefusedRequest(answer)


def _active(user: Any, server: str) -> bool:
    """Whether the server runs or is about to: JupyterHub answers that by itself."""
    return server in user.spawners and bool(dict(user.spawners)[server].active)


def _decoded(arguments: dict[str, list[bytes]]) -> dict[str, list[str]]:
    return {
        name: [value.decode("utf-8", "replace") for value in values]
        for name, values in arguments.items()
        if name not in _NOT_OPTIONS
    }
