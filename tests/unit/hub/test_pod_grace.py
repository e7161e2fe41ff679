"""Every end of a pod has its grace, through KubeSpawner's own code and an API server that writes down what is asked."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from traitlets import TraitError
from traitlets.config import Config

from hub.admission import FailedStart
from hub.cluster import configure
from hub.no_cluster import NO_CLUSTER
from hub.pod_spawner import PodSpawner
from hub.policy_file import SHIPPED
from tests.unit.hub.fake_cluster import FakeCluster, fake_cluster, leave_alone, plain, pod_spawner

GRACE_S = 120
POD = "jupyter-ada"


@pytest.fixture(autouse=True)
def _kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(NO_CLUSTER))
    monkeypatch.setattr("kubernetes_asyncio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))


def run(body: Callable[[FakeCluster], Awaitable[None]]) -> None:
    async def within() -> None:
        async with fake_cluster() as cluster:
            await body(cluster)

    asyncio.run(asyncio.wait_for(within(), 60))


async def started(cluster: FakeCluster, **settings: Any) -> PodSpawner:
    """A spawner whose pod runs, and whose notebook answers: the API server's own port stands for it."""
    cluster.on_create = cluster.run
    one = pod_spawner(cluster, port=cluster.port, **settings)
    await one.start()
    return one


def test_a_stop_gives_the_policys_grace() -> None:
    async def body(cluster: FakeCluster) -> None:
        one = await started(cluster)
        assert cluster.pod(POD)["spec"]["terminationGracePeriodSeconds"] == GRACE_S
        await one.stop()
        assert cluster.grace == [GRACE_S]

    run(body)


def test_a_stop_at_once_gives_the_grace_all_the_same() -> None:
    async def body(cluster: FakeCluster) -> None:
        await (await started(cluster)).stop(now=True)
        assert cluster.grace == [GRACE_S]

    run(body)


def test_a_notebook_that_ended_by_itself_has_the_grace() -> None:
    async def body(cluster: FakeCluster) -> None:
        one = await started(cluster)
        cluster.run(POD, state={"terminated": {"exitCode": 0}}, ready=False)
        while await one.poll() is None:
            await asyncio.sleep(0.05)
        assert cluster.grace == [GRACE_S]
        assert cluster.resources["pods"] == {}

    run(body)


