"""What a real hub has granted: counted from the first moment to the last, and through everything in between."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from tests.crowded_hub import CrowdedHub
from tests.hub_process import Answer, Browser, eventually

HPC = ["cpsHPCAccess"]
ONE_GPU, TWO_GPUS, CPU = {"profile": "a100-1"}, {"profile": "a100-2"}, {"profile": "cpu-basic"}
USERS = ("crowd", "churn", "stopper", "failing", "cancelled", "loser", "namer", "renamer", "killed")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrowdedHub]:
    hub = CrowdedHub(tmp_path_factory.mktemp("granted") / "data", people=dict.fromkeys(USERS, HPC))
    try:
        hub.start()
        yield hub
    finally:
        hub.end()


def start(hub: CrowdedHub, user: str, server: str, options: object) -> Answer:
    return hub.rest("POST", path(user, server), user, options)


def runs(hub: CrowdedHub, user: str, server: str, options: object) -> bool:
    """Whether the server was granted; it has been started then, however long that took."""
    answer = start(hub, user, server, options)
    if answer.status not in (201, 202):
        return False
    eventually(lambda: bool((hub.server(user, server) or {}).get("ready")), 60, f"{server} is ready: {hub.log[-2000:]}")
    return True


def stop(hub: CrowdedHub, user: str, server: str) -> int:
    return hub.rest("DELETE", path(user, server), user).status


def path(user: str, server: str) -> str:
    return f"/hub/api/users/{user}/servers/{server}" if server else f"/hub/api/users/{user}/server"


def active(hub: CrowdedHub, user: str) -> dict[str, str]:
    """The profile of each server of ``user`` that runs, starts or stops."""
    servers = json.loads(hub.rest("GET", f"/hub/api/users/{user}", user).text)["servers"]
    return {name: server["user_options"].get("profile", "") for name, server in servers.items()}


def recorded(hub: CrowdedHub, user: str) -> list[str]:
    """The named servers of ``user`` in the hub's database."""
    rows = hub.query("SELECT users.name, spawners.name FROM spawners JOIN users ON users.id = spawners.user_id")
    return [server for owner, server in rows if owner == user and server]


def most_gpus(hub: CrowdedHub, user: str) -> int:
    """The most GPUs that notebooks of ``user`` ever had at one time."""
    now, most = 0, 0
    for sign, gpus, address in hub.started():
        if address.startswith(f"/user/{user}/"):
            now += gpus if sign == "+" else -gpus
            most = max(most, now)
    return most


@pytest.mark.slow
def test_two_hundred_requests_at_once_for_two_servers_each_start_what_the_caps_allow(hub: CrowdedHub) -> None:
    hub.token("crowd")
    over: list[dict[str, str]] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            seen = active(hub, "crowd")
            if len(seen) > 2:
                over.append(seen)

    def ask(number: int) -> list[Answer]:
        # Some ask for the same server as others do, some for one of their own.
        return [start(hub, "crowd", name, ONE_GPU) for name in (f"s{number % 50}", f"t{number}")]

    watch = threading.Thread(target=look)
    watch.start()
    with ThreadPoolExecutor(200) as clients:
        answers = [answer for pair in clients.map(ask, range(200)) for answer in pair]
    done.set()
    watch.join()
    assert over == [], "never more than two, at no moment"
    assert {answer.status for answer in answers} <= {201, 202, 400, 403}
    eventually(lambda: len(hub.started()) == 2, 60, "two have come as far as their notebook")
    assert len(active(hub, "crowd")) == 2
    assert most_gpus(hub, "crowd") == 2
    assert len(recorded(hub, "crowd")) == 2, "of the others nothing is recorded"
    assert "Traceback" not in hub.log


@pytest.mark.slow
def test_starts_and_stops_in_any_order_never_exceed_the_caps(hub: CrowdedHub) -> None:
    hub.token("churn")

    def play(number: int) -> None:
        for _ in range(2):
            start(hub, "churn", f"c{number}", (ONE_GPU, TWO_GPUS)[number % 2])
            stop(hub, "churn", f"c{number}")

    with ThreadPoolExecutor(6) as clients:
        list(clients.map(play, range(6)))
    assert 1 <= most_gpus(hub, "churn") <= 2
    assert "Traceback" not in hub.log


def test_a_server_counts_until_its_end_is_complete(hub: CrowdedHub) -> None:
    hub.rule("stopper", "one", "ends slowly")
    assert runs(hub, "stopper", "one", TWO_GPUS)
    stopping = threading.Thread(target=stop, args=(hub, "stopper", "one"))
    stopping.start()
    refused = start(hub, "stopper", "two", ONE_GPU)
    assert refused.status == 403
    assert "3 GPUs, and 2 are allowed" in refused.message
    assert "together with 1 other server" in refused.message
    assert start(hub, "stopper", "one", ONE_GPU).status in (400, 403), "nor does it start again in the middle"
    stopping.join()
    eventually(lambda: "one" not in active(hub, "stopper"), 20, "one is stopped")
    assert runs(hub, "stopper", "two", TWO_GPUS)
    assert most_gpus(hub, "stopper") == 2


def test_a_start_that_fails_releases_what_it_held(hub: CrowdedHub) -> None:
    hub.rule("failing", "one", "fails")
    answer = start(hub, "failing", "one", TWO_GPUS)
    assert answer.status == 503
    assert answer.message.isprintable()
    assert runs(hub, "failing", "two", TWO_GPUS)


