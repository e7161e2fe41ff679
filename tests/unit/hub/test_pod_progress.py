"""What a pod that starts, or does not, is told as: tables of what Kubernetes says, and what its user reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from hub.admission import FailedStart
from hub.no_cluster import NO_CLUSTER
from hub.pod_plan import Deployment, PodPlan, pod_plan
from hub.pod_progress import hopeless, steps
from hub.pod_words import gpu_model, no_place
from hub.policy_file import SHIPPED, load_policy
from hub.resolve import Granted, resolve
from tests.unit.hub.fake_cluster import FakeCluster, fake_cluster, pod_spawner

POD = "jupyter-ada"


def plan(profile: str = "a100-1", **changes: Any) -> PodPlan:
    policy = load_policy()
    answer = resolve("ada", ["cpsHPCAccess"], options={"profile": profile}, running={}, policy=policy)
    assert isinstance(answer, Granted)
    made = pod_plan(answer.decision, policy, Deployment(image="x:1"), user="ada", server="", groups=["cpsHPCAccess"])
    return replace(made, **changes)


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"uid": "one", "name": POD}, "spec": {}, "status": {"phase": "Pending", **status}}


def init(name: str, state: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"initContainerStatuses": [{"name": name, "image": f"{name}:1", "state": state, **more}]}


def notebook(state: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"phase": "Running", "containerStatuses": [{"name": "notebook", "image": "img:1", "state": state, **more}]}


def ended(code: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def event(reason: str, message: str, *, kind: str = "Warning", uid: str = "one") -> dict[str, Any]:
    return {"involvedObject": {"uid": uid}, "reason": reason, "message": message, "type": kind}


def texts(a_pod: dict[str, Any], *events: dict[str, Any], a_plan: PodPlan | None = None) -> list[str]:
    return [step.text for step in steps(a_pod, events, a_plan or plan())]


REPORT = json.dumps(
    {"schema": 1, "expected": 1, "verdict": "fail", "summary": "GPU 0 has fallen off the bus", "checks": []}
)


@pytest.mark.parametrize(
    ("profile", "message", "said"),
    [
        (
            "a100-1",
            "0/3 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, "
            "2 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available: 3 Preemption is not helpful.",
            "all A100 GPUs are in use; your server starts as soon as one is free",
        ),
        (
            "a100-2",
            "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.",
            "no node has 2 free A100 GPUs; your server starts as soon as one has",
        ),
        (
            "custom",
            "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient nvidia.com/gpu.",
            "all GPUs are in use; your server starts as soon as one is free",
        ),
        (
            "a100-1",
            "0/2 nodes are available: 1 Insufficient memory, 1 Insufficient nvidia.com/gpu. preemption: none.",
            "no node has 1 free A100 GPU together with 8 cores and 32 GB memory",
        ),
        (
            "cpu-basic",
            "0/2 nodes are available: 2 Insufficient cpu, 1 Insufficient memory.",
            "no node has 2 cores and 4 GB memory free; your server starts as soon as one has",
        ),
        (
            "a100-1",
            "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.shared.",
            "no node takes your server",
        ),
        (
            "cpu-basic",
            "0/2 nodes are available: 2 Too many pods.",
            "every node is full; your server starts as soon as one is not",
        ),
        (
            "cpu-basic",
            "0/1 nodes are available: 1 node(s) had untolerated taint {dedicated: ml\u202e}.",
            "the nodes that are free are reserved for others ({dedicated: ml\\u202e})",
        ),
        (
            "a100-1",
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
            "no node has the labels that this profile asks for (accelerator=a100)",
        ),
        (
            "cpu-basic",
            'persistentvolumeclaim "jhub-userdir-rwx" not found',
            "a volume claim that the policy names does not exist",
        ),
        (
            "cpu-basic",
            "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
            "a volume claim that the policy names has no volume yet",
        ),
        ("cpu-basic", "something\nnew", "no node takes your server"),
    ],
)
def test_a_full_cluster_is_told_in_plain_words(profile: str, message: str, said: str) -> None:
    a_plan = plan(profile, node_selector={"accelerator": "a100"})
    told = no_place(message, a_plan)
    assert told.split(". Kubernetes says: ")[0] == said
    assert told.isprintable()
    conditions = [{"type": "PodScheduled", "status": "False", "message": message}]
    assert texts(pod(conditions=conditions), a_plan=a_plan) == [f"Waiting: {told}"]
    assert not hopeless(pod(conditions=conditions), a_plan)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("🚀 Single A100 GPU", "A100"),
        ("Two H200 (NVLink)", "H200"),
        ("A small T4", "T4"),
        ("RTX 4090 box", "RTX 4090"),
        ("L40S node", "L40S"),
        ("16 cores, 64 GB", ""),
        ("⚙️ Custom Configuration", ""),
    ],
)
def test_the_gpus_are_called_what_the_profile_calls_them(name: str, model: str) -> None:
    assert gpu_model(name) == model


def test_everything_that_goes_well_is_told_in_order() -> None:
    good = json.dumps(
        {"schema": 1, "expected": 1, "verdict": "pass", "summary": "GPU check: passed – 1 GPU", "checks": []}
    )
    prepared = json.dumps({"schema": 1, "persist": "ok", "detail": "", "tools_detail": ""})
    a_pod = pod(
        phase="Running",
        conditions=[{"type": "PodScheduled", "status": "True"}],
        initContainerStatuses=[
            {"name": "storage-prepare", "state": ended(0, prepared)},
            {"name": "gpu-preflight", "state": ended(0, good)},
            {"name": "storage", "state": {"running": {}}, "started": True},
        ],
        containerStatuses=[{"name": "notebook", "state": {"running": {}}}],
    )
    told = texts(
        a_pod,
        event("Pulling", 'Pulling image "img:1"', kind="Normal"),
        event("Unhealthy", "Startup probe failed: restoring: bringing back 10 of 500 files\n"),
        event("Unhealthy", "(combined from similar events): Startup probe failed: restoring: bringing back 90 of 500"),
        event("Unhealthy", "Startup probe failed: of another pod", uid="two"),
    )
    assert told == [
        "A node was found",
        'Pulling image "img:1"; this takes minutes on a node that has never had it',
        "GPU check: passed – 1 GPU",
        "Storage: bringing your work back",
        "Storage: restoring: bringing back 10 of 500 files",
        "Storage: restoring: bringing back 90 of 500",
        "Storage: your home is ready, and is being saved",
        "JupyterLab is starting",
    ]
    assert not hopeless(a_pod, plan())


def test_the_line_never_goes_backwards() -> None:
    a_pod = pod(
        conditions=[{"type": "PodScheduled", "status": "True"}],
        initContainerStatuses=[
            {"name": "storage-prepare", "state": {"running": {}}},
            {"name": "gpu-preflight", "state": {"running": {}}},
            {"name": "storage", "state": {"running": {}}, "started": True},
        ],
        containerStatuses=[{"name": "notebook", "state": {"running": {}}}],
    )
    numbers = [step.progress for step in steps(a_pod, [event("FailedMount", "x")], plan())]
    assert numbers == sorted(numbers)
    assert max(numbers) <= 100


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ('MountVolume.SetUp failed for volume "persist" : mount failed: exit status 32', "Persist cannot be mounted"),
        (
            "Unable to attach or mount volumes: unmounted volumes=[shared persist], unattached volumes=[]: timed out",
            "Shared and Persist cannot be mounted",
        ),
        ('MountVolume.SetUp failed for volume "kube-api-access-x" : no', "a volume cannot be mounted"),
    ],
)
def test_a_volume_that_does_not_mount_is_told_by_its_name(message: str, said: str) -> None:
    (told,) = texts(pod(), event("FailedMount", message))
    assert told.startswith(f"Waiting: {said} on the node; it is tried again.")


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (
            notebook(ended(127, "exec: jupyterhub-singleuser: not found\n")),
            "there is no jupyterhub-singleuser in img:1; choose an image with JupyterHub in it.",
        ),
        (
            notebook(
                waiting("CrashLoopBackOff", "back-off 10s restarting"),
                restartCount=1,
                lastState=ended(
                    128, 'exec: "jupyterhub-singleuser": executable file not found in $PATH: unknown', "StartError"
                ),
            ),
            "there is no jupyterhub-singleuser in img:1; choose an image with JupyterHub in it.",
        ),
        (
            notebook(
                waiting("RunContainerError", 'exec: "jupyterhub-singleuser": executable file not found in $PATH'),
            ),
            "there is no jupyterhub-singleuser in img:1; choose an image with JupyterHub in it.",
        ),
        (
            notebook(waiting("CrashLoopBackOff"), restartCount=2, lastState=ended(1, "a\nTypeError: \x1b[31mno")),
            "JupyterLab ends as soon as it is started (exit code 1): TypeError: \\u001b[31mno",
        ),
        (
            notebook(waiting("CrashLoopBackOff"), restartCount=3, lastState=ended(137, "", "OOMKilled")),
            "JupyterLab needs more memory than the profile has",
        ),
        (
            notebook(waiting("ImagePullBackOff", 'Back-off pulling image "img:1": manifest unknown')),
            "the image img:1 cannot be fetched: Back-off pulling",
        ),
        (notebook(waiting("InvalidImageName", "couldn't parse")), "the image img:1 cannot be fetched: couldn't parse"),
        (
            init(
                "storage", waiting("CrashLoopBackOff"), restartCount=1, lastState=ended(4, "x\nsidecar: Persist at /w")
            ),
            "its storage cannot be used (exit code 4): sidecar: Persist at /w",
        ),
        (
            init("storage-prepare", ended(0, json.dumps({"schema": 1, "persist": "full", "detail": "is full\u202e"}))),
            "you have no directory on Persist: is full\\u202e",
        ),
        (init("storage-prepare", ended(0, "gibberish")), "you have no directory on Persist: storage-prepare left no"),
        (
            {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "Allocate failed: no devices"},
            "its pod has failed (UnexpectedAdmissionError: Allocate failed: no devices)",
        ),
    ],
)
def test_what_will_not_get_better_is_refused_with_its_cause(status: dict[str, Any], why: str) -> None:
    told = hopeless(pod(**status), plan())
    assert told.startswith(f"Your server was not started: {why}")
    assert told.isprintable()


@pytest.mark.parametrize(
    "status",
    [
        notebook(ended(1, "a first try")),
        notebook(waiting("CrashLoopBackOff"), restartCount=1, lastState=ended(1)),
        notebook(waiting("ImagePullBackOff", "i/o timeout")),
        notebook(waiting("CreateContainerConfigError", "failed to create subPath directory")),
        notebook({"running": {}}),
        init("storage", ended(1, "a defect"), restartCount=1),
        init("storage", {"running": {}}, started=True, restartCount=9, lastState=ended(4)),
        init("storage-prepare", {"running": {}}),
        init("gpu-preflight", ended(0, REPORT)),
        {},
    ],
)
def test_what_can_get_better_is_waited_for(status: dict[str, Any]) -> None:
    assert hopeless(pod(**status), plan()) == ""


@pytest.mark.parametrize("message", [REPORT, "", "x" * 5000, '{"schema": 1, "verdict": "splendid"}', "[" * 4000])
def test_a_gpu_that_is_not_known_to_work_is_refused_under_block(message: str) -> None:
    a_pod = pod(**init("gpu-preflight", ended(0, message)))
    why = hopeless(a_pod, plan(block_on_gpu=True))
    assert why.startswith("Your server was not started: its GPUs need attention. GPU check: ")
    assert hopeless(a_pod, plan()) == ""
    assert hopeless(a_pod, plan("cpu-basic", block_on_gpu=True)) == ""


def test_hostile_text_is_made_visible_wherever_it_comes_from() -> None:
    bad = "x\n<b>\u202e\x1b[2J\u2028y"
    a_pod = pod(
        phase="Running",
        reason=bad,
        message=bad,
        conditions=[{"type": "PodScheduled", "status": "False", "message": bad}],
        initContainerStatuses=[
            {
                "name": "storage-prepare",
                "state": ended(0, json.dumps({"schema": 1, "persist": bad, "tools_detail": bad})),
            },
            {
                "name": "gpu-preflight",
                "state": ended(0, json.dumps({"schema": 1, "expected": 1, "verdict": "warn", "summary": bad})),
            },
            {"name": "storage", "image": bad, "state": ended(4, bad)},
        ],
        containerStatuses=[{"name": "notebook", "image": bad, "state": waiting("ErrImagePull", bad)}],
    )
    events = [event(each, bad) for each in ("Pulling", "FailedMount", "Unhealthy", "Anything")]
    events.append(event("Unhealthy", f"Startup probe failed: {bad}"))
    told = [*texts(a_pod, *events), hopeless(a_pod, plan(block_on_gpu=True))]
    assert len(told) > 8
    assert all(text.isprintable() for text in told)


# Through KubeSpawner and an API server.


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


async def refusal(cluster: FakeCluster, **settings: Any) -> tuple[str, list[str]]:
    """Why the start was refused, and what the page told meanwhile."""
    one = pod_spawner(cluster, **settings)
    start = one.start()
    told = [line["message"] async for line in one.progress()]
    with pytest.raises(FailedStart) as caught:
        await start
    assert await one.poll() is None  # so JupyterHub stops it
    await one.stop()
    assert cluster.resources["pods"] == {}
    return caught.value.jupyterhub_message, told


def test_block_refuses_with_the_cause_and_its_pod_ends_with_all_its_grace(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(Path(SHIPPED).read_text().replace("on_failure: warn", "on_failure: block"))

    async def body(cluster: FakeCluster) -> None:
        cluster.on_create = lambda name: cluster.update(name, **init("gpu-preflight", ended(0, REPORT)))
        message, told = await refusal(cluster, options={"profile": "a100-1"}, policy_file=str(policy))
        assert message.startswith("Your server was not started: its GPUs need attention.")
        assert "GPU 0 has fallen off the bus" in message
        assert any("GPU 0 has fallen off the bus" in line for line in told)
        assert cluster.grace == [120]

    run(body)


def test_an_image_without_jupyterhub_is_refused_within_seconds() -> None:
    """Its container runs for a moment each time, which is all that KubeSpawner waits for."""

    async def body(cluster: FakeCluster) -> None:
        def come_and_go(name: str) -> None:
            cluster.run(name)
            late = asyncio.get_running_loop().call_later
            late(1.0, lambda: cluster.run(name, state=ended(127, "jupyterhub-singleuser: not found"), ready=False))

        cluster.on_create = come_and_go
        message, _ = await asyncio.wait_for(refusal(cluster), 30)
        assert "there is no jupyterhub-singleuser in image" in message

    run(body)


def test_a_start_that_takes_too_long_says_what_it_was_waiting_for(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(Path(SHIPPED).read_text().replace("grace_s: 120", "grace_s: 1"))
    said = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
    full = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}]

    async def body(cluster: FakeCluster) -> None:
        cluster.on_create = lambda name: cluster.update(name, conditions=full)
        times = {"policy_file": str(policy), "restore_wait_s": 1, "start_timeout": 5}
        message, told = await refusal(cluster, options={"profile": "a100-1"}, **times)
        assert message.startswith("Your server did not start within 5 s. Waiting: all A100 GPUs are in use;")
        assert any(line.startswith("Waiting: all A100 GPUs are in use;") for line in told)

    run(body)


def test_a_pod_that_the_cluster_does_not_take_is_refused_with_what_it_says() -> None:
    async def body(cluster: FakeCluster) -> None:
        for said, why in (
            ('pods "x" is forbidden: exceeded quota: hub\u202e', "the hub's share of the cluster is used up. "),
            ("admission webhook denied the request", "the cluster does not take its pod. "),
        ):
            cluster.refusal = said
            with pytest.raises(FailedStart) as caught:
                await pod_spawner(cluster).start()
            shown = said.replace("\u202e", "\\u202e")
            assert caught.value.jupyterhub_message == f"Your server was not started: {why}Kubernetes says: {shown}"

    run(body)


def test_restore_progress_reaches_the_page_by_way_of_events() -> None:
    async def body(cluster: FakeCluster) -> None:
        def restore(name: str) -> None:
            cluster.update(name, **init("storage", {"running": {}}, started=False))
            cluster.tell(name, "Unhealthy", "Startup probe failed: restoring: bringing back 10 of 500 files")
            asyncio.get_running_loop().call_later(1.5, cluster.run, name)

        cluster.on_create = restore
        one = pod_spawner(cluster, port=cluster.port)
        start = one.start()
        told = [line["message"] async for line in one.progress()]
        assert await start == f"http://127.0.0.1:{cluster.port}"
        assert "Storage: restoring: bringing back 10 of 500 files" in told

    run(body)