def test_a_notebook_that_was_killed_for_its_memory_is_left_to_the_kubelet() -> None:
    async def body(cluster: FakeCluster) -> None:
        one = await started(cluster)
        cluster.run(POD, state={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, ready=False)
        await asyncio.sleep(0.3)
        assert await one.poll() is None
        assert cluster.grace == []

    run(body)


def test_a_pod_in_the_way_has_the_grace_even_if_kubespawner_has_no_time_to_wait_for_it() -> None:
    """KubeSpawner kills it when its own create is answered with a conflict."""

    async def body(cluster: FakeCluster) -> None:
        async def somebody_is_faster(spawner: PodSpawner, pod: Any) -> Any:
            cluster.create(plain(pod))
            while spawner._pod is None:
                await asyncio.sleep(0.05)
            return pod

        cluster.on_delete = lambda name: asyncio.get_running_loop().call_later(1.5, cluster.remove, name)
        await started(cluster, modify_pod_hook=somebody_is_faster, k8s_api_request_retry_timeout=1)
        assert (cluster.grace, cluster.conflicts) == ([GRACE_S], 1)
        assert len(cluster.created) == 2

    run(body)


def test_a_hook_that_fails_gives_the_grace() -> None:
    async def body(cluster: FakeCluster) -> None:
        def hook(spawner: Any, pod: Any) -> None:
            raise RuntimeError("no service could be made")

        with pytest.raises(RuntimeError, match="no service"):
            await started(cluster, after_pod_created_hook=hook)
        assert cluster.grace == [GRACE_S]

    run(body)


def test_a_pod_of_an_earlier_policy_has_the_grace_that_its_sidecar_was_told() -> None:
    async def body(cluster: FakeCluster) -> None:
        one = await started(cluster)
        cluster.pod(POD)["spec"]["terminationGracePeriodSeconds"] = 300
        cluster.run(POD)
        while one._pod is None or one._pod["spec"]["terminationGracePeriodSeconds"] != 300:
            await asyncio.sleep(0.05)
        await one.stop()
        assert cluster.grace == [300]

    run(body)


def test_a_grace_that_an_administrator_set_lower_is_the_policys() -> None:
    async def body(cluster: FakeCluster) -> None:
        await (await started(cluster, delete_grace_period=1)).stop()
        assert cluster.grace == [GRACE_S]

    run(body)


def test_a_new_start_waits_for_the_drain_of_the_last_pod_and_says_so() -> None:
    async def body(cluster: FakeCluster) -> None:
        await started(cluster)
        cluster.on_delete = leave_alone  # it drains
        again = pod_spawner(cluster, port=cluster.port)
        task = again.start()
        told = []
        async for line in again.progress():
            told.append(line["message"])
            if line["message"] == "Storage: saving your last session first":
                await asyncio.sleep(0.5)
                assert len(cluster.created) == 1
                cluster.remove(POD)
        await task
        assert (cluster.grace, cluster.conflicts) == ([GRACE_S], 0)
        assert told[0] == "Storage: saving your last session first"
        assert told[-1] == "JupyterLab is starting"

    run(body)


def test_a_last_pod_that_does_not_end_is_the_reason_that_is_given(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(Path(SHIPPED).read_text().replace("grace_s: 120", "grace_s: 1"))

    async def body(cluster: FakeCluster) -> None:
        await started(cluster)
        cluster.on_delete = leave_alone
        again = pod_spawner(cluster, policy_file=str(policy), restore_wait_s=1, start_timeout=4)
        with pytest.raises(FailedStart) as caught:
            await again.start()
        assert "your last session is still being saved" in caught.value.jupyterhub_message

    run(body)


def test_what_an_end_left_behind_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    message = {
        "schema": 1,
        "exit_code": 3,
        "protected": {"files": 7, "bytes": 70},
        "restored": {"files": 0},
        "left_behind": {"count": 2, "files": ["a.ipynb", "evil\n\u202eb"]},
        "persist": "full",
    }

    async def body(cluster: FakeCluster) -> None:
        one = await started(cluster)

        def drain(name: str) -> None:
            cluster.say_goodbye(name, json.dumps(message), 3)
            asyncio.get_running_loop().call_later(0.3, cluster.remove, name)

        cluster.on_delete = drain
        await one.stop()

    with caplog.at_level(logging.INFO):
        run(body)
    (line,) = [record for record in caplog.records if "NOT SAVED" in record.message]
    assert line.levelno == logging.ERROR
    assert line.message.endswith("NOT SAVED: 2 files (a.ipynb, evil\\u000a\\u202eb); Persist is full; exit code 3")


def test_an_end_without_a_word_is_logged_as_unknown(caplog: pytest.LogCaptureFixture) -> None:
    async def body(cluster: FakeCluster) -> None:
        one = await started(cluster)
        cluster.remove(POD)  # by force, or with its node
        while await one.poll() is None:
            await asyncio.sleep(0.05)

    with caplog.at_level(logging.INFO):
        run(body)
    assert [r.levelno for r in caplog.records if "nobody knows whether everything is saved" in r.message] == [40]


def test_times_that_contradict_one_another_end_the_hub_with_one_line() -> None:
    config = Config()
    config.KubeSpawner.start_timeout = 240
    with pytest.raises(TraitError) as caught:
        configure(config, SHIPPED)
    assert "start_timeout (240 s) must be more than storage.grace_s of the policy (120 s)" in str(caught.value)
    config.KubeSpawner.start_timeout = 300
    configure(config, SHIPPED)
    assert config.JupyterHub.spawner_class is PodSpawner
    config.PodSpawner.restore_wait_s = 200
    with pytest.raises(TraitError, match=r"restore_wait_s \(200 s\)"):
        configure(config, SHIPPED)


def test_times_that_contradict_one_another_refuse_a_start_too() -> None:
    async def body(cluster: FakeCluster) -> None:
        with pytest.raises(FailedStart) as caught:
            await started(cluster, start_timeout=60)
        assert "start_timeout (60 s)" in caught.value.jupyterhub_message
        assert cluster.created == []

    run(body)


@pytest.mark.parametrize(("minor", "native"), [("28+", False), ("29", True), ("36", True)])
def test_a_cluster_without_native_sidecars_gets_an_ordinary_one(minor: str, native: bool) -> None:
    async def body(cluster: FakeCluster) -> None:
        cluster.minor = minor
        await started(cluster)
        spec = cluster.created[0]["spec"]
        inits = [each["name"] for each in spec["initContainers"]]
        beside = [each["name"] for each in spec["containers"]]
        assert ("storage" in inits, "storage" in beside) == (native, not native)

    run(body)
