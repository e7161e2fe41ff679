"""Refuses a start before JupyterHub has recorded anything of it.

JupyterHub makes the server's record, stores the options and creates tokens before it asks the spawner, and logs a
traceback for what a form brings. These handlers stand before its own (the routes of an authenticator come first),
judge, and hand over unchanged what is granted.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
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
from hub.pages import CheckedNext, page_routes
from hub.policy import Policy
from hub.request import check_display_name, check_server_name, form_fields, json_body, malformed, text_fields
from hub.resolve import Refused, resolve
from hub.text import quoted

# JupyterHub 6 split the right to start a server from the right to see it.
_START = "start:servers" if "start:servers" in scope_definitions else "servers"
_Method = TypeVar("_Method", bound=Callable[..., Any])
_with_scope: Callable[[str], Callable[[_Method], _Method]] = needs_scope
_FIELDS = frozenset({"name", "display_name", "user_options"})

# JupyterHub 6 has more than the options in the body, and a prefix for options in the address.
_SERVER_BODIES = hasattr(UserServerAPIHandler, "get_server_json_body")
_PREFIX = "opt-" if hasattr(SpawnHandler, "_get_user_options") else ""


def gate_routes(policy: Policy) -> list[tuple[Any, ...]]:
    """The routes that must come before JupyterHub's own."""
    settings = {"policy": policy, "pending": Pending()}
    return [
        *page_routes(),
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
        options = self._options(server_name)
        user = self.find_user(user_name)
        if user is None:
            await super().post(user_name, server_name)
            return
        await refreshed(self, user)
        with admitted(user, server_name, options, self._policy, self._pending):
            await _started(super().post(user_name, server_name))

    @_with_scope(_START)
    async def put(self, user_name: str, server_name: str = "") -> None:
        self._refuse_stored(user_name, self._options(server_name))
        await super().put(user_name, server_name)

    @_with_scope(_START)
    async def patch(self, user_name: str, server_name: str = "") -> None:
        body = self.get_json_body()
        unknown = [quoted(name) for name in body or {} if name not in _FIELDS]
        if unknown:
            # JupyterHub 6.1 fails over a field that it does not know, and over a name that is no text.
            raise malformed(f"no such field: {', '.join(unknown[:3])}")
        if body and not isinstance(body.get("name", ""), str):
            raise malformed("name must be a string")
        self._refuse_stored(user_name, self._options(server_name))
        await super().patch(user_name, server_name)

    def get_json_body(self) -> dict[str, Any] | None:
        """The object in the body, or ``None``. JupyterHub takes whatever is not empty for an object, and JupyterHub 5
        whatever is not null."""
        body = json_body(self.request.body)
        if body is not None and not isinstance(body, dict):
            raise malformed("the body must be a JSON object")
        return body

    def _options(self, server_name: str) -> dict[str, Any] | None:
        """The options that JupyterHub will find in the body, ``None`` if there are none. Names are checked."""
        check_server_name(server_name)
        body = self.get_json_body()
        if not _SERVER_BODIES:  # JupyterHub 5 knows no other body than the options themselves
            return body
        if not body:
            return None
        check_display_name(body.get("display_name"))
        if self.request.method == "PATCH" or not {"user_options", "display_name"}.isdisjoint(body):
            return body.get("user_options")
        return body

    def _refuse_stored(self, user_name: str, options: object) -> None:
        """Options that are only stored are judged without regard to what runs now."""
        user = self.find_user(user_name)
        if user is None or options is None:
            return
        groups = [group.name for group in user.groups]
        answer = resolve(user.name, groups, options=options, running={}, policy=self._policy)
        if isinstance(answer, Refused):
            raise RefusedRequest(answer)


class SpawnGate(CheckedNext, SpawnHandler):  # type: ignore[misc]
    """The spawn page: its form, and options in its address."""

    def initialize(self, policy: Policy, pending: Pending) -> None:
        super().initialize()
        self._policy = policy
        self._pending = pending

    @authenticated
    async def get(self, user_name: str | None = None, server_name: str = "") -> None:
        go_on = partial(super().get, user_name, server_name or "")
        await self._gated(user_name or self.current_user.name, server_name or "", read=self._query, go_on=go_on)

    @authenticated
    async def post(self, user_name: str | None = None, server_name: str = "") -> None:
        go_on = partial(super().post, user_name, server_name or "")
        await self._gated(user_name or self.current_user.name, server_name or "", read=self._form, go_on=go_on)

    def _query(self) -> dict[str, object] | None:
        """The options in the address; ``None`` when there are none, and the form is asked for."""
        fields = text_fields(self.request.query_arguments)
        if any(name.startswith("opt-") for name in fields):
            fields = {name[4:]: values for name, values in fields.items() if name.startswith("opt-")}
        # JupyterHub looks again: it shall find what was judged. JupyterHub 5 does not know the prefix.
        self.request.query_arguments = _encoded({f"{_PREFIX}{name}": values for name, values in fields.items()})
        return form_options(fields) if fields else None

    def _form(self) -> dict[str, object]:
        fields = form_fields(self.request)
        self.request.body_arguments = _encoded(fields)
        self.request.files = {}
        return form_options(fields)

    @_with_scope("servers")
    async def _gated(
        self,
        user_name: str,
        server_name: str = "",
        *,
        read: Callable[[], dict[str, object] | None],
        go_on: Callable[[], Awaitable[None]],
    ) -> None:
        """Goes on if the start is granted; if not, shows the form again with the reason."""
        user = self.find_user(user_name)
        if user is None:
            await go_on()
            return
        try:
            check_server_name(server_name)
            options = read()
            if options is None:
                await self._show_form(user, go_on)
                return
            await refreshed(self, user)
            with admitted(user, server_name, options, self._policy, self._pending):
                await _started(go_on())
        except RefusedRequest as refusal:
            await self._show_form_again(user, refusal)

    async def _show_form(self, user: Any, go_on: Callable[[], Awaitable[None]]) -> None:
        if user.name == self.current_user.name and not await login_lasts(self, user):
            # Not to the login page, which would find the user logged in and come back.
            login = self.authenticator.login_url(self.hub.base_url)
            self.redirect(url_concat(login, {"next": self.request.uri}))
        else:
            await go_on()

    async def _show_form_again(self, user: Any, refusal: RefusedRequest) -> None:
        message = refusal.jupyterhub_message
        self.log.warning("Not starting a server for %s: %s", user.name, message)
        self.set_status(refusal.status_code)
        form = await user.spawner.get_options_form()
        self.finish(await self._render_form(for_user=user, spawner_options_form=form, message=message))

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


@contextmanager
def admitted(user: Any, server: str, options: object, policy: Policy, pending: Pending) -> Iterator[None]:
    """What was granted counts from now on, until the start is over; ``None`` as options means the saved ones.

    Raises ``RefusedRequest``. Of a server that runs, or is about to, only the options are judged: the rest is
    JupyterHub's own answer.
    """
    record = user.orm_spawners.get(server) if options is None else None
    stored = record.user_options if record is not None else None
    answer = judge(user, server, stored or options, policy, pending=pending)
    if isinstance(answer, Refused):
        if stored:
            answer = Refused(f"{answer.reason} (these are the options of the last start; choose anew)", answer.kind)
        raise RefusedRequest(answer)
    over = pending.start(user, server, answer.decision.size)
    try:
        yield
    finally:
        spawner = dict(user.spawners).get(server)
        start = spawner._spawn_future if spawner is not None else None
        if start is None or start.done():
            over()
        else:
            # JupyterHub stops waiting before a slow start has come as far as the spawner.
            start.add_done_callback(lambda _: over())


def _encoded(fields: dict[str, list[str]]) -> dict[str, list[bytes]]:
    return {name: [value.encode() for value in values] for name, values in fields.items()}
