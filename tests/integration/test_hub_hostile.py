"""What a hostile user sends to a real hub by REST, by the form and in addresses: refused in one line, and no trace."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest

from tests.crowded_hub import SERVICE_TOKEN, CrowdedHub
from tests.hub_process import PASSWORD, Answer, Browser

PEOPLE = {"researcher": [], "hpc": ["cpsHPCAccess"], "admin": ["jupyter_admin"]}
REFUSALS = (400, 403, 422)

LISTED = {"profile": "custom", "gpus": "1", "cpus": "8", "memory": "32G"}

# What anybody can put into options, by the name of the trick.
OPTIONS: dict[str, dict[str, Any]] = {
    "an image and no profile": {"image--unlisted-choice": "evil.io/miner:1"},
    "a listed image and no profile": {"image": "pytorch"},
    "GPUs and no profile": {"gpus": "2"},
    "everything but a profile": {"gpus": "2", "cpus": "16", "memory": "128G"},
    "an empty profile": {"profile": "", "gpus": "2"},
    "no text as a profile": {"profile": None},
    "true as a profile": {"profile": True},
    "a number as a profile": {"profile": 0},
    "a list as a profile": {"profile": ["custom"]},
    "two profiles": {"profile": ["cpu-basic", "custom"]},
    "an operator as a profile": {"profile": {"$ne": None}},
    "a profile that is not there": {"profile": "a100-9"},
    "a profile of other people": {"profile": "standard"},
    "a profile in capitals": {"profile": "CUSTOM"},
    "a profile with a space": {"profile": " custom"},
    "a profile with a line end": {"profile": "custom\n"},
    "a profile with a look-alike letter": {"profile": "сustom"},
    "a profile by its name": {"profile": "Single A100 GPU"},
    "the number of a profile": {"profile": "1"},
    "a header in a profile": {"profile": "custom\r\nSet-Cookie: x=1"},
    "a path in a profile": {"profile": "../custom"},
    "a script in a profile": {"profile": "<script>alert(1)</script>"},
    "format strings in a profile": {"profile": "%s%(x)d{0}{user.name}{{7*7}}"},
    "a hidden reversal in a profile": {"profile": "\u202ecustom\u0000"},
    "half a character in a profile": {"profile": "\ud800"},
    "a long profile": {"profile": "custom" * 5000},
    "an override": {"profile": "custom", "kubespawner_override": {"cpu_limit": 64}},
    "a setting of the spawner": {"profile": "custom", "cpu_limit": "64"},
    "a hook": {"profile": "custom", "modify_pod_hook": "x"},
    "a private attribute": {"profile": "custom", "__class__": "x"},
    "an option without a name": {"profile": "custom", "": "2"},
    "more GPUs than are listed": LISTED | {"gpus": "3"},
    "negative GPUs": LISTED | {"gpus": "-1"},
    "GPUs with a leading zero": LISTED | {"gpus": "02"},
    "GPUs with a fraction": LISTED | {"gpus": "1.5"},
    "GPUs in other digits": LISTED | {"gpus": "\u0662"},
    "GPUs with a space": LISTED | {"gpus": "2 "},
    "GPUs with a line end": LISTED | {"gpus": "2\n"},
    "GPUs as a number": LISTED | {"gpus": 2},
    "GPUs as a list": LISTED | {"gpus": ["1", "2"]},
    "GPUs as an empty list": LISTED | {"gpus": []},
    "GPUs as nothing": LISTED | {"gpus": None},
    "GPUs of another kind": LISTED | {"nvidia.com/gpu": "8"},
    "an unlisted number of GPUs": LISTED | {"gpus--unlisted-choice": "64"},
    "GPUs unlisted and listed": {"profile": "custom", "gpus": "unlisted-choice", "gpus--unlisted-choice": "64"},
    "cores that are not listed": LISTED | {"cpus": "64"},
    "cores as a quantity": LISTED | {"cpus": "16000m"},
    "memory that is not listed": LISTED | {"memory": "129G"},
    "memory in bytes": LISTED | {"memory": "137438953472"},
    "memory without end": LISTED | {"memory": "Infinity"},
    "GPUs where they are fixed": {"profile": "a100-1", "gpus": "2"},
    "an image where it is fixed": {"profile": "a100-1", "image": "pytorch"},
    "an own image where it is disabled": {"profile": "a100-1", "image--unlisted-choice": "quay.io/jupyter/x:1"},
    "an image that is not listed": LISTED | {"image": "evil"},
    "an image's reference as its key": LISTED | {"image": "quay.io/jupyter/pytorch-notebook:2025-11-06"},
    "an own image without value": LISTED | {"image": "unlisted-choice"},
    "an empty own image": LISTED | {"image--unlisted-choice": ""},
    "no text as an own image": LISTED | {"image--unlisted-choice": None},
    "a list of own images": LISTED | {"image--unlisted-choice": ["quay.io/jupyter/x:1", "quay.io/jupyter/y:1"]},
    "an own image and a listed one": LISTED | {"image": "pytorch", "image--unlisted-choice": "quay.io/jupyter/x:1"},
    **{
        f"the image {image!r}": LISTED | {"image--unlisted-choice": image}
        for image in (
            "x:y\n",
            " x:y z ",
            "http://x:y",
            "img:tag --privileged",
            "host:5000/img",
            "evil.io/miner:1",
            "evil.io/quay.io/jupyter/x:1",
            "quay.io.evil.io/jupyter/x:1",
            "quay.io@evil.io/jupyter/x:1",
            "quay.io:443/jupyter/x:1",
            "quay.io/jupyter/x",
            "quay.io/jupyter/x:",
            "quay.io/jupyter/x:1\n",
            "quay.io/jupyter/x:1 --privileged",
            "quay.io/jupyter/../evil/x:1",
            "quay.io/jupyter//x:1",
            "quay.io/jupyter/x@sha256:12",
            "quay.io/jupyter/x:{username}",
            "quay.io/jupyter/x:$(id)",
            "quay.io/jupyter/\u202ex:1",
            "quay.io/jupyter/<script>:1",
            "quay.io/evil/x:1",
            "docker://quay.io/jupyter/x:1",
        )
    },
}  # fmt: skip

# Bodies that are no options at all.
BODIES: dict[str, bytes] = {
    "half an object": b"{",
    "an object and a half": b'{"profile": "cpu-basic"}{',
    "Python": b"{'profile': 'cpu-basic'}",
    "a comment": b'{"profile": "cpu-basic"} // really',
    "a form": b"profile=cpu-basic",
    "one key twice": b'{"profile": "cpu-basic", "profile": "standard"}',
    "one key twice, the good one last": b'{"profile": "standard", "profile": "cpu-basic"}',
    "no number": b'{"profile": "custom", "gpus": NaN}',
    "no end": b'{"profile": "custom", "gpus": -Infinity}',
    "a number beyond all floats": b'{"profile": "custom", "gpus": 1e999}',
    "a number of 5,000 digits": b'{"profile": "custom", "gpus": ' + b"9" * 5000 + b"}",
    "50,000 lists in each other": b"[" * 50_000,
    "20,000 objects in each other": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "no UTF-8": b'{"profile": "cpu-basic\xff"}',
    "UTF-16": json.dumps({"profile": "cpu-basic"}).encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"profile": "cpu-basic"}',
    "10 MB of text": b'{"profile": "' + b"x" * 10_000_000 + b'"}',
    "10 MB of lists": b"[[]" + b",[]" * 3_300_000 + b"]",
    "10 MB of nothing": b" " * 10_000_000,
    "a list": b'[{"profile": "cpu-basic"}]',
    "an empty list": b"[]",
    "a text": b'"cpu-basic"',
    "an empty text": b'""',
    "a number": b"0",
    "false": b"false",
    "a list as the options": b'{"user_options": ["cpu-basic"]}',
    "a text as the options": b'{"user_options": "cpu-basic"}',
    "a profile beside the options": b'{"user_options": {"gpus": "2"}, "profile": "custom"}',
    "a name beside the options": b'{"name": "x", "profile": "custom"}',
    "a name that is a number": b'{"display_name": 5, "user_options": {}}',
    "a name that reverses": b'{"display_name": "\\u202ex", "user_options": {}}',
    "a name with a null": b'{"display_name": "x\\u0000", "user_options": {}}',
    "a name of 10,000 letters": b'{"display_name": "' + b"x" * 10_000 + b'", "user_options": {}}',
}

_PART = '--b\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n{}\r\n'
MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}


def multipart(*parts: tuple[str, str, str]) -> bytes:
    """A form as a browser sends it: for each field its name, more of its header, and its value."""
    return "".join(_PART.format(*part) for part in parts).encode() + b"--b--\r\n"


# Forms that no browser sends, with their headers.
FORMS: dict[str, tuple[bytes, dict[str, str]]] = {
    "a file beside the profile": (
        multipart(("profile", "", "cpu-basic"), ("notes", '; filename="x"', "text")),
        MULTIPART,
    ),
    "a file as the profile": (multipart(("profile", '; filename="x"', "cpu-basic")), MULTIPART),
    "a file as an option": (
        multipart(("profile", "", "custom"), ("profile-option-custom--gpus", '; filename="x"', "2")),
        MULTIPART,
    ),
    "two profiles": (multipart(("profile", "", "cpu-basic"), ("profile", "", "standard")), MULTIPART),
    "parts that do not end": (b'--b\r\nContent-Disposition: form-data; name="profile"\r\n\r\ncustom', MULTIPART),
    "parts without a boundary": (b"profile=cpu-basic", {"Content-Type": "multipart/form-data"}),
    "JSON": (b'{"profile": "cpu-basic"}', {"Content-Type": "application/json"}),
    "plain text": (b"profile=cpu-basic", {"Content-Type": "text/plain"}),
    "something packed": (b"profile=cpu-basic", {"Content-Encoding": "gzip"}),
    "no UTF-8 in the profile": (b"profile=%ff", {}),
    "no UTF-8 in an option of another profile": (b"profile=cpu-basic&profile-option-custom--gpus=%ff", {}),
    "no UTF-8 in a name": (b"profile=cpu-basic&%ff=1", {}),
    "a null in a name": (b"profile=cpu-basic&a%00b=1", {}),
    "a field of 10 MB": (b"profile=cpu-basic&profile-option-custom--gpus=" + b"x" * 10_000_000, {}),
    "10,000 fields": (b"profile=cpu-basic" + b"".join(b"&f%d=1" % number for number in range(10_000)), {}),
    "a script": (b"profile=%3Cscript%3Ealert(1)%3C/script%3E", {}),
    "the prefix of an address": (b"opt-profile=cpu-basic", {}),
    "an option by its bare name and its long one": (
        b"profile=custom&gpus=2&profile-option-custom--gpus=1&profile-option-custom--gpus=2",
        {},
    ),
    "the switch of the form itself": (b"profile=custom&profile-option-custom--image=unlisted-choice", {}),
}

# Names of servers that nobody shall have.
NAMES = (
    "a%2Fb",
    "%2F",
    "..%2F..%2Fadmin",
    "%00",
    "a%00",
    "a%0Ab",
    "%E2%80%AEb",
    "%ff",
    "%20",
    "x" * 300,
    "%F0%9F%92%A9" * 80,
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrowdedHub]:
    hub = CrowdedHub(tmp_path_factory.mktemp("hostile") / "data", people=PEOPLE)
    try:
        hub.start()
        yield hub
    finally:
        hub.end()


@pytest.fixture(scope="module")
def browser(hub: CrowdedHub) -> Browser:
    """One in which ``hpc`` is logged in."""
    browser = Browser(hub.base)
    browser.log_in("hpc")
    browser.get("/hub/spawn")
    return browser


@pytest.fixture(autouse=True)
def _no_trace(hub: CrowdedHub) -> Iterator[None]:
    """Whatever a test sends, the hub records nothing, starts nothing and logs no traceback."""
    logged = len(hub.log)
    yield
    assert "Traceback" not in hub.log[logged:]
    rows = hub.query("SELECT name, user_options, server_id FROM spawners WHERE name != '' OR server_id IS NOT NULL")
    assert rows == []
    assert hub.query("SELECT user_options FROM spawners WHERE user_options NOT IN ('{}', 'null')") == []
    assert hub.query("SELECT note FROM api_tokens WHERE note LIKE 'Server at%'") == []
    assert hub.started() == []


def assert_refused(answer: Answer) -> None:
    """In JSON, and one line that can be shown."""
    assert answer.status in REFUSALS, answer
    assert answer.message
    assert answer.message.isprintable(), "one line, and nothing hidden in it"
    assert len(answer.message) <= 700


def assert_form_again(answer: Answer) -> None:
    """The page with the form, the reason on it as text."""
    assert answer.status in REFUSALS, answer
    reason = re.search(r'<p class="spawn-error-msg[^>]*>(.*?)</p>', answer.text, re.DOTALL)
    assert reason is not None, answer.text
    assert reason[1].strip().isprintable()
    assert "<" not in reason[1]
    assert answer.text.count('type="radio"') == 4, "the form is there, and works"


_EVERY_THIRD = [
    pytest.param(options, id=name, marks=[pytest.mark.slow] if number % 3 else [])
    for number, (name, options) in enumerate(OPTIONS.items())
]
"""In the normal run; the rest too in the long one."""


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_hostile_options_are_refused_by_rest(hub: CrowdedHub, options: dict[str, Any]) -> None:
    for server in ("server", "servers/extra"):
        assert_refused(hub.rest("POST", f"/hub/api/users/hpc/{server}", "hpc", options))


@pytest.mark.parametrize("options", _EVERY_THIRD)
def test_hostile_options_are_refused_by_the_form(hub: CrowdedHub, browser: Browser, options: dict[str, Any]) -> None:
    sent = as_fields(options)
    if sent is None:
        assert_form_again(browser.post("/hub/spawn", [("profile", json.dumps(options))]))
        return
    assert_form_again(browser.post("/hub/spawn", sent))
    assert_form_again(browser.get("/hub/spawn/hpc/extra?" + urllib.parse.urlencode(sent)))


def as_fields(options: dict[str, Any]) -> list[tuple[str, str]] | None:
    """``options`` as the form's fields; ``None`` where a form has no such thing as one of the values."""
    slug = options.get("profile")
    fields = []
    for key, value in options.items():
        name = f"profile-option-{slug}--{key}" if isinstance(slug, str) and slug and key != "profile" else key
        values = value if isinstance(value, list) else [value]
        if isinstance(value, list) and len(value) < 2:
            return None
        if not all(isinstance(one, str) and "\ud800" not in one for one in values):
            return None
        fields += [(name, one) for one in values]
    return fields


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_that_is_no_options_is_refused(hub: CrowdedHub, body: bytes) -> None:
    for server in ("server", "servers/extra"):
        assert_refused(hub.rest("POST", f"/hub/api/users/hpc/{server}", "hpc", raw=body))


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("options", list(OPTIONS.values())[::7], ids=list(OPTIONS)[::7])
def test_hostile_options_are_not_stored_for_later(hub: CrowdedHub, method: str, options: dict[str, Any]) -> None:
    for server in ("server", "servers/extra"):
        answer = hub.rest(method, f"/hub/api/users/hpc/{server}", "hpc", {"user_options": options})
        assert answer.status in (*REFUSALS, 405), "JupyterHub 5 knows neither method"


