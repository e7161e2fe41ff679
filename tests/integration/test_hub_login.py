"""Logins with a real OpenID provider, over HTTP: what it says of somebody is checked, and asked for again."""

from __future__ import annotations

import html
import http.cookiejar
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hub.up import NOTEBOOK_ENVIRONMENT
from tests.e2e.running_hub import RunningHub, eventually
from tests.openid_provider import CHECKOUT, OpenidProvider

REFRESH_AGE_S = 2
HUB5 = CHECKOUT / ".venv-hub5"

pytestmark = pytest.mark.skipif(
    not os.path.exists(os.path.join(NOTEBOOK_ENVIRONMENT, "bin", "jupyterhub-singleuser")),
    reason="needs the notebook environment: make install",
)


@dataclass
class Answer:
    status: int
    url: str
    body: str

    @property
    def text(self) -> str:
        """What a person reads on the page."""
        shown = re.sub(r"<(script|style).*?</\1>", "", self.body, flags=re.S)
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", shown)).split())

    @property
    def message(self) -> str:
        return str(json.loads(self.body)["message"])

    @property
    def profiles(self) -> list[str]:
        return re.findall(r'<input type="radio"[^>]*?value="([^"]*)"', self.body, flags=re.S)


@dataclass
class Visitor:
    """As much of a browser as a login needs."""

    hub: RunningHub
    _jar: http.cookiejar.CookieJar = field(default_factory=http.cookiejar.CookieJar)

    def get(self, path: str) -> Answer:
        return self._open(urllib.request.Request(self.hub.url + path))

    def post(self, path: str, **fields: str) -> Answer:
        data = urllib.parse.urlencode({**fields, "_xsrf": self._xsrf}).encode()
        return self._open(urllib.request.Request(self.hub.url + path, data=data))

    def log_in(self, sub: str) -> Answer:
        """Where somebody comes out whom the provider calls ``sub``."""
        form = self.get("/hub/oauth_login?next=/hub/spawn")
        assert form.status == 200, form.text
        return self._open(urllib.request.Request(form.url, data=urllib.parse.urlencode({"sub": sub}).encode()))

    def token(self, user: str) -> str:
        self.get("/hub/token")
        address = f"{self.hub.url}/hub/api/users/{user}/tokens?_xsrf={urllib.parse.quote(self._xsrf)}"
        made = self._open(urllib.request.Request(address, data=b"{}", headers={"Content-Type": "application/json"}))
        assert made.status == 201, made.body
        return str(json.loads(made.body)["token"])

    @property
    def _xsrf(self) -> str:
        return next(cookie.value or "" for cookie in self._jar if cookie.name == "_xsrf")

    def _open(self, request: urllib.request.Request) -> Answer:
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self._jar))
        return _open(opener, request)


def _open(opener: urllib.request.OpenerDirector, request: urllib.request.Request) -> Answer:
    try:
        with opener.open(request, timeout=60) as reply:
            return Answer(reply.status, reply.url, reply.read().decode())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.url or "", error.read().decode())


@dataclass
class Scene:
    hub: RunningHub
    provider: OpenidProvider

    def member(self, name: str, *groups: str) -> str:
        """A token of somebody who has logged in."""
        visitor = Visitor(self.hub)
        answer = visitor.log_in(self.provider.user(name, *groups))
        assert answer.status == 200, answer.text
        return visitor.token(name)

    def rest(self, token: str, method: str, path: str, body: Any = None) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"token {token}"}
        request = urllib.request.Request(f"{self.hub.url}/hub/api{path}", data=data, method=method, headers=headers)
        return _open(urllib.request.build_opener(), request)

    def start(self, token: str, user: str, profile: str) -> Answer:
        return self.rest(token, "POST", f"/users/{user}/server", {"profile": profile})

    def stop(self, token: str, user: str) -> None:
        def gone() -> bool:
            answer = self.rest(token, "DELETE", f"/users/{user}/server")
            return answer.status in (204, 404) or "" not in json.loads(
                self.rest(token, "GET", f"/users/{user}").body
            ).get("servers", {})

        eventually(f"the server of {user} has stopped", gone, 60)


