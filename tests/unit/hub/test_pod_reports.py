from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from hub.no_cluster import NO_CLUSTER
from hub.pod_reflector import RememberingPodReflector
from hub.pod_reports import LeftBehind, Preparation, Safe, UnknownEnd, describe, end_of, preparation, storage_ran
from sidecar.farewell import termination_message
from sidecar.status import Status
from tests.unit.hub.fake_cluster import FakeCluster, fake_cluster, pod_spawner


def pod(
    message: object, code: int | None = 0, *, state: str = "state", kind: str = "initContainerStatuses"
) -> dict[str, Any]:
    ended = {"exitCode": code, "message": message}
    return {"status": {kind: [{"name": "storage", "state": {}, state: {"terminated": ended}}]}}


def said(code: int, **status: Any) -> str:
    return termination_message(code, Status(**status)).decode()


def test_what_the_sidecar_says_is_what_is_read() -> None:
    assert end_of(pod(said(0, protected_files=7))) == Safe(7)
    left = {"count": 3, "files": [{"path": "a.ipynb"}, {"path": "b\n\u202ec"}]}
    read = end_of(pod(said(5, protected_files=7, left_behind=left, persist_state="hung"), 5))
    assert read == LeftBehind(3, ("a.ipynb", "b\\u000a\\u202ec"), "hung", 5)
    assert describe(read) == "NOT SAVED: 3 files (a.ipynb, b\\u000a\\u202ec, …); Persist is hung; exit code 5"


def test_the_longest_report_of_a_sidecar_is_read() -> None:
    left = {"count": 5000, "files": [{"path": "x" * 400} for _ in range(500)]}
    read = end_of(pod(said(3, left_behind=left), 3))
    assert isinstance(read, LeftBehind)
    assert read.count == 5000
    assert 0 < len(read.files) <= 20


def test_an_ordinary_container_and_one_that_was_started_again_are_read_too() -> None:
    assert end_of(pod(said(0), kind="containerStatuses")) == Safe(0)
    assert end_of(pod(said(0), state="lastState")) == Safe(0)


GOOD = json.loads(said(0, protected_files=1))


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (None, 137),
        ("", 0),
        ("Traceback\nsidecar: Persist at /watch/persist is not mounted", 4),
        ("[" * 4000, 0),
        ("[]", 0),
        (json.dumps({**GOOD, "schema": 2}), 0),
        (json.dumps({**GOOD, "left_behind": []}), 0),
        (json.dumps({**GOOD, "left_behind": {"count": -1}}), 0),
        (json.dumps({**GOOD, "left_behind": {"count": True}}), 0),
        (json.dumps({**GOOD, "protected": {"files": "7"}}), 0),
        (json.dumps({**GOOD, "exit_code": None}), 0),
        (json.dumps(GOOD)[:-1], 0),
        (json.dumps({**GOOD, "padding": "x" * 5000}), 0),
        (5, 0),
    ],
)
def test_what_is_no_report_is_unknown_and_never_safe(message: object, code: int) -> None:
    read = end_of(pod(message, code))
    assert isinstance(read, UnknownEnd)
    assert describe(read).startswith("nobody knows whether everything is saved: ")
    assert describe(read).isprintable()


def test_no_end_is_unknown() -> None:
    assert end_of({"status": {}}) == UnknownEnd("the sidecar's end was not seen")
    assert isinstance(end_of({}), UnknownEnd)


def test_a_report_that_says_safe_over_another_exit_code_is_not_safe() -> None:
    assert not isinstance(end_of(pod(json.dumps(GOOD), 137)), Safe)
    assert not isinstance(end_of(pod(json.dumps({**GOOD, "left_behind": {"count": 1, "files": []}}), 0)), Safe)


def test_a_state_of_persist_that_nobody_knows_is_unknown() -> None:
    report = {**GOOD, "exit_code": 3, "persist": "<script>", "left_behind": {"count": 1, "files": [5, "x"]}}
    assert end_of(pod(json.dumps(report), 3)) == LeftBehind(1, ("x",), "unknown", 3)


def prepared(message: object) -> dict[str, Any]:
    ended = {"exitCode": 0, "message": message}
    return {"status": {"initContainerStatuses": [{"name": "storage-prepare", "state": {"terminated": ended}}]}}


def test_what_storage_prepare_says_is_read() -> None:
    report = {"schema": 1, "persist": "ok", "detail": "", "directory": "ada", "new": True, "tools_detail": ""}
    assert preparation(prepared(json.dumps(report))) == Preparation("", "")
    assert preparation({"status": {}}) is None
    denied = {**report, "persist": "denied", "detail": "does not let us in\n"}
    assert preparation(prepared(json.dumps(denied))) == Preparation("does not let us in\\u000a", "")
    assert preparation(prepared(json.dumps({**report, "persist": None, "detail": ""}))) == Preparation("None", "")
    toolless = {**report, "tools_detail": "no tools\u2028"}
    assert preparation(prepared(json.dumps(toolless))) == Preparation("", "no tools\\u2028")


@pytest.mark.parametrize(
    ("status", "ran"),
    [
        ({}, False),
        ({"state": {"waiting": {"reason": "PodInitializing"}}}, False),
        ({"state": {"running": {}}}, True),
        ({"state": {"terminated": {"exitCode": 0}}}, True),
        ({"state": {"waiting": {}}, "lastState": {"terminated": {"exitCode": 4}}}, True),
    ],
)
def test_a_sidecar_that_never_ran_has_no_end_to_tell_of(status: dict[str, Any], ran: bool) -> None:
    assert storage_ran({"status": {"initContainerStatuses": [{"name": "storage", **status}]}}) is ran
    assert not storage_ran({"status": {"containerStatuses": [{"name": "notebook", **status}]}})


def test_a_deleted_pod_is_remembered_as_it_was_last_seen_whichever_way_it_goes() -> None:
    async def body(cluster: FakeCluster) -> None:
        reflector = RememberingPodReflector(namespace="hubs", labels={"component": "x"})
        for name in ("watched", "missed", "replaced", "stays"):
            cluster.create({"metadata": {"name": name}, "spec": {}})
        await reflector.start()
        while not cluster.is_watched("pods"):
            await asyncio.sleep(0.02)
        cluster.update("watched", phase="Succeeded")
        cluster.remove("watched")
        while "hubs/watched" in reflector.pods:
            await asyncio.sleep(0.02)
        await reflector.stop()
        cluster.remove("missed")
        cluster.remove("replaced")
        cluster.create({"metadata": {"name": "replaced"}, "spec": {}})
        await reflector._list_and_update()
        seen = {name: reflector.last(f"hubs/{name}") for name in ("watched", "missed", "replaced", "stays")}
        assert {name: last and last["status"]["phase"] for name, last in seen.items()} == {
            "watched": "Succeeded",
            "missed": "Pending",
            "replaced": "Pending",
            "stays": None,
        }
        assert reflector.last("hubs/watched") is None

    async def within() -> None:
        async with fake_cluster() as cluster:
            pod_spawner(cluster)  # configures the client
            await body(cluster)

    asyncio.run(asyncio.wait_for(within(), 30))


@pytest.fixture(autouse=True)
def _kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(NO_CLUSTER))
    monkeypatch.setattr("kubernetes_asyncio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