@pytest.mark.parametrize(("body", "headers"), FORMS.values(), ids=FORMS)
def test_a_form_that_no_browser_sends_is_refused(
    hub: CrowdedHub, browser: Browser, body: bytes, headers: dict[str, str]
) -> None:
    for path in ("/hub/spawn", "/hub/spawn/hpc/extra"):
        answer = browser.send(path, body, headers)
        assert answer.status in REFUSALS
        assert "<script>alert" not in answer.text


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_none_is_refused_wherever_it_stands(hub: CrowdedHub, browser: Browser, name: str) -> None:
    nowhere = (*REFUSALS, 404, 405)  # the proxy reads %2F as a slash; JupyterHub 5 has no PUT
    headers = {"Authorization": f"token {hub.token('hpc')}"}
    path = f"/hub/api/users/hpc/servers/{name}"
    for method in ("POST", "PUT"):
        for body in (None, b'{"profile": "cpu-basic"}'):
            assert hub.send(method, path, body, headers).status in nowhere
            assert hub.send(method, path, body, headers, base=hub.inner).status in nowhere, "without the proxy"
    for answer in (
        browser.get(f"/hub/spawn/hpc/{name}"),
        browser.get(f"/hub/spawn/hpc/{name}?profile=cpu-basic"),
        browser.post(f"/hub/spawn/hpc/{name}", [("profile", "cpu-basic")]),
    ):
        assert answer.status in nowhere


