"""The authenticator with a provider that answers what each test says, on both lines of JupyterHub."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from tornado.httpclient import HTTPClientError, HTTPRequest, HTTPResponse
from traitlets.config import Config

from hub.login import OidcAuthenticator, RefusedLogin
from hub.oidc import Oidc

ISSUER = "https://auth.example.org/application/o/jupyterhub/"
INFO: dict[str, Any] = {"sub": "1f", "preferred_username": "Mia", "groups": ["cpsHPCAccess", "staff"]}
DOWN = ConnectionRefusedError(111, "Connection refused")
EXPIRED = (401, {"error": "invalid_token"})

Answer = tuple[int, Any] | Exception


class Provider:
    """What stands in for the HTTP client: the last answer of each endpoint stays."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {
            "openid-configuration": [(200, self.configuration())],
            "token": [(200, {"access_token": "a1", "token_type": "bearer", "refresh_token": "r1"})],
            "userinfo": [(200, INFO)],
        }
        self.asked: list[str] = []
        self.requests: list[HTTPRequest] = []

    @staticmethod
    def configuration(**other: Any) -> dict[str, Any]:
        base = "https://auth.example.org/application/o"
        return {
            "issuer": ISSUER,
            "authorization_endpoint": f"{base}/authorize",
            "token_endpoint": f"{base}/token",
            "userinfo_endpoint": f"{base}/userinfo",
            **other,
        }

    def says(self, endpoint: str, *answers: Answer) -> None:
        self.answers[endpoint] = list(answers)

    def user(self, **claims: Any) -> None:
        self.says("userinfo", (200, {**INFO, **claims}))

    async def fetch(self, request: HTTPRequest) -> HTTPResponse:
        endpoint = request.url.rsplit("/", 1)[1]
        self.asked.append(endpoint)
        self.requests.append(request)
        await asyncio.sleep(0)
        answers = self.answers[endpoint]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        status, document = answer
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        response = HTTPResponse(request, status, buffer=BytesIO(body))
        if status != 200:
            raise HTTPClientError(status, response=response)
        return response