@pytest.fixture(scope="module", params=["jupyterhub 6", pytest.param("jupyterhub 5", marks=pytest.mark.slow)])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    environment = HUB5 if request.param == "jupyterhub 5" else None
    if environment is not None and not environment.exists():
        pytest.skip("needs jupyterhub 5: make install-test")
    top = tmp_path_factory.mktemp("login")
    # Access tokens live so short that refresh tokens are needed all the time.
    with OpenidProvider(top / "provider", token_max_age_s=1) as provider:
        settings = {**provider.settings, "OIDC_REFRESH_AGE_S": str(REFRESH_AGE_S)}
        hub = RunningHub(top / "data", settings=settings, environment=environment)
        try:
            hub.start()
            yield Scene(hub, provider)
            assert "Traceback" not in hub.log
        finally:
            hub.clean_up()


def test_groups_decide_which_profiles_are_offered(scene: Scene) -> None:
    offered = {}
    for name, groups in (("mia", ("cpsHPCAccess", "staff")), ("ben", ("cpshpcaccess", "staff")), ("eve", ())):
        answer = Visitor(scene.hub).log_in(scene.provider.user(name, *groups))
        assert answer.url.endswith("/hub/spawn")
        offered[name] = answer.profiles
    assert offered == {"mia": ["cpu-basic", "a100-1", "a100-2", "custom"], "ben": ["standard"], "eve": ["standard"]}


HOSTILE: list[tuple[str, dict[str, Any], str]] = [
    ("string", {"groups": "cpsHPCAccess"}, "sent a string as groups, not a list of group names"),
    ("null", {"groups": None}, "sent nothing as groups"),
    ("object", {"groups": {"cpsHPCAccess": True}}, "sent an object as groups"),
    ("number", {"groups": 7}, "sent a number as groups"),
    ("nested", {"groups": ["staff", ["cpsHPCAccess"]]}, "sent a list among the groups"),
    ("ten-thousand", {"groups": [f"g{n}" for n in range(10_000)]}, "sent 10000 groups; 1000 are the most"),
    ("up", {"preferred_username": "../x"}, "the user name '../x' does not begin with a letter or a digit"),
    ("slash", {"preferred_username": "a/b"}, "the user name 'a/b' contains '/'"),
    ("empty", {"preferred_username": ""}, "the user name is empty"),
    ("long", {"preferred_username": "x" * 300}, "the user name has 300 characters"),
    ("html", {"preferred_username": "a<script>alert(1)</script>"}, "'a<script>alert(1)</script>' contains '<'"),
    ("lines", {"preferred_username": "a\nwarning forged"}, "'a\\u000awarning forged' contains"),
    ("list", {"preferred_username": ["mia"]}, "sent a list as preferred_username"),
    ("nobody", {"preferred_username": None}, "sent nothing as preferred_username"),
]


@pytest.mark.parametrize(("who", "claims", "reason"), HOSTILE, ids=[who for who, _, _ in HOSTILE])
def test_claims_of_another_kind_are_refused_with_a_readable_page(
    scene: Scene, who: str, claims: dict[str, Any], reason: str
) -> None:
    scene.provider.user("mia2", "cpsHPCAccess", sub=who, **claims)
    before = len(scene.hub.log)
    visitor = Visitor(scene.hub)
    answer = visitor.log_in(who)
    assert answer.status == 403
    assert reason in answer.text
    assert "<script>alert" not in answer.body
    logged = [line for line in scene.hub.log[before:].splitlines() if "login refused" in line]
    assert len(logged) == 1
    assert logged[0].startswith("20"), "one line, with its date"
    assert "Traceback" not in scene.hub.log[before:]
    assert "/oauth2/authorize" in visitor.get("/hub/oauth_login?next=/hub/spawn").url, "nobody is logged in"


def test_groups_whose_names_cannot_be_shown_are_nobodys(scene: Scene) -> None:
    sub = scene.provider.user("odd", "cpsHPCAccess\n", "\u202ecpsHPCAccess", "", "x" * 300, "<b>bold</b>")
    assert Visitor(scene.hub).log_in(sub).profiles == ["standard"]
    assert "odd: 4 groups were left out" in scene.hub.log