@pytest.mark.parametrize(
    "path",
    [
        "/hub/api/users/hpc/server/",
        "/hub/api/users/hpc/servers/a/b",
        "/hub/api/users/hpc/servers//",
        "//hub/api/users/hpc/server",
        "/hub/api//users/hpc/server",
        "/hub/api/users/hpc%2Fserver",
        "/hub/api/users/hpc/server%2F",
        "/hub/api/users/hpc/SERVER",
        "/hub/api/users/../users/hpc/server",
        "/hub/api/users/hpc/server;x",
        "/hub/api/users/hpc/server?profile=a100-2",
        "/hub/api/users/hpc/servers/?user_options=x",
        "/hub/api/users/HPC/server",
        "/hub/api/users/hpc%00/server",
        "/user/hpc/api/server",
        "/hub/user/hpc/",
        "/hub/spawn-pending/hpc",
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "GET"])
def test_no_other_way_leads_around_the_gate(hub: CrowdedHub, path: str, method: str) -> None:
    headers = {"Authorization": f"token {hub.token('hpc')}", "X-HTTP-Method-Override": "POST"}
    body = json.dumps({"profile": "a100-2", "gpus": "2"}).encode()
    for base in (hub.base, hub.inner):
        assert 200 <= hub.send(method, path, body, headers, base=base).status < 500


