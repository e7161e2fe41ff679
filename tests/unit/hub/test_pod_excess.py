from __future__ import annotations

from typing import Any

import pytest

from hub.pod_excess import pod_excess
from hub.quantity import Size

GRANTED = Size(millicpu=8000, memory_bytes=32 * 1024**3, gpus=1)


def container(name: str = "notebook", **limits: Any) -> dict[str, Any]:
    named = {"nvidia.com/gpu" if kind == "gpu" else kind: value for kind, value in limits.items()}
    return {"name": name, "resources": {"limits": named}}


def pod(*beside: dict[str, Any], inits: tuple[dict[str, Any], ...] = (), **limits: Any) -> dict[str, Any]:
    notebook = container(**{"cpu": 8.0, "memory": 32 * 1024**3, "gpu": "1", **limits})
    return {"spec": {"containers": [notebook, *beside], "initContainers": list(inits)}}


SIDECAR = {"restartPolicy": "Always"}


@pytest.mark.parametrize(
    "manifest",
    [
        pod(),
        pod(cpu="8", memory="32Gi", gpu=1),
        pod(cpu="7999m", memory="32G", gpu="0"),
        pod(cpu="0.008k", memory="34359738368"),
        pod(cpu="8e0", memory="34359738368000m"),
        pod(container("proxy", cpu="64", memory="1Ti")),
        pod(inits=(container("preflight", cpu="64", gpu="1"),)),
        pod(inits=(container("storage", cpu="1", gpu="0") | SIDECAR,)),
    ],
)
def test_a_pod_within_its_decision_has_no_excess(manifest: dict[str, Any]) -> None:
    assert pod_excess(manifest, GRANTED) == []


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (pod(cpu=8.001), ["8.001 cores where 8 were granted"]),
        (pod(cpu="16"), ["16 cores where 8 were granted"]),
        (pod(cpu="1k"), ["1000 cores where 8 were granted"]),
        (pod(cpu=None), ["no limit on cpu"]),
        (pod(memory=None), ["no limit on memory"]),
        (pod(memory="33Gi"), ["35433480192 bytes of memory where 32G was granted"]),
        (pod(memory="1E"), ["1000000000000000000 bytes of memory where 32G was granted"]),
        (pod(memory="many"), ["an unreadable number of bytes of memory where 32G was granted"]),
        (pod(cpu="-1"), ["an unreadable number of cores where 8 were granted"]),
        (pod(gpu="2"), ["2 GPUs where 1 were granted"]),
        (pod(container("second", gpu="1")), ["2 GPUs where 1 were granted"]),
        (pod(container("second", **{"nvidia.com/mig-1g.5gb": "3"})), ["4 GPUs where 1 were granted"]),
        (pod(container("second", **{"amd.com/gpu": 1})), ["2 GPUs where 1 were granted"]),
        (pod(inits=(container("preflight", gpu="2"),)), ["2 GPUs where 1 were granted"]),
        (pod(inits=(container("storage", gpu="1") | SIDECAR,)), ["2 GPUs where 1 were granted"]),
        (pod(cpu="9", memory=None, gpu="4"), ["9 cores where 8 were granted", "no limit on memory",
                                              "4 GPUs where 1 were granted"]),
    ],
)  # fmt: skip
def test_whatever_a_pod_has_beyond_its_decision_is_named(manifest: dict[str, Any], said: list[str]) -> None:
    assert pod_excess(manifest, GRANTED) == said


def test_a_request_without_a_limit_counts_as_well() -> None:
    manifest = pod()
    manifest["spec"]["containers"][0]["resources"]["requests"] = {"cpu": "9", "nvidia.com/gpu": "2"}
    assert pod_excess(manifest, GRANTED) == ["9 cores where 8 were granted", "2 GPUs where 1 were granted"]


def test_a_notebook_without_resources_has_its_whole_node() -> None:
    assert pod_excess({"spec": {"containers": [{"name": "notebook"}]}}, GRANTED) == [
        "no limit on cpu",
        "no limit on memory",
    ]


def test_what_the_policy_calls_a_gpu_is_one() -> None:
    manifest = pod(gpu="0")
    manifest["spec"]["containers"][0]["resources"]["limits"]["example.org/accelerator"] = "2"
    assert pod_excess(manifest, GRANTED) == []
    said = pod_excess(manifest, GRANTED, gpu_resource="example.org/accelerator")
    assert said == ["2 GPUs where 1 were granted"]