def test_a_group_taken_away_is_gone_at_the_next_start_without_a_login(scene: Scene) -> None:
    visitor = Visitor(scene.hub)
    assert len(visitor.log_in(scene.provider.user("lena", "cpsHPCAccess")).profiles) == 4
    token, admin = visitor.token("lena"), scene.member("root", "jupyter_admin")

    scene.provider.user("lena", "staff")
    for asked_by in (token, admin):
        answer = scene.start(asked_by, "lena", "a100-1")
        assert answer.status == 403
        assert "'a100-1' is not among those offered to lena: standard" in answer.message
    assert visitor.get("/hub/spawn").profiles == ["standard"]
    answer = visitor.post("/hub/spawn", profile="a100-1")
    assert answer.status == 403
    assert "is not among those offered" in answer.text

    scene.provider.user("lena", "cpsHPCAccess")
    assert len(visitor.get("/hub/spawn").profiles) == 4, "and back, without a login too"


def test_the_admin_panel_comes_and_goes_with_the_group(scene: Scene) -> None:
    visitor = Visitor(scene.hub)
    visitor.log_in(scene.provider.user("boss", "jupyter_admin"))
    assert visitor.get("/hub/admin").status == 200
    token = visitor.token("boss")
    assert scene.rest(token, "GET", "/users").status == 200

    scene.provider.user("boss", "staff")
    # Pages and tokens of somebody who starts nothing are looked at when their groups have reached that age.
    eventually("the admin panel is closed", lambda: visitor.get("/hub/admin").status == 403, 5 * REFRESH_AGE_S)
    assert scene.rest(token, "GET", "/users").status == 403


def test_without_the_provider_a_cpu_server_starts_and_gpus_wait(scene: Scene) -> None:
    visitor = Visitor(scene.hub)
    visitor.log_in(scene.provider.user("noa", "cpsHPCAccess"))
    token, admin = visitor.token("noa"), scene.member("root", "jupyter_admin")
    scene.provider.stop()
    why = r"no GPUs now: the groups of noa could not be confirmed with the identity provider at \d\d:\d\d UTC: "
    try:
        for asked_by in (token, admin):
            answer = scene.start(asked_by, "noa", "a100-1")
            assert answer.status == 403
            assert re.match(why + "Connection refused; a server without GPUs can be started", answer.message)
        form = visitor.get("/hub/spawn")
        assert len(form.profiles) == 4
        assert re.search(why, form.text), "the form says it before anybody tries"
        for fields in ({"profile": "a100-2"}, {"profile": "custom", "profile-option-custom--gpus": "1"}):
            answer = visitor.post("/hub/spawn", **fields)
            assert answer.status == 403
            assert re.search(why, answer.text)
        login = Visitor(scene.hub).get("/hub/oauth_login")
        assert login.status == 503
        assert "the identity provider does not answer; try again in a moment" in login.text

        assert scene.start(token, "noa", "cpu-basic").status in (201, 202)
    finally:
        scene.provider.start()
    scene.stop(token, "noa")
    marker = scene.hub.persist("noa") / ".jupyterhub-sidecar" / "format.json"
    assert json.loads(marker.read_text())["owner"] == "sub:sub-of-noa", "Persist itself knows whose it is"
    assert scene.start(token, "noa", "a100-1").status in (201, 202), "the provider is back, and GPUs with it"
    scene.stop(token, "noa")

    scene.provider.stop()
    try:
        answer = scene.rest(token, "POST", "/users/noa/server")
    finally:
        scene.provider.start()
    assert answer.status == 403, "the saved options are those of the GPU server"
    assert re.match(why, answer.message)
    assert "Traceback" not in scene.hub.log


def test_a_provider_that_hangs_is_not_waited_for(scene: Scene) -> None:
    token = scene.member("kim", "cpsHPCAccess")
    scene.provider.freeze()
    try:
        began_s = time.monotonic()
        answer = scene.start(token, "kim", "a100-1")
        took_s = time.monotonic() - began_s
    finally:
        scene.provider.thaw()
    assert answer.status == 403
    assert "could not be confirmed with the identity provider" in answer.message
    assert took_s < 12


