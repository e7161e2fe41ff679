"""Logging in with an OpenID Connect provider such as Authentik: who somebody is, and in which groups, now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from http.client import responses
from typing import Any
from urllib.parse import urlencode

from oauthenticator.generic import GenericOAuthenticator
from oauthenticator.oauth2 import OAuthCallbackHandler, OAuthLoginHandler
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.web import HTTPError
from traitlets import Float, Unicode, default

from hub.claims import Claims, Malformed, read_claims, user_name_problem
from hub.freshness import Freshness
from hub.gate import gate_routes
from hub.groups import is_admin, may_log_in
from hub.name_owners import record_subject, subject_of
from hub.policy import Policy
from hub.policy_file import SHIPPED, load_policy
from hub.provider import LONGEST_ANSWER_BYTES, Declined, Unavailable, ask, discover
from hub.text import quoted, visible

_ASK_THE_ADMINISTRATOR = "please contact your administrator"
_ALWAYS = ("manage_groups", "enable_auth_state", "refresh_pre_spawn", "auth_refresh_strict", "any_allow_config")
"""What the promises rest on: no setting turns it off. JupyterHub 5 has no ``auth_refresh_strict``, and is so anyway."""

_log = logging.getLogger("hub.login")


class RefusedLogin(HTTPError):
    """Nobody is logged in: a page with one readable line, and one line in the log."""

    def __init__(self, reason: str, *, status: int = 403, hint: str = "") -> None:
        # Without a message for tornado's log: that line would have the address with the code in it.
        super().__init__(status, reason=responses[status])
        self.jupyterhub_message = reason
        self.for_log = f"{reason}; {hint}" if hint else reason


class LoginHandler(OAuthLoginHandler):  # type: ignore[misc]  # oauthenticator has no type information
    """Sends the browser to the provider."""

    async def get(self) -> None:
        try:
            # Each time: a page of ours says it better than the browser that the provider is down.
            await self.authenticator.find_endpoints(again=True)
        except Unavailable as error:
            refusal = _no_provider(error)
            _log.warning("no login: %s", refusal.for_log)
            raise refusal from error
        super().get()

    def _get_next_url(self) -> str | None:
        try:
            address: str | None = super()._get_next_url()
        except ValueError:  # no address at all
            return None
        return address


class CallbackHandler(OAuthCallbackHandler):  # type: ignore[misc]
    """Takes the browser back from the provider."""

    def check_arguments(self) -> None:
        """Raises ``RefusedLogin``. What stands in the address can be anything."""
        try:
            super().check_arguments()
        except RefusedLogin:
            raise
        except HTTPError as error:
            raise RefusedLogin(visible(error.log_message or "this is no login", limit=300), status=400) from error
        except (ValueError, AttributeError) as error:  # a state that was not made here
            raise RefusedLogin("this login was not begun here; try again", status=400) from error


class OidcAuthenticator(GenericOAuthenticator):  # type: ignore[misc]
    """At every login and refresh the provider says which groups, and the policy what follows: the right to log in, the
    admin panel, the profiles.

    While the provider does not answer, whoever is logged in stays so, with the groups known last; ``groups_in_doubt``
    then keeps the GPUs from them.
    """

    login_handler = LoginHandler
    callback_handler = CallbackHandler

    authorize_url: str
    token_url: str
    userdata_url: str
    basic_auth: bool

    policy_file = Unicode(SHIPPED, config=True, help="The policy file; the shipped one by default.")
    issuer = Unicode(config=True, help="Where the provider's discovery document is; or set the three addresses.")
    timeout_s = Float(5.0, config=True, help="The longest that the provider may take for one answer.")

    def __init__(self, **kwargs: Any) -> None:
        here = {name: True for name in _ALWAYS if name in type(self).class_trait_names()}
        super().__init__(**{**kwargs, **here})
        self._freshness = Freshness()
        self._refreshing: dict[str, asyncio.Task[dict[str, Any] | bool]] = {}
        if self.auth_refresh_age <= 0:
            raise ValueError("auth_refresh_age must be more than 0: groups would never be asked for again")

    @default("manage_groups")
    def _groups_are_managed(self) -> bool:
        return True  # some settings ask for it before __init__ is through

    @default("basic_auth")
    def _client_secret_basic(self) -> bool:
        return True  # what every provider must take (RFC 6749, 2.3.1), unless its discovery document says otherwise

    @default("auth_state_groups_key")
    def _groups_key(self) -> str:
        return "oauth_user.groups"

    @default("username_claim")
    def _name_claim(self) -> str:
        return "preferred_username"

    @default("scope")
    def _scope(self) -> list[str]:
        return ["openid", "profile", "email", "offline_access"]

    @default("http_client")
    def _own_client(self) -> AsyncHTTPClient:
        # Of its own: the limits are for the provider alone.
        return AsyncHTTPClient(force_instance=True, max_clients=100, max_body_size=LONGEST_ANSWER_BYTES)

    @default("http_request_kwargs")
    def _limits(self) -> dict[str, Any]:
        # A redirect would carry the token to wherever it leads.
        return {"connect_timeout": self.timeout_s, "request_timeout": self.timeout_s, "follow_redirects": False}

    @property
    def policy(self) -> Policy:
        return load_policy(self.policy_file)

    def get_handlers(self, app: Any) -> list[tuple[Any, ...]]:
        return [*gate_routes(self.policy), *super().get_handlers(app)]

    def groups_in_doubt(self, user_name: str) -> str | None:
        """Why this user cannot have GPUs now; ``None`` if their groups are confirmed."""
        return self._freshness.doubt(user_name, longest_s=self.auth_refresh_age)

    def subject_of(self, user: Any) -> str:
        """The ``sub`` of whoever ``user`` belongs to, which never changes; empty for somebody who never logged in."""
        owner = subject_of(user.db, user.name)
        return owner[0] if owner else ""

    # Talking to the provider

    async def find_endpoints(self, *, again: bool = False) -> None:
        """The three addresses are known; with ``again``, as the provider says now. Raises ``Unavailable``."""
        known = self.authorize_url and self.token_url and self.userdata_url
        if known and not (again and self.issuer):
            return
        found = await discover(self.http_client, self.issuer, timeout_s=self.timeout_s)
        self.authorize_url, self.token_url, self.userdata_url = found.authorize_url, found.token_url, found.userinfo_url
        self.basic_auth = self.basic_auth and found.basic_auth

    async def fetch(self, req: HTTPRequest, label: str = "", parse_json: bool = True, **_: Any) -> object:  # noqa: ARG002
        """As oauthenticator's, which lets every kind of failure through and logs the provider's whole answer."""
        return await ask(self.http_client, req)

    async def get_token_info(self, handler: Any, params: Mapping[str, str]) -> dict[str, Any]:  # noqa: ARG002
        """What the token endpoint answered, with a token in it. Raises ``Unavailable`` or ``Declined``."""
        await self.find_endpoints()
        answer = await self.httpfetch(
            self.token_url,
            method="POST",
            headers=self.build_token_info_request_headers(),
            body=urlencode(params).encode(),
            validate_cert=self.validate_server_cert,
        )
        token = answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise Unavailable("its answer holds no access token")
        refresh = answer.get("refresh_token") or ""
        if not isinstance(refresh, str) or not refresh.isascii() or not refresh.isprintable():
            raise Unavailable("its answer holds a refresh token that is none")
        return {**answer, "token_type": "Bearer"}  # the only type that OpenID Connect knows (Core 1.0, 3.1.3.3)

    # Logging in

    async def get_authenticated_user(self, handler: Any, data: Any) -> dict[str, Any] | None:
        """As JupyterHub's, with one line in the log for a refusal."""
        try:
            model: dict[str, Any] | None = await super().get_authenticated_user(handler, data)
        except RefusedLogin as refusal:
            _log.warning("login refused: %s", refusal.for_log)
            raise
        return model

    async def authenticate(self, handler: Any, data: Any = None, **_: Any) -> dict[str, Any]:
        """Who came back from the provider. Raises ``RefusedLogin``."""
        try:
            token = await self.get_token_info(handler, self.build_access_tokens_request_params(handler, data))
            return await self._member(token)
        except Unavailable as error:
            raise _no_provider(error) from error
        except Declined as error:
            if error.error == "invalid_client":
                reason = "the identity provider does not accept this hub"
                raise RefusedLogin(reason, status=503, hint="check the client id and the secret") from error
            raise RefusedLogin("the identity provider did not accept this login; try again", hint=str(error)) from error

    async def check_allowed(self, username: str, auth_model: dict[str, Any] | None) -> bool:
        """The policy's login rule, and nothing else. Raises ``RefusedLogin``."""
        if auth_model is not None and not may_log_in(auth_model["groups"], self.policy):
            raise _refused(username, "is in none of the groups that may log in here")
        return True

    async def run_post_auth_hook(self, handler: Any, auth_model: dict[str, Any]) -> dict[str, Any]:
        """The last step of a login: the name belongs to this person. Raises ``RefusedLogin``."""
        name, subject = auth_model["name"], auth_model["auth_state"]["sub"]
        self._check_owner(handler.db, name, subject)
        record_subject(handler.db, name, subject)
        self._freshness.confirmed(name)
        model: dict[str, Any] = await super().run_post_auth_hook(handler, auth_model)
        return model

    async def _member(self, token: dict[str, Any]) -> dict[str, Any]:
        """The user that ``token`` is for, as JupyterHub wants it. Raises ``RefusedLogin`` for claims of no use."""
        await self.find_endpoints()
        info = await self.token_to_user(token)
        state = self.build_auth_state_dict(token, info)
        claims = read_claims(
            state,
            user_key=self.user_auth_state_key,
            name_claim=self.username_claim,
            groups_key=self.auth_state_groups_key,
        )
        if isinstance(claims, Malformed):
            raise RefusedLogin(f"{claims.reason}; {_ASK_THE_ADMINISTRATOR}")
        name = str(self.normalize_username(claims.name))
        problem = user_name_problem(name)
        if problem:
            raise RefusedLogin(f"{problem}; {_ASK_THE_ADMINISTRATOR}")
        self._tell_about_groups(name, claims)
        return {
            "name": name,
            "admin": name in self.admin_users or is_admin(claims.groups, self.policy),
            "groups": list(claims.groups),
            "auth_state": {**state, "sub": claims.subject},
        }

    def _tell_about_groups(self, name: str, claims: Claims) -> None:
        if not claims.groups_sent:
            _log.warning("%s: the identity provider sent no %s: no groups", name, visible(self.auth_state_groups_key))
        if claims.left_out:
            _log.warning("%s: %d groups were left out: their names cannot be shown", name, claims.left_out)

    def _check_owner(self, db: Any, name: str, subject: str) -> None:
        owner = subject_of(db, name)
        if owner is not None and owner[0] != subject:
            raise RefusedLogin(
                f"the user name {quoted(name)} belongs to somebody else here; {_ASK_THE_ADMINISTRATOR}",
                hint=f"since {owner[1]}; `jupyterhub-sidecar identity release` frees it",
            )

    # Asking again

    async def refresh_user(self, user: Any, handler: Any = None, **_: Any) -> dict[str, Any] | bool:
        """The user as the provider says now; ``True`` while it does not answer; ``False`` if they must log in again.

        Requests of one user that come together ask once: a provider may take a refresh token only once.
        """
        if handler is not None and not hasattr(handler, "_token_authenticated"):
            # JupyterHub 6.1 asks for it after a False, and sets it only where a token came with the request.
            handler._token_authenticated = False
        running = self._refreshing.get(user.name)
        if running is None:
            running = asyncio.ensure_future(self._refresh(user))
            self._refreshing[user.name] = running
            running.add_done_callback(lambda _: self._refreshing.pop(user.name, None))
        answer = await asyncio.shield(running)
        return dict(answer) if isinstance(answer, dict) else answer

    async def _refresh(self, user: Any) -> dict[str, Any] | bool:
        """As ``refresh_user``. Whatever it raises leaves the groups in doubt."""
        name = user.name
        try:
            member = await self._confirmed(user)
            # Before anybody asks again, who would use the same refresh token a second time.
            await user.save_auth_state(member["auth_state"])
        except Unavailable as error:
            self._freshness.failed(name, str(error))
            _log.warning("%s: groups not confirmed, so no GPUs: %s", name, error)
            return True
        except (Declined, RefusedLogin) as error:
            self._freshness.failed(name, error.jupyterhub_message if isinstance(error, RefusedLogin) else str(error))
            told = error.for_log if isinstance(error, RefusedLogin) else str(error)
            _log.warning("%s must log in again: %s", name, told)
            return False
        except Exception:
            self._freshness.failed(name, "the hub failed over it; its log has the reason")
            raise
        self._freshness.confirmed(name)
        return member

    async def _confirmed(self, user: Any) -> dict[str, Any]:
        """``user`` as the provider says now. Raises like ``_renewed``, and ``RefusedLogin`` for whoever may not be
        here."""
        name, state = user.name, await user.get_auth_state() or {}
        if state:
            # First: a provider that is down would leave a login to whom the name does not belong any more.
            self._check_owner(user.db, name, str(state.get("sub")))
        member = await self._renewed(state)
        self._check_owner(user.db, name, member["auth_state"]["sub"])
        if member["name"] != name:
            raise _refused(name, f"is called {quoted(member['name'])} by the identity provider now")
        if not self.check_blocked_users(name, member):
            raise _refused(name, "is blocked")
        await self.check_allowed(name, member)
        return member

    async def _renewed(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The user again, with the tokens of the last time. Raises like ``_member``, and ``Declined`` when they are
        not accepted any more."""
        token, refresh_token = state.get("token_response"), state.get("refresh_token")
        if isinstance(token, dict):
            try:
                return await self._member(token)
            except Declined:
                if not refresh_token:
                    raise
        if not refresh_token:
            raise RefusedLogin("nothing is stored to ask the identity provider with")
        try:
            renewed = await self.get_token_info(None, self.build_refresh_token_request_params(refresh_token))
        except Declined as error:
            if error.error == "invalid_grant":
                raise
            raise Unavailable(str(error)) from error
        return await self._member({**renewed, "refresh_token": renewed.get("refresh_token") or refresh_token})

    async def delete_user(self, user: Any) -> None:
        """JupyterHub's user is gone. Whose name it is stays on record, as what is on Persist stays."""
        self._freshness.forget(user.name)


def _refused(name: str, why: str) -> RefusedLogin:
    return RefusedLogin(f"{quoted(name)} {why}; {_ASK_THE_ADMINISTRATOR}")


def _no_provider(error: Unavailable) -> RefusedLogin:
    return RefusedLogin("the identity provider does not answer; try again in a moment", status=503, hint=str(error))
