"""On a real API server, scheduler and kubelet: the pod runs, and what its notebook wrote survives each end of it.

Bytes are compared by a pod that reads the claim and has nothing to do with ours.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import pytest
import yaml
from kubernetes_asyncio.client.rest import ApiException

from hub.admission import FailedStart
from hub.pod_spawner import PodSpawner
from tests.cluster.conftest import Body
from tests.cluster.world import GRACE_S, World, until
from tests.unit.hub.manifests import CASES, GOLDEN

pytestmark = pytest.mark.cluster

OnCluster = Callable[[Body], None]
HOME = "/home/jovyan"


async def stop(world: World, one: PodSpawner) -> None:
    await one.stop()


async def cull(world: World, one: PodSpawner) -> None:
    """As JupyterHub ends a server, whoever asks: the culler asks over its API."""
    assert await one.poll() is None
    await one.stop(now=False)


async def stop_now(world: World, one: PodSpawner) -> None:
    await one.stop(now=True)


async def shut_down(world: World, one: PodSpawner) -> None:
    """File → Shut Down: the notebook ends with exit code 0, and the hub sees it at its next poll."""
    await world.run(one.pod_name, "notebook", "kill -TERM 1")

    async def ended() -> bool:
        return await one.poll() is not None

    await until(ended, GRACE_S + 60)


async def delete(world: World, one: PodSpawner) -> None:
    """Somebody deletes the pod, and not the hub."""
    await world.api.delete_namespaced_pod(one.pod_name, world.settings.namespace)
    await until(lambda: one._pod is None, GRACE_S + 60)


ENDS = (stop, cull, stop_now, shut_down, delete)


@pytest.mark.parametrize("case", CASES)
def test_the_api_server_accepts_the_golden_pods(on_cluster: OnCluster, case: str) -> None:
    async def body(world: World) -> None:
        pod = yaml.safe_load((GOLDEN / f"{case}.yaml").read_text())
        accepted = await world.create(pod, dry_run="All", field_validation="Strict")
        assert accepted.metadata.name == pod["metadata"]["name"]

    on_cluster(body)


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_what_was_written_a_moment_before_the_end_is_saved_and_comes_back(
    on_cluster: OnCluster, end: Callable[[World, PodSpawner], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    async def body(world: World) -> None:
        one = await world.started()
        wanted = {
            name: await world.write(one, name, kib=kib) for name, kib in (("small.ipynb", 1), ("large.bin", 20480))
        }
        await end(world, one)
        assert {name: await world.saved(name) for name in wanted} == wanted
        again = await world.started()
        for name, sha in wanted.items():
            assert await world.run(again.pod_name, "notebook", f"sha256sum <{HOME}/{name} | cut -c1-64") == sha

    with caplog.at_level(logging.INFO):
        on_cluster(body)
    assert not [record for record in caplog.records if "NOT SAVED" in record.getMessage()]


def test_a_stop_logs_that_everything_is_saved(on_cluster: OnCluster, caplog: pytest.LogCaptureFixture) -> None:
    async def body(world: World) -> None:
        one = await world.started()
        await world.write(one, "a.txt")
        await one.stop()

    with caplog.at_level(logging.INFO):
        on_cluster(body)
    assert any("everything is saved" in record.getMessage() for record in caplog.records)


def test_a_pod_that_is_deleted_by_force_loses_only_the_last_seconds(on_cluster: OnCluster) -> None:
    async def body(world: World) -> None:
        one = await world.started()
        wanted = await world.write(one, "before.txt")
        await until(lambda: _is_saved(world, "before.txt", wanted), 30)
        await world.api.delete_namespaced_pod(one.pod_name, world.settings.namespace, grace_period_seconds=0)
        await until(lambda: one._pod is None, 60)
        again = await world.started()
        assert await world.run(again.pod_name, "notebook", f"sha256sum <{HOME}/before.txt | cut -c1-64") == wanted

    on_cluster(body)


async def _is_saved(world: World, name: str, wanted: str) -> bool:
    return await world.saved(name) == wanted


def test_a_fast_restart_waits_for_the_drain_and_finds_everything(on_cluster: OnCluster) -> None:
    async def body(world: World) -> None:
        one = await world.started()
        wanted = await world.write(one, "large.bin", kib=51200)
        ending = asyncio.ensure_future(one.stop())
        await until(lambda: one._pod is None or "deletionTimestamp" in one._pod["metadata"], 30)
        again = world.spawner()
        start = again.start()
        told = [line["message"] async for line in again.progress()]
        await start
        await ending
        assert told[0] == "Storage: saving your last session first"
        assert await world.run(again.pod_name, "notebook", f"sha256sum <{HOME}/large.bin | cut -c1-64") == wanted

    on_cluster(body)


def test_the_notebook_cannot_reach_the_backup_and_the_sidecar_cannot_detach_a_mount(on_cluster: OnCluster) -> None:
    async def body(world: World) -> None:
        one = await world.started()
        wanted = await world.write(one, "a.txt")
        await until(lambda: _is_saved(world, "a.txt", wanted), 30)
        for script in (f"rm -rf {HOME}/Persist/Backup/default", f"touch {HOME}/Persist/.jupyterhub-sidecar/x"):
            assert "ead-only" in await world.run(one.pod_name, "notebook", script)
        for name in ("Persist", "Shared"):
            assert "busy" in await world.run(one.pod_name, "storage", f"rmdir /watch/home/{name}")
            assert "busy" in await world.run(one.pod_name, "storage", f"mv /watch/home/{name} /watch/home/other")
            assert "ead-only" in await world.run(one.pod_name, "storage", f"touch /watch/home/{name}/x")
        await world.run(one.pod_name, "notebook", f"rm -rf {HOME} {HOME}/.[!.]*")
        mounted = await world.run(one.pod_name, "notebook", f"grep -c ' {HOME}/[PS]' /proc/self/mountinfo")
        assert mounted == "4"
        assert await world.saved("a.txt") == wanted

    on_cluster(body)


def test_two_servers_of_one_user_have_one_persist_and_two_backups(on_cluster: OnCluster) -> None:
    async def body(world: World) -> None:
        one, two = await asyncio.gather(world.started(), world.started("second"))
        first, second = await world.write(one, "a.txt"), await world.write(two, "a.txt")
        await asyncio.gather(one.stop(), two.stop())
        assert (await world.saved("a.txt"), await world.saved("a.txt", "second")) == (first, second)

    on_cluster(body)


def test_an_image_without_jupyterhub_is_refused_within_a_minute(on_cluster: OnCluster) -> None:
    async def body(world: World) -> None:
        one = world.spawner(command=["jupyterhub-singleuser"])
        with pytest.raises(FailedStart) as caught:
            await asyncio.wait_for(one.start(), 60)
        assert "there is no jupyterhub-singleuser in" in caught.value.jupyterhub_message

    on_cluster(body)


def test_the_tools_are_found_and_are_files(on_cluster: OnCluster) -> None:
    async def body(world: World) -> None:
        one = await world.started()
        assert await world.run(one.pod_name, "notebook", "test -f /usr/local/bin/gpu-check && echo yes") == "yes"
        assert "ead-only" in await world.run(one.pod_name, "notebook", "echo x >/usr/local/bin/gpu-check")

    on_cluster(body)


def test_spawn_overhead(on_cluster: OnCluster, record_property: Callable[[str, object], None]) -> None:
    """Seconds until a notebook runs, with our containers and in a bare pod of the same image."""

    async def body(world: World) -> None:
        await (await world.started()).stop()  # the image and the user's directory are there
        took = {}
        for name in ("ours", "bare"):
            one = world.spawner()
            began = time.monotonic()
            if name == "ours":
                await one.start()
            else:
                await _start_bare(world, one)
            took[name] = time.monotonic() - began
            await one.stop()
        record_property("spawn_s", took)
        print(f"a bare pod: {took['bare']:.1f} s; with our containers: {took['ours']:.1f} s")
        assert took["ours"] < took["bare"] + 30

    on_cluster(body)


async def _start_bare(world: World, one: PodSpawner) -> None:
    container = {"name": "notebook", "image": world.settings.image, **one.extra_container_config}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    body = {"metadata": {"name": one.pod_name, "labels": {"component": one.component_label}}, "spec": spec}
    try:
        await world.create(body)
    except ApiException as error:
        raise AssertionError(f"the bare pod is refused: {error.reason}") from error
    await one._start_watching_pods()
    await until(lambda: one._pod is not None and one._pod["status"]["phase"] == "Running", 60)