class User:
    """As much of a hub's user as a refresh asks for."""

    def __init__(self, name: str, db: Session, state: dict[str, Any] | None) -> None:
        self.name = name
        self.db = db
        self.state = state

    async def get_auth_state(self) -> dict[str, Any] | None:
        await asyncio.sleep(0)
        return self.state

    async def save_auth_state(self, state: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        self.state = state


class Scene:
    def __init__(self, directory: Path, **settings: Any) -> None:
        self.provider = Provider()
        self.db = Session(create_engine(f"sqlite:///{directory}/hub.sqlite"))
        c = Config()
        oidc = Oidc(client_id="hub", client_secret="s", callback_url="https://hub/hub/oauth_callback", issuer=ISSUER)
        oidc.configure(c, settings.pop("policy_file", str(Path(__file__).parents[3] / "hub" / "policy.yaml")))
        c.OidcAuthenticator.update(settings)
        self.login = OidcAuthenticator(config=c, http_client=self.provider)

    async def log_in(self) -> dict[str, Any] | None:
        handler = SimpleNamespace(
            db=self.db,
            get_argument=lambda _name: "the code",
            get_state_cookie=lambda: "eyJjb2RlX3ZlcmlmaWVyIjogInYifQ==",  # {"code_verifier": "v"}
        )
        model: dict[str, Any] | None = await self.login.get_authenticated_user(handler, None)
        return model

    async def member(self) -> User:
        model = await self.log_in()
        assert model is not None
        return User(model["name"], self.db, model["auth_state"])


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def run(body: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(body, 30))


def refusal(body: Callable[[], Coroutine[Any, Any, Any]]) -> RefusedLogin:
    with pytest.raises(RefusedLogin) as caught:
        asyncio.run(asyncio.wait_for(body(), 30))
    assert caught.value.jupyterhub_message.isprintable()
    return caught.value


def test_a_login_brings_name_groups_and_rights(scene: Scene) -> None:
    async def body() -> None:
        model = await scene.log_in()
        assert model is not None
        assert (model["name"], model["groups"], model["admin"]) == ("mia", ["cpsHPCAccess", "staff"], False)
        assert scene.login.groups_in_doubt("mia") is None
        scene.provider.user(groups=["jupyter_admin"])
        model = await scene.log_in()
        assert model is not None
        assert model["admin"] is True

    run(body())


def test_what_the_promises_rest_on_cannot_be_switched_off(tmp_path: Path) -> None:
    login = Scene(tmp_path, enable_auth_state=False, refresh_pre_spawn=False).login
    assert login.enable_auth_state
    assert login.refresh_pre_spawn
    assert login.manage_groups
    assert login.enable_pkce
    assert getattr(login, "auth_refresh_strict", True)
    with pytest.raises(ValueError, match="auth_refresh_age"):
        Scene(tmp_path, auth_refresh_age=0)


def test_the_code_is_redeemed_with_pkce_and_the_secret_in_the_header(scene: Scene) -> None:
    run_and_forget(scene.log_in())
    request = scene.provider.requests[scene.provider.asked.index("token")]
    assert b"code_verifier=v" in request.body
    assert b"client_secret" not in request.body
    assert request.headers["Authorization"] == "Basic aHViOnM="
    assert request.follow_redirects is False


def test_a_provider_that_wants_the_secret_in_the_body_gets_it_there(scene: Scene) -> None:
    methods = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    scene.provider.says("openid-configuration", (200, Provider.configuration(**methods)))

    async def body() -> None:
        await scene.login.find_endpoints(again=True)
        await scene.log_in()

    run(body())
    assert b"client_secret=s" in scene.provider.requests[-2].body


def run_and_forget(body: Coroutine[Any, Any, Any]) -> None:
    async def whole() -> None:
        await body

    run(whole())


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"groups": "cpsHPCAccess"}, "sent a string as groups"),
        ({"groups": ["a", 1]}, "among the groups"),
        ({"preferred_username": "../x"}, "'../x'"),
        ({"preferred_username": ""}, "is empty"),
        ({"sub": None}, "sub"),
    ],
)
def test_claims_of_another_kind_are_a_refusal_and_one_line_in_the_log(
    scene: Scene, claims: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    scene.provider.user(**claims)
    with caplog.at_level(logging.WARNING):
        refused = refusal(scene.log_in)
    assert refused.status_code == 403
    assert said in refused.jupyterhub_message
    assert [record.getMessage().startswith("login refused: ") for record in caplog.records] == [True]


@pytest.mark.parametrize(
    ("endpoint", "answer"),
    [
        ("openid-configuration", DOWN),
        ("openid-configuration", (200, b"<html>")),
        ("openid-configuration", (200, [])),
        ("openid-configuration", (200, Provider.configuration(issuer="https://evil.example.org/"))),
        ("openid-configuration", (200, Provider.configuration(token_endpoint="javascript:alert(1)"))),
        ("openid-configuration", (200, b"[" * 100_000)),
        ("token", DOWN),
        ("token", (502, b"Bad gateway")),
        ("token", (301, b"")),
        ("token", (200, b"null")),
        ("token", (200, {"access_token": ["x"]})),
        ("token", (200, {"access_token": "a\r\nX: 1"})),
        ("token", (200, {"access_token": "a1", "refresh_token": 7})),
        ("token", (200, {"access_token": "a1", "refresh_token": ["r1"]})),
        ("token", (200, {"access_token": "a1", "refresh_token": "r\ud800"})),
        ("token", (401, {"error": "invalid_client"})),
        ("userinfo", DOWN),
        ("userinfo", HTTPClientError(599, "Timeout while connecting")),
    ],
)
def test_without_a_usable_answer_nobody_logs_in_and_a_page_says_so(scene: Scene, endpoint: str, answer: Answer) -> None:
    scene.provider.says(endpoint, answer)
    assert refusal(scene.log_in).status_code == 503


def test_a_code_of_somebody_else_is_a_refusal(scene: Scene) -> None:
    scene.provider.says("token", (400, {"error": "invalid_grant"}))
    assert refusal(scene.log_in).status_code == 403


def test_a_group_lost_is_lost_at_the_refresh_and_the_admin_panel_with_it(scene: Scene) -> None:
    async def body() -> None:
        scene.provider.user(groups=["jupyter_admin", "cpsHPCAccess"])
        user = await scene.member()
        scene.provider.user(groups=["staff"])
        model = await scene.login.refresh_user(user)
        assert isinstance(model, dict)
        assert (model["groups"], model["admin"]) == (["staff"], False)
        assert scene.login.groups_in_doubt("mia") is None

    run(body())


def test_while_the_provider_is_down_the_login_stays_and_the_groups_are_in_doubt(scene: Scene) -> None:
    async def body() -> None:
        user = await scene.member()
        for answer in (DOWN, (503, b""), (200, b"<html>"), HTTPClientError(599, "Timeout")):
            scene.provider.says("userinfo", answer)
            assert await scene.login.refresh_user(user) is True
            assert "could not be confirmed" in str(scene.login.groups_in_doubt("mia"))
            scene.provider.user()
            assert isinstance(await scene.login.refresh_user(user), dict)
            assert scene.login.groups_in_doubt("mia") is None

    run(body())


def test_an_expired_token_is_renewed_and_both_tokens_are_kept(scene: Scene) -> None:
    async def body() -> None:
        user = await scene.member()
        scene.provider.says("userinfo", EXPIRED, (200, INFO))
        scene.provider.says("token", (200, {"access_token": "a2"}))
        assert isinstance(await scene.login.refresh_user(user), dict)
        assert user.state is not None
        assert (user.state["access_token"], user.state["refresh_token"]) == ("a2", "r1")
        scene.provider.says("userinfo", EXPIRED, (200, INFO))
        scene.provider.says("token", (200, {"access_token": "a3", "refresh_token": "r3"}))
        assert isinstance(await scene.login.refresh_user(user), dict)
        assert (user.state["access_token"], user.state["refresh_token"]) == ("a3", "r3")

    run(body())


def test_requests_that_come_together_use_a_refresh_token_once(scene: Scene) -> None:
    async def body() -> None:
        user = await scene.member()
        scene.provider.says("userinfo", EXPIRED, (200, INFO))
        scene.provider.asked.clear()
        models = await asyncio.gather(*(scene.login.refresh_user(user) for _ in range(20)))
        assert scene.provider.asked == ["userinfo", "token", "userinfo"]
        assert all(isinstance(model, dict) for model in models)
        assert len({id(model) for model in models}) == 20, "JupyterHub writes into what it gets"

    run(body())


@pytest.mark.parametrize(
    ("token", "answer"),
    [
        ((400, {"error": "invalid_grant"}), False),
        ((401, {"error": "invalid_client"}), True),  # the hub's own trouble, not the user's
        ((403, b"<html>blocked"), True),
        ((500, b""), True),
        (DOWN, True),
    ],
)
def test_only_a_refused_refresh_token_ends_a_login(scene: Scene, token: Answer, answer: bool) -> None:
    async def body() -> None:
        user = await scene.member()
        scene.provider.says("userinfo", EXPIRED)
        scene.provider.says("token", token)
        assert await scene.login.refresh_user(user) is answer
        assert scene.login.groups_in_doubt("mia") is not None

    run(body())


@pytest.mark.parametrize(
    "claims",
    [
        {"groups": "cpsHPCAccess"},
        {"groups": None},
        {"sub": "2e"},
        {"preferred_username": "eve"},
        {"preferred_username": 1},
    ],
)
def test_whoever_is_somebody_else_or_malformed_at_a_refresh_must_log_in_again(
    scene: Scene, claims: dict[str, Any]
) -> None:
    async def body() -> None:
        user = await scene.member()
        scene.provider.user(**claims)
        assert await scene.login.refresh_user(user) is False
        assert scene.login.groups_in_doubt("mia") is not None

    run(body())


def test_a_login_of_a_name_that_is_somebody_elses_now_ends_though_the_provider_is_down(scene: Scene) -> None:
    async def body() -> None:
        user = await scene.member()
        assert user.state is not None
        user.state["sub"] = "2e"
        scene.provider.says("userinfo", DOWN)
        scene.provider.asked.clear()
        assert await scene.login.refresh_user(user) is False
        assert scene.provider.asked == []
        assert "belongs to somebody else" in str(scene.login.groups_in_doubt("mia"))

    run(body())


def test_a_refresh_that_breaks_leaves_the_groups_in_doubt(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        user = await scene.member()
        assert scene.login.groups_in_doubt("mia") is None

        async def broken() -> None:
            raise OSError(5, "the database is gone")

        for name in ("get_auth_state", "save_auth_state"):
            with monkeypatch.context() as patch:
                patch.setattr(user, name, lambda *_: broken())
                with pytest.raises(OSError, match="database is gone"):
                    await scene.login.refresh_user(user)
            assert "could not be confirmed" in str(scene.login.groups_in_doubt("mia"))
            assert isinstance(await scene.login.refresh_user(user), dict)
            assert scene.login.groups_in_doubt("mia") is None

    run(body())


def test_without_stored_tokens_a_login_is_needed(scene: Scene) -> None:
    async def body() -> None:
        for state in (None, {}, {"token_response": "x"}):
            assert await scene.login.refresh_user(User("mia", scene.db, state)) is False

    run(body())


def test_the_login_rule_holds_at_the_login_and_at_every_refresh(tmp_path: Path) -> None:
    policy = (Path(__file__).parents[3] / "hub" / "policy.yaml").read_text()
    (tmp_path / "policy.yaml").write_text(policy.replace("login: everyone", "login: [cpsHPCAccess]"))
    scene = Scene(tmp_path, policy_file=str(tmp_path / "policy.yaml"))

    async def body() -> None:
        user = await scene.member()
        scene.provider.user(groups=["staff"])
        assert await scene.login.refresh_user(user) is False

    run(body())
    assert "none of the groups that may log in" in refusal(scene.log_in).jupyterhub_message


def test_a_blocked_user_is_out_at_the_next_refresh(scene: Scene) -> None:
    async def body() -> None:
        user = await scene.member()
        scene.login.blocked_users = {"mia"}
        assert await scene.login.refresh_user(user) is False

    run(body())


def test_a_name_that_is_somebody_elses_is_refused_and_stays_so(scene: Scene) -> None:
    async def first() -> None:
        user = await scene.member()
        await scene.login.delete_user(user)

    run(first())
    scene.provider.user(sub="2e")
    assert "belongs to somebody else here" in refusal(scene.log_in).jupyterhub_message


def test_whoever_was_refused_has_taken_no_name(tmp_path: Path) -> None:
    policy = (Path(__file__).parents[3] / "hub" / "policy.yaml").read_text()
    (tmp_path / "policy.yaml").write_text(policy.replace("login: everyone", "login: [cpsHPCAccess]"))
    scene = Scene(tmp_path, policy_file=str(tmp_path / "policy.yaml"))
    scene.provider.user(groups=[])
    refusal(scene.log_in)
    scene.provider.user(sub="2e")
    run_and_forget(scene.log_in())
