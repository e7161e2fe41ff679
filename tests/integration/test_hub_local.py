"""A real hub on this machine: `jupyterhub-sidecar up`, REST and forms over HTTP, real sidecars and notebooks."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub.plan import Directories
from hub.processes import Process, marked
from hub.up import NOTEBOOK_ENVIRONMENT
from tests.hub_process import COMMAND, PASSWORD, Answer, Browser, Hub, eventually, free_port

pytestmark = pytest.mark.skipif(
    not os.path.exists(os.path.join(NOTEBOOK_ENVIRONMENT, "bin", "jupyterhub-singleuser")),
    reason="needs the notebook environment: make install",
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    hub = Hub(tmp_path_factory.mktemp("hub") / "data")
    try:
        hub.start()
        yield hub
    finally:
        hub.end()


REFUSED: list[tuple[str, Any, int]] = [
    ("researcher", {"profile": "a100-1"}, 403),
    ("researcher", {"profile": "custom", "gpus": "2"}, 403),
    ("researcher", {"image--unlisted-choice": "evil.io/miner:1"}, 400),
    ("researcher", {"image": "evil.io/miner:1"}, 400),
    ("researcher", {"profile": "standard", "image--unlisted-choice": "quay.io/jupyter/x:1"}, 400),
    ("researcher", {"user_options": {"profile": "a100-1"}}, 403),
    ("researcher", {"user_options": {"profile": "a100-1"}, "display_name": "x"}, 403),
    ("researcher", {"user_options": ["a100-1"]}, 400),
    ("researcher", [{"profile": "a100-1"}], 400),
    ("researcher", "a100-1", 400),
    ("researcher", {"profile": {"$ne": None}}, 400),
    ("researcher", {"profile": "a100-1\r\nX-Injected: 1"}, 403),
    ("researcher", {"profile": "<script>alert(1)</script>%s%(x)s{0}"}, 403),
    ("researcher", {"profile": "\ud800\u202e\u0000"}, 403),
    ("hpc", {"profile": "custom", "gpus": "3"}, 400),
    ("hpc", {"profile": "custom", "gpus": 2}, 400),
    ("hpc", {"profile": "custom", "gpus": ["1", "2"]}, 400),
    ("hpc", {"profile": "custom", "image--unlisted-choice": "evil.io/miner:1"}, 403),
    ("hpc", {"profile": "custom", "image--unlisted-choice": "quay.io/jupyter/x:1 --privileged"}, 400),
    ("hpc", {"profile": "custom", "image--unlisted-choice": ""}, 400),
    ("hpc", {"profile": "standard"}, 403),
]


@pytest.mark.parametrize("path", ["server", "servers/extra"])
@pytest.mark.parametrize(("user", "body", "status"), REFUSED)
def test_a_refused_request_is_4xx_in_one_line_and_leaves_nothing(
    hub: Hub, path: str, user: str, body: Any, status: int
) -> None:
    answer = hub.rest("POST", f"/hub/api/users/{user}/{path}", user, body)
    assert answer.status == status
    assert answer.message
    assert answer.message.isprintable()
    name = "extra" if path != "server" else ""
    assert not os.path.exists(hub.directories(user, name).server)
    assert nothing_recorded(hub, user)


def nothing_recorded(hub: Hub, user: str) -> bool:
    """No named server, and nothing stored or running of the unnamed one, which JupyterHub lists in any case."""
    servers = json.loads(hub.rest("GET", f"/hub/api/users/{user}?include_stopped_servers", user).text)["servers"]
    default = servers.pop("", {})
    return not servers and not default.get("user_options") and not default.get("pending") and not default.get("ready")


@pytest.mark.parametrize("raw", [b"{", b"[" * 50_000, b"\xff\xfe", b"{'profile': 'a100-1'}"])
def test_a_body_that_is_not_json_is_400(hub: Hub, raw: bytes) -> None:
    answer = hub.rest("POST", "/hub/api/users/researcher/server", "researcher", raw=raw)
    assert (answer.status, answer.message) == (400, "the body is not JSON")


def test_options_cannot_be_stored_for_later(hub: Hub) -> None:
    body = {"user_options": {"profile": "a100-1"}}
    assert hub.rest("PUT", "/hub/api/users/researcher/servers/later", "researcher", body).status == 403
    assert nothing_recorded(hub, "researcher")


def test_options_beside_a_name_are_judged_like_all_others(hub: Hub) -> None:
    body = {"name": "later", "profile": "a100-1"}
    for method, path in (("PUT", "servers/later"), ("POST", "servers/later"), ("POST", "server")):
        assert hub.rest(method, f"/hub/api/users/researcher/{path}", "researcher", body).status == 403
    assert nothing_recorded(hub, "researcher")


@pytest.mark.parametrize(
    ("method", "raw"),
    [
        ("PATCH", b'{"display_name": "x", "foo": 1}'),
        ("PATCH", b'{"name": ["x"]}'),
        ("PATCH", b'{"name": 5}'),
        ("PATCH", b"[1]"),
        ("DELETE", b"[1]"),
        ("DELETE", b'"x"'),
    ],
)
def test_a_body_of_another_shape_is_4xx(hub: Hub, method: str, raw: bytes) -> None:
    answer = hub.rest(method, "/hub/api/users/researcher/server", "researcher", raw=raw)
    assert answer.status == 400
    assert answer.message.isprintable()


def test_researcher_sees_one_profile_with_the_note(hub: Hub) -> None:
    browser = Browser(hub.base)
    browser.log_in("researcher")
    page = browser.get("/hub/spawn").text
    assert len(re.findall(r'type="radio"', page)) == 1
    assert "💻 Standard Notebook Environment" in page
    assert "For GPU access, please contact your administrator." in page
    assert "2 cores, 4 GB memory, no GPU (limits are not enforced on this machine)" in page


def test_hpc_sees_four_profiles_and_the_custom_one_with_its_defaults(hub: Hub) -> None:
    browser = Browser(hub.base)
    browser.log_in("hpc")
    page = browser.get("/hub/spawn").text
    names = re.findall(r"<h3>(.*?)</h3>", page)
    assert names == ["💻 CPU Only (Basic)", "🚀 Single A100 GPU", "🔥 Dual A100 GPUs", "⚙️ Custom Configuration"]
    assert re.findall(r'<option value="([^"]*)" selected>', page) == ["pytorch", "1", "8", "32G"]
    assert re.search(r'value="cpu-basic"\s+checked', page)
    assert "Other…" in page


@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        ([("profile", "a100-1")], 403, "is not among those offered"),
        ([("image--unlisted-choice", "evil.io/x:1")], 400, "options without a profile"),
        ([("profile", "standard"), ("profile", "a100-1")], 400, "must be a string"),
        ([("profile", "<script>alert(1)</script>")], 403, "&lt;script&gt;"),
    ],
)
def test_a_refused_form_is_shown_again_with_the_reason(
    hub: Hub, fields: list[tuple[str, str]], status: int, reason: str
) -> None:
    browser = Browser(hub.base)
    browser.log_in("researcher")
    browser.get("/hub/spawn")
    for answer in (
        browser.post("/hub/spawn", fields),
        browser.get("/hub/spawn?" + urllib.parse.urlencode(fields)),
        browser.get("/hub/spawn?" + urllib.parse.urlencode([(f"opt-{name}", value) for name, value in fields])),
    ):
        assert answer.status == status
        assert reason in answer.text
        assert "<script>alert" not in answer.text
        assert 'type="radio"' in answer.text
    assert nothing_recorded(hub, "researcher")


def test_only_the_demo_users_get_in_with_the_right_password(hub: Hub) -> None:
    for user, password in (("researcher", "wrong"), ("researcher", ""), ("mallory", PASSWORD), ("", PASSWORD)):
        browser = Browser(hub.base)
        browser.get("/hub/login")
        answer = browser.post("/hub/login", [("username", user), ("password", password)])
        assert answer.status == 403
    assert json.loads(hub.rest("GET", "/hub/api/user", "admin").text)["admin"] is True
    assert json.loads(hub.rest("GET", "/hub/api/user", "hpc").text)["groups"] == ["cpsHPCAccess"]


def test_the_login_page_says_what_this_machine_does_not_do(hub: Hub) -> None:
    page = Browser(hub.base).get("/hub/login").text
    for said in ("not isolated from each other", "limits are not enforced", "backup is not read-only"):
        assert said in page.replace("\n", " ")


def test_a_second_hub_on_the_same_data_is_refused(hub: Hub) -> None:
    second = subprocess.run(
        [COMMAND, "up", "--port", str(free_port()), "--data", str(hub.data)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert second.returncode == 1
    assert second.stderr == f"cannot start: another hub already runs on DATA {hub.data}\n"


def test_nothing_of_all_this_left_a_traceback_or_a_server(hub: Hub) -> None:
    assert "Traceback" not in hub.log
    assert "Traceback" not in hub.output
    assert PASSWORD not in hub.log
    assert not any("singleuser" in line or "sidecar" in line for line in hub.processes())


@pytest.fixture
def own_hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(tmp_path / "data")
    yield hub
    hub.end()


def test_work_survives_a_stop_a_killed_hub_and_ctrl_c(own_hub: Hub) -> None:
    hub = own_hub
    hub.start()
    directories = hub.directories("hpc")
    mirror = Path(directories.persist) / "Backup" / "default"

    # A server with a GPU, on a machine without a word about GPUs in advance.
    assert hub.rest("POST", "/hub/api/users/hpc/server", "hpc", {"profile": "a100-1"}).status in (201, 202)
    progress = hub.rest("GET", "/hub/api/users/hpc/server/progress", "hpc").text
    hub.wait_ready("hpc")
    if "Server requested" in progress:
        assert "Storage: " in progress
        assert "GPU check: " in progress
    assert "GPU check: " in hub.log
    assert_clean_environment(hub)

    # A second server beside it would exceed the caps, and is refused before it is recorded.
    second = hub.rest("POST", "/hub/api/users/hpc/servers/second", "hpc", {"profile": "a100-2"})
    assert second.status == 403
    assert "3 GPUs, and 2 are allowed" in second.message

    work = os.urandom(100_000)
    (Path(directories.home) / "work.bin").write_bytes(work)
    assert hub.rest("DELETE", "/hub/api/users/hpc/server", "hpc").status in (202, 204)
    hub.wait_stopped("hpc")
    assert (mirror / "work.bin").read_bytes() == work
    assert not os.path.lexists(directories.home)

    # Again, with the saved options; then the hub alone is killed, and a new one adopts the server.
    assert hub.rest("POST", "/hub/api/users/hpc/server", "hpc").status in (201, 202)
    hub.wait_ready("hpc")
    assert (Path(directories.home) / "work.bin").read_bytes() == work
    assert os.readlink(Path(directories.home) / "Save") == "Persist"
    notebook = oldest(directories, "notebook")
    storage = oldest(directories, "storage")
    hub.signal(signal.SIGKILL)
    warm_s = hub.start()
    hub.wait_ready("hpc")
    assert (oldest(directories, "notebook"), oldest(directories, "storage")) == (notebook, storage)
    # The promise of a warm start; a machine with more to do than it has cores keeps nobody's promises.
    assert warm_s < 10 or os.getloadavg()[0] > (os.cpu_count() or 1)

    # Ctrl-C: what was written just before is saved, and nothing is left.
    (Path(directories.home) / "last.bin").write_bytes(work[::-1])
    assert hub.signal(signal.SIGINT) < 20
    eventually(lambda: hub.processes() == [], 5, "no process of the hub is left")
    assert (mirror / "last.bin").read_bytes() == work[::-1]
    assert not os.path.lexists(directories.home)
    assert "Traceback" not in hub.output


def test_a_next_that_is_no_address_leads_to_the_server_that_runs(own_hub: Hub) -> None:
    own_hub.start()
    browser = Browser(own_hub.base)
    browser.log_in("hpc")
    assert own_hub.rest("POST", "/hub/api/users/hpc/server", "hpc", {"profile": "cpu-basic"}).status in (201, 202)
    own_hub.wait_ready("hpc")
    for path in ("spawn/hpc?", "spawn?", "spawn/hpc?profile=cpu-basic&", "spawn-pending/hpc?", "?"):
        answer = browser.get(f"/hub/{path}next=http://[")
        assert answer.status == 200, path
    assert "Traceback" not in own_hub.log


def test_ctrl_c_ends_the_server_whose_start_a_killed_hub_left_unfinished(own_hub: Hub) -> None:
    hub = own_hub
    hub.start()
    hub.rest("GET", "/hub/api/user", "researcher")

    def ask() -> None:
        with contextlib.suppress(OSError):
            hub.rest("POST", "/hub/api/users/researcher/server", "researcher")

    request = threading.Thread(target=ask)
    request.start()
    storage = f"{hub.directories('researcher').server}#storage"
    eventually(lambda: bool(marked(storage)), 20, "the sidecar runs")
    hub.signal(signal.SIGKILL)
    request.join()
    assert marked(storage)
    hub.start()
    assert hub.signal(signal.SIGINT) < 20
    eventually(lambda: hub.processes() == [], 5, "no process of the hub is left")


def test_a_closed_terminal_is_as_good_as_ctrl_c(own_hub: Hub) -> None:
    hub = own_hub
    hub.start()
    assert hub.rest("POST", "/hub/api/users/researcher/server", "researcher").status in (201, 202)
    hub.wait_ready("researcher")
    directories = hub.directories("researcher")
    (Path(directories.home) / "last.txt").write_text("precious")
    assert hub.signal(signal.SIGHUP) < 20
    eventually(lambda: hub.processes() == [], 5, "no process of the hub is left")
    assert (Path(directories.persist) / "Backup" / "default" / "last.txt").read_text() == "precious"


@pytest.mark.slow
def test_ctrl_c_ends_a_hub_whose_data_was_moved_away_and_nothing_in_it_is_lost(own_hub: Hub) -> None:
    hub = own_hub
    hub.start()
    assert hub.rest("POST", "/hub/api/users/researcher/server", "researcher").status in (201, 202)
    hub.wait_ready("researcher")
    home = Path(hub.directories("researcher").home)
    moved = hub.data.with_name("moved")
    hub.data.rename(moved)
    last = moved / home.relative_to(hub.data) / "last.txt"
    last.write_text("precious")
    assert hub.signal(signal.SIGINT) < 20
    eventually(lambda: hub.processes() == [], 5, "no process of the hub is left")
    assert last.read_text() == "precious"


def test_a_stop_in_the_middle_of_a_start_is_a_readable_answer(own_hub: Hub) -> None:
    hub = own_hub
    hub.start()
    hub.rest("GET", "/hub/api/user", "researcher")
    answers: list[Answer] = []
    path = "/hub/api/users/researcher/server"
    request = threading.Thread(target=lambda: answers.append(hub.rest("POST", path, "researcher")))
    request.start()
    eventually(lambda: bool((hub.server("researcher") or {}).get("pending")), 10, "pending")
    assert hub.rest("DELETE", path, "researcher").status in (202, 204)
    request.join()
    assert answers[0].status in (202, 409)
    hub.wait_stopped("researcher")
    assert "Traceback" not in hub.log


def oldest(directories: Directories, mark: str) -> Process:
    return min(marked(f"{directories.server}#{mark}"), key=lambda process: process.pid)


def assert_clean_environment(hub: Hub) -> None:
    directories = hub.directories("hpc")
    for mark in ("notebook", "storage"):
        for process in marked(f"{directories.server}#{mark}"):
            environ = Path(f"/proc/{process.pid}/environ").read_bytes().decode()
            for hidden in (PASSWORD, "A_SECRET_OF_THE_HUB", "KUBECONFIG", "CONFIGPROXY", "PYTHONPATH"):
                assert hidden not in environ, (mark, hidden)
    notebook = oldest(directories, "notebook")
    variables = dict(
        part.split("=", 1) for part in Path(f"/proc/{notebook.pid}/environ").read_text().split("\0") if "=" in part
    )
    assert variables["HOME"] == directories.home
    assert variables["PATH"].split(":")[0] == os.path.join(NOTEBOOK_ENVIRONMENT, "bin")
    assert variables["PATH"].split(":")[1] == str(hub.data / "tools")
    assert variables["GPU_CHECK_EXPECT"] == "1"
    assert os.path.dirname(sys.executable) not in variables["PATH"].split(":")
