"""The settings of a login with OpenID Connect: read from the environment once, and given to JupyterHub."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

ISSUER = "OIDC_ISSUER"
ENDPOINTS = ("OIDC_AUTHORIZE_URL", "OIDC_TOKEN_URL", "OIDC_USERINFO_URL")
CLIENT_ID = "OIDC_CLIENT_ID"
CLIENT_SECRET = "OIDC_CLIENT_SECRET"  # noqa: S105  the variable's name
CALLBACK_URL = "OIDC_CALLBACK_URL"
USERNAME_CLAIM = "OIDC_USERNAME_CLAIM"
GROUPS_KEY = "OIDC_GROUPS_KEY"
SCOPE = "OIDC_SCOPE"
REFRESH_AGE = "OIDC_REFRESH_AGE_S"
LOGIN_SERVICE = "OIDC_LOGIN_SERVICE"
CRYPT_KEY = "JUPYTERHUB_CRYPT_KEY"

_SECRETS = (CLIENT_SECRET, CRYPT_KEY)
_LONGEST_REFRESH_AGE_S = 86_400


class SettingsError(Exception):
    """The environment does not say how to log in. ``problems`` has all of them, each with its variable."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


@dataclass(frozen=True, kw_only=True)
class Oidc:
    """How to log in. Either ``issuer``, whose discovery document has the addresses, or the three addresses."""

    client_id: str
    client_secret: str = field(repr=False)
    callback_url: str
    """The hub's `…/hub/oauth_callback`, as the provider knows it."""

    issuer: str = ""
    authorize_url: str = ""
    token_url: str = ""
    userinfo_url: str = ""
    username_claim: str = "preferred_username"
    groups_key: str = "oauth_user.groups"
    """Where the groups are: `oauth_user` is the answer of the userinfo endpoint."""

    scope: tuple[str, ...] = ("openid", "profile", "email", "offline_access")
    """With Authentik, `profile` has the groups, and `offline_access` the refresh token."""

    refresh_age_s: int = 300
    """The age at which groups are asked for again, and at which unconfirmed ones yield no GPUs."""

    login_service: str = "your organisation"
    """What the button says."""

    crypt_keys: tuple[str, ...] = field(default=(), repr=False)
    """What tokens are encrypted with in the hub's database; the first encrypts, all decrypt."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], *, callback_url: str = "") -> Oidc:
        """The settings in ``environ``; an empty variable counts as none. Raises ``SettingsError`` with all problems."""
        given = {name: value for name, value in environ.items() if value}
        problems = [f"{name} is missing" for name in (CLIENT_ID, CLIENT_SECRET) if name not in given]
        if ISSUER not in given and any(name not in given for name in ENDPOINTS):
            problems.append(f"{ISSUER} is missing, or all of {', '.join(ENDPOINTS)}")
        callback_url = given.get(CALLBACK_URL, callback_url)
        if not callback_url:
            problems.append(f"{CALLBACK_URL} is missing")
        for name in (ISSUER, *ENDPOINTS, CALLBACK_URL):
            problem = address_problem(given[name]) if name in given else None
            if problem:
                problems.append(f"{name} {problem}")
        age = given.get(REFRESH_AGE, str(cls.refresh_age_s))
        if not age.isdecimal() or not 0 < int(age[:9]) <= _LONGEST_REFRESH_AGE_S:
            problems.append(f"{REFRESH_AGE} must be a number of seconds from 1 to {_LONGEST_REFRESH_AGE_S}")
        scope = tuple(given.get(SCOPE, " ".join(cls.scope)).split())
        if "openid" not in scope:
            problems.append(f"{SCOPE} must contain openid")
        keys = tuple(key for key in given.get(CRYPT_KEY, "").split(";") if key.strip())
        if not all(_is_crypt_key(key) for key in keys):
            problems.append(f"{CRYPT_KEY} must be 32 bytes in hexadecimal (openssl rand -hex 32), or several with ;")
        if problems:
            raise SettingsError(problems)
        return cls(
            client_id=given[CLIENT_ID],
            client_secret=given[CLIENT_SECRET],
            callback_url=callback_url,
            # Whoever gives all addresses wants no other.
            issuer="" if all(name in given for name in ENDPOINTS) else given[ISSUER],
            authorize_url=given.get(ENDPOINTS[0], ""),
            token_url=given.get(ENDPOINTS[1], ""),
            userinfo_url=given.get(ENDPOINTS[2], ""),
            username_claim=given.get(USERNAME_CLAIM, cls.username_claim),
            groups_key=given.get(GROUPS_KEY, cls.groups_key),
            scope=scope,
            refresh_age_s=int(age),
            login_service=given.get(LOGIN_SERVICE, cls.login_service),
            crypt_keys=keys,
        )

    @classmethod
    def take_from(cls, environ: MutableMapping[str, str], *, callback_url: str = "") -> Oidc:
        """As ``from_environ``; the secrets are gone from ``environ`` then, which processes of the hub inherit."""
        settings = cls.from_environ(environ, callback_url=callback_url)
        for name in _SECRETS:
            environ.pop(name, None)
        return settings

    def configure(self, c: Any, policy_file: str) -> None:
        """``c``, JupyterHub's configuration, logs in with these settings."""
        c.JupyterHub.authenticator_class = "hub.login.OidcAuthenticator"
        login = c.OidcAuthenticator
        login.policy_file = policy_file
        login.issuer = self.issuer
        login.client_id, login.client_secret = self.client_id, self.client_secret
        login.oauth_callback_url = self.callback_url
        login.authorize_url, login.token_url, login.userdata_url = self.authorize_url, self.token_url, self.userinfo_url
        login.username_claim = self.username_claim
        login.manage_groups = True
        login.auth_state_groups_key = self.groups_key
        login.scope = list(self.scope)
        login.auth_refresh_age = self.refresh_age_s
        login.login_service = self.login_service
        if self.crypt_keys:
            c.CryptKeeper.keys = list(self.crypt_keys)


def address_problem(address: str) -> str | None:
    """Why ``address`` is no address of a provider; ``None`` if it is one."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return "is not an address"
    if parts.scheme not in ("https", "http") or not parts.hostname or port == 0 or not address.isascii():
        return "must be an address like https://auth.example.org/…"
    return "must not contain spaces or control characters" if " " in address or not address.isprintable() else None


def kept_crypt_key(path: str) -> str:
    """The key in the file at ``path``, made if there is none, and readable for this account alone.

    Raises ``SettingsError`` when the file is there and holds none: with another key everybody must log in again.
    """
    try:
        with open(path, encoding="ascii") as file:
            key = file.read(1024)
    except FileNotFoundError:
        return _made_crypt_key(path)
    except (OSError, ValueError) as error:
        raise SettingsError([f"{path} cannot be read: {error}"]) from error
    if not _is_crypt_key(key):
        raise SettingsError([f"{path} holds no key; remove it to have a new one made: everybody logs in again then"])
    return key


def _made_crypt_key(path: str) -> str:
    key, temporary = secrets.token_hex(32), f"{path}.{os.getpid()}"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except OSError as error:
        raise SettingsError([f"{path} cannot be written: {error.strerror}"]) from error
    return key


def _is_crypt_key(key: str) -> bool:
    """Whether JupyterHub takes ``key``: 32 bytes in hexadecimal or base64."""
    try:
        decoded = bytes.fromhex(key) if len(key) == 64 else base64.urlsafe_b64decode(key.encode("ascii"))
    except (ValueError, binascii.Error):
        return False
    return len(decoded) == 32