def test_a_start_that_is_cancelled_releases_what_it_held(hub: CrowdedHub) -> None:
    hub.token("cancelled")
    hub.rule("cancelled", "one", "never listens")
    starting = threading.Thread(target=start, args=(hub, "cancelled", "one", TWO_GPUS))
    starting.start()
    eventually(lambda: "one" in active(hub, "cancelled"), 20, "one is being started")
    assert start(hub, "cancelled", "two", ONE_GPU).status == 403
    assert stop(hub, "cancelled", "one") in (202, 204)
    starting.join()
    eventually(lambda: "one" not in active(hub, "cancelled"), 20, "one is stopped")
    assert runs(hub, "cancelled", "two", TWO_GPUS)


def test_a_lost_group_counts_at_once_and_leaves_a_form_that_works(hub: CrowdedHub) -> None:
    assert runs(hub, "loser", "", ONE_GPU)
    assert stop(hub, "loser", "") in (202, 204)
    eventually(lambda: active(hub, "loser") == {}, 20, "stopped")
    browser = Browser(hub.base)
    browser.log_in("loser")
    assert re.search(r'value="a100-1"\s+checked', browser.get("/hub/spawn").text), "chosen as the last time"

    hub.tell({**hub.people, "loser": []})
    again = start(hub, "loser", "", None)
    assert again.status == 403
    assert "choose anew" in again.message
    assert start(hub, "loser", "new", ONE_GPU).status == 403
    assert recorded(hub, "loser") == [], "judged with fresh groups, before a record"
    form = browser.get("/hub/spawn")
    assert form.status == 200
    assert re.search(r'value="standard"\s+checked', form.text)
    assert form.text.count('type="radio"') == 1
    assert browser.post("/hub/spawn", [("profile", "a100-1")]).status == 403
    assert browser.post("/hub/spawn", [("profile", "standard")]).status == 200
    eventually(lambda: active(hub, "loser") == {"": "standard"}, 20, "the standard one runs")


@pytest.mark.slow
def test_names_that_mean_something_elsewhere_have_directories_of_their_own(hub: CrowdedHub) -> None:
    names = ("", "default", "persist")
    for name in names:
        assert runs(hub, "namer", name, CPU)
    homes = {os.path.realpath(hub.directories("namer", name).home) for name in names}
    assert len(homes) == len(names)
    assert all(os.path.isdir(home) for home in homes)
    assert not any(one != other and one.startswith(f"{other}/") for one in homes for other in homes)
    for name in ("..", ".", "%2e%2e", "%2e", "x" * 255, "%C3%BC", "a%20b", "a/b", "-a", "A"):
        assert start(hub, "namer", name, CPU).status in (201, 202, 400, 404), (
            "JupyterHub 5 allows more than JupyterHub 6"
        )
    directories = [hub.directories("namer", name).home for name in ["", *recorded(hub, "namer")]]
    assert len(set(directories)) == len(directories)
    assert {os.path.dirname(os.path.dirname(home)) for home in directories} == {
        os.path.dirname(os.path.dirname(hub.directories("namer").home))
    }, "all beside each other"


def test_a_server_keeps_its_name(hub: CrowdedHub) -> None:
    assert runs(hub, "renamer", "old", CPU)
    assert stop(hub, "renamer", "old") in (202, 204)
    eventually(lambda: active(hub, "renamer") == {}, 20, "stopped")
    for body in ({"name": "new"}, {"name": "new", "display_name": "New"}, {"name": ".."}, {"name": ""}):
        answer = hub.rest("PATCH", path("renamer", "old"), "renamer", body)
        assert 400 <= answer.status < 500
    assert recorded(hub, "renamer") == ["old"]
    assert "Traceback" not in hub.log


@pytest.mark.slow
def test_a_hub_that_was_killed_still_knows_what_it_granted(hub: CrowdedHub) -> None:
    assert runs(hub, "killed", "one", ONE_GPU)
    hub.signal(signal.SIGKILL)
    hub.start()
    eventually(lambda: "one" in active(hub, "killed"), 20, "one is found again")
    assert start(hub, "killed", "two", TWO_GPUS).status == 403
    assert runs(hub, "killed", "two", CPU)
    assert stop(hub, "killed", "two") in (202, 204)
    eventually(lambda: list(active(hub, "killed")) == ["one"], 20, "two is stopped")

    hub.signal(signal.SIGKILL)
    with closing(sqlite3.connect(hub.data / "hub" / "jupyterhub.sqlite")) as database, database:
        ((state,),) = database.execute("SELECT state FROM spawners WHERE name = 'one' AND server_id IS NOT NULL")
        state = json.loads(state) | {"granted": {"profile": "a100-1", "cpus": "all"}}
        database.execute(
            "UPDATE spawners SET state = ? WHERE name = 'one' AND server_id IS NOT NULL", [json.dumps(state)]
        )
    hub.start()
    eventually(lambda: "one" in active(hub, "killed"), 20, "one is found again")
    refused = start(hub, "killed", "two", CPU)
    assert refused.status == 403
    assert "what 'one' was granted is not known" in refused.message
    assert stop(hub, "killed", "one") in (202, 204)
    eventually(lambda: active(hub, "killed") == {}, 20, "one is stopped")
    assert runs(hub, "killed", "two", CPU)
