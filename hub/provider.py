"""Talking to an identity provider over HTTP: what it answers, or one of two readable failures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.iostream import UnsatisfiableReadError

from hub.oidc import address_problem
from hub.text import quoted, visible

LONGEST_ANSWER_BYTES = 4 << 20
_NO_ANSWER = 599  # tornado's code for a connection that was closed or a time that ran out
_REFUSALS = frozenset({400, 401, 403})
_DISCOVERY = "/.well-known/openid-configuration"


class Unavailable(Exception):
    """The provider cannot be reached, or its answer cannot be used. It has said nothing about the user."""


class Declined(Exception):
    """The provider does not accept what it was shown. ``error`` is OAuth's code for why, where there is one."""

    def __init__(self, status: int, error: str) -> None:
        self.error = error
        super().__init__(f"the identity provider answered HTTP {status}" + (f" {visible(error)}" if error else ""))


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """Addresses of a provider."""

    authorize_url: str
    token_url: str
    userinfo_url: str
    basic_auth: bool
    """Whether the client's secret may be sent as ``client_secret_basic``; if not, ``client_secret_post``."""


async def ask(client: AsyncHTTPClient, request: HTTPRequest) -> object:
    """The JSON value that was answered. Raises ``Unavailable`` or ``Declined``."""
    try:
        answer = await client.fetch(request)
    except HTTPClientError as error:
        if error.code in _REFUSALS:
            raise Declined(error.code, _oauth_error(error)) from error
        told = visible(str(error.message or "no answer")) if error.code == _NO_ANSWER else f"HTTP {error.code}"
        raise Unavailable(told) from error
    except UnsatisfiableReadError as error:
        raise Unavailable("the head of its answer is too long") from error
    except (OSError, ValueError) as error:
        strerror = getattr(error, "strerror", None)
        raise Unavailable(visible(str(strerror or error) or type(error).__name__)) from error
    return _json(answer.body)


async def discover(client: AsyncHTTPClient, issuer: str, *, timeout_s: float) -> Endpoints:
    """The endpoints in the document of ``issuer`` (OpenID Connect Discovery 1.0, section 4). Raises ``Unavailable``."""
    url = issuer.rstrip("/") + _DISCOVERY
    request = HTTPRequest(url, connect_timeout=timeout_s, request_timeout=timeout_s, follow_redirects=False)
    try:
        document = await ask(client, request)
    except Declined as error:
        raise Unavailable(f"{error} to {url}") from error
    if not isinstance(document, Mapping):
        raise Unavailable(f"what is at {url} is no OpenID configuration")
    told = document.get("issuer")
    # A slash more or less at the end is the usual slip, and no other issuer.
    if not isinstance(told, str) or told.rstrip("/") != issuer.rstrip("/"):
        shown = quoted(told) if isinstance(told, str) else "nobody"
        raise Unavailable(f"what is at {url} is the configuration of {shown}")
    found = {}
    for key in ("authorization_endpoint", "token_endpoint", "userinfo_endpoint"):
        value = document.get(key)
        if not isinstance(value, str) or address_problem(value):
            raise Unavailable(f"what is at {url} has no usable {key}")
        found[key] = value
    return Endpoints(
        authorize_url=found["authorization_endpoint"],
        token_url=found["token_endpoint"],
        userinfo_url=found["userinfo_endpoint"],
        basic_auth="client_secret_basic" in _methods(document),
    )


def _methods(document: Mapping[object, object]) -> list[object]:
    methods = document.get("token_endpoint_auth_methods_supported")
    return methods if isinstance(methods, list) and methods else ["client_secret_basic"]


def _oauth_error(error: HTTPClientError) -> str:
    """The ``error`` of RFC 6749, section 5.2."""
    try:
        answer = _json(error.response.body if error.response is not None else b"")
    except Unavailable:
        return ""
    code = answer.get("error") if isinstance(answer, Mapping) else None
    return code if isinstance(code, str) else ""


def _json(body: bytes) -> object:
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unavailable("its answer is not JSON") from error
    return value