@pytest.mark.parametrize("who", ["researcher", "admin", "the service", "a token"])
def test_whoever_asks_the_user_gets_what_the_users_groups_give(hub: CrowdedHub, who: str) -> None:
    path = "/hub/api/users/researcher/server"
    tokens = {"researcher": lambda: hub.token("researcher"), "admin": lambda: hub.token("admin")}
    if who == "a token":
        body = {"scopes": ["servers!user=researcher"]}
        made = hub.rest("POST", "/hub/api/users/researcher/tokens", "researcher", body)
        token = json.loads(made.text)["token"]
    else:
        token = SERVICE_TOKEN if who == "the service" else tokens[who]()
    for options in ({"profile": "a100-1"}, {"profile": "cpu-basic"}, {"image--unlisted-choice": "evil.io/x:1"}):
        answer = hub.send("POST", path, json.dumps(options).encode(), {"Authorization": f"token {token}"})
        assert_refused(answer)


def test_a_stranger_starts_nothing_of_others(hub: CrowdedHub, browser: Browser) -> None:
    answer = hub.rest("POST", "/hub/api/users/researcher/server", "hpc", {"profile": "standard"})
    assert answer.status in (403, 404)
    assert browser.post("/hub/spawn/researcher", [("profile", "standard")]).status in (403, 404)
    assert browser.get("/hub/spawn/researcher?profile=standard").status in (403, 404)