def test_a_login_that_the_provider_has_ended_is_ended_here(scene: Scene) -> None:
    visitor = Visitor(scene.hub)
    sub = scene.provider.user("paul", "cpsHPCAccess")
    visitor.log_in(sub)
    token = visitor.token("paul")
    scene.provider.revoke(sub)
    assert scene.start(token, "paul", "cpu-basic").status == 403
    assert "/oauth2/authorize" in visitor.get("/hub/spawn").url


def test_claims_gone_wrong_after_the_login_leave_nothing_of_the_groups(scene: Scene) -> None:
    visitor = Visitor(scene.hub)
    visitor.log_in(scene.provider.user("zoe", "cpsHPCAccess"))
    token = visitor.token("zoe")
    scene.provider.user("zoe", groups="cpsHPCAccess")
    for profile in ("a100-1", "cpu-basic"):
        assert scene.start(token, "zoe", profile).status == 403
    answer = visitor.post("/hub/spawn", profile="a100-1")
    assert answer.status == 403 or "/hub/login" in answer.url
    assert "zoe must log in again: the identity provider sent a string as groups" in scene.hub.log


def test_a_name_given_to_somebody_else_is_refused_even_when_the_hub_forgot_the_first(scene: Scene) -> None:
    scene.member("anna", "cpsHPCAccess")
    admin = scene.member("root", "jupyter_admin")
    scene.provider.user("anna", sub="another-anna")
    for _ in range(2):
        answer = Visitor(scene.hub).log_in("another-anna")
        assert answer.status == 403
        assert "the user name 'anna' belongs to somebody else here" in answer.text
        scene.rest(admin, "DELETE", "/users/anna")
    assert scene.rest(admin, "GET", "/users/anna").status == 404
    assert Visitor(scene.hub).log_in("sub-of-anna").status == 200, "the first anna comes back"


@pytest.mark.parametrize(
    "query",
    [
        "state=W10%3D&code=x",
        "state=%FC&code=x",
        "state=%C3%BC&code=x",
        "state=x&code=",
        "",
        "error=access_denied&error_description=%3Cscript%3Ealert(1)%3C/script%3E",
        "state=eyJzdGF0ZV9pZCI6MX0%3D&code=forged",
    ],
)
def test_a_forged_answer_of_the_provider_is_4xx_and_no_error_of_ours(scene: Scene, query: str) -> None:
    visitor = Visitor(scene.hub)
    visitor.get("/hub/oauth_login")
    before = len(scene.hub.log)
    answer = visitor.get(f"/hub/oauth_callback?{query}")
    assert answer.status == 400
    assert "<script>alert" not in answer.body
    assert "Traceback" not in scene.hub.log[before:]


def test_no_secret_is_in_the_log_or_in_the_environment_of_what_the_hub_starts(scene: Scene) -> None:
    secrets = [b"the client's secret", (scene.hub.data / "hub" / "crypt_key").read_bytes()]
    assert (scene.hub.data / "hub" / "crypt_key").stat().st_mode & 0o777 == 0o600
    assert not any(secret.decode() in scene.hub.log for secret in secrets)
    ours = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in scene.hub.processes()}
    others = [pid for pid, command in ours.items() if b"hub.serve" not in command]
    assert others
    for pid in others:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        assert not any(secret in environ for secret in secrets), ours[pid]


def test_logins_and_names_outlive_the_hub(scene: Scene) -> None:
    visitor = Visitor(scene.hub)
    visitor.log_in(scene.provider.user("ida", "cpsHPCAccess"))
    token = visitor.token("ida")
    scene.hub.stop()
    scene.provider.stop()
    try:
        scene.hub.start()
        answer = scene.start(token, "ida", "a100-1")
    finally:
        scene.provider.start()
    assert answer.status == 403
    assert "could not be confirmed with the identity provider" in answer.message
    assert len(visitor.get("/hub/spawn").profiles) == 4, "the stored tokens can still be read"
    scene.provider.user("ida", sub="another-ida")
    assert "belongs to somebody else here" in Visitor(scene.hub).log_in("another-ida").text