def test_an_admin_who_starts_a_users_server_by_form_is_judged_as_that_user(hub: CrowdedHub) -> None:
    admin = Browser(hub.base)
    admin.log_in("admin")
    admin.get("/hub/spawn/researcher")
    for answer in (
        admin.post("/hub/spawn/researcher", [("profile", "a100-1")]),
        admin.get("/hub/spawn/researcher?opt-profile=a100-1"),
        admin.get("/hub/spawn/researcher?profile=a100-1"),
    ):
        assert answer.status == 403
        assert "is not among those offered to researcher" in answer.text


@pytest.mark.parametrize("address", ["http://[", "http://[x", "//[", "///[]:x"])
@pytest.mark.parametrize(
    "path",
    [
        "/hub/spawn/hpc?",
        "/hub/spawn?",
        "/hub/spawn/hpc?profile=a100-9&",
        "/hub/login?",
        "/hub/?",
        "/hub/home?",
        "/hub/spawn-pending/hpc?",
    ],
)
def test_a_next_that_is_no_address_leads_nowhere_else(
    hub: CrowdedHub, browser: Browser, path: str, address: str
) -> None:
    for whoever in (browser, Browser(hub.base)):
        answer = whoever.get(f"{path}next={urllib.parse.quote(address)}")
        assert answer.status in (200, *REFUSALS, 404), answer


def test_a_login_leads_nowhere_else(hub: CrowdedHub) -> None:
    browser = Browser(hub.base)
    browser.get("/hub/login")
    answer = browser.post("/hub/login?next=http://[", [("username", "hpc"), ("password", PASSWORD)])
    assert answer.status == 200


@pytest.mark.parametrize("fields", [[("password", PASSWORD)], [("username", "hpc")], [], [("password", "x" * 10_000)]])
def test_a_login_that_lacks_something_is_a_wrong_one(hub: CrowdedHub, fields: list[tuple[str, str]]) -> None:
    browser = Browser(hub.base)
    browser.get("/hub/login")
    answer = browser.post("/hub/login", fields)
    assert answer.status == 403
    assert "Invalid username or password" in answer.text
