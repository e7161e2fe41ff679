from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hub.placement import Toleration
from hub.policy_file import PolicyError, parse_policy
from tests.unit.hub.policies import SMALL


@pytest.mark.parametrize(
    ("written", "in_the_pod"),
    [
        ({"operator": "Exists"}, {"operator": "Exists"}),
        ({"key": "a"}, {"key": "a", "operator": "Equal"}),
        (
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        ),
        (
            {"key": "a", "value": "b", "effect": "NoExecute"},
            {"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute"},
        ),
    ],
)
def test_a_toleration_is_what_stands_in_a_pod(written: dict[str, Any], in_the_pod: dict[str, str]) -> None:
    assert Toleration.model_validate(written).to_kubernetes() == in_the_pod


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({}, "without a key"),
        ({"value": "b"}, "without a key"),
        ({"key": "a", "operator": "Exists", "value": "b"}, "there is no value"),
        ({"key": "a", "operator": "In"}, "'Equal' or 'Exists'"),
        ({"key": "a", "effect": ""}, "'NoSchedule'"),
        ({"key": "", "operator": "Exists"}, "label's key"),
        ({"key": "-a"}, "label's key"),
        ({"key": "a/b/c"}, "label's key"),
        ({"key": "UPPER.example/a"}, "label's key"),
        ({"key": f"{'a.' * 130}a/b"}, "label's key"),
        ({"key": "a" * 64}, "label's key"),
        ({"key": "a\n"}, "label's key"),
        ({"key": "a", "value": "a b"}, "label's value"),
        ({"key": "a", "value": "{x}"}, "label's value"),
        ({"key": "a", "value": "a" * 64}, "label's value"),
        ({"key": "a", "tolerationSeconds": 3}, "Extra inputs"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused(written: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Toleration.model_validate(written)


def test_a_profile_says_where_its_pods_run() -> None:
    profile = parse_policy(f"""{SMALL}
  two:
    {{display_name: Two, image: "a:1", cpus: 1, memory: 1G, gpus: 1, gpu_resource: nvidia.com/mig-1g.10gb,
     node_selector: {{nvidia.com/gpu.product: A100, zone: ""}}, tolerations: [{{key: a}}]}}
""").profiles["two"]
    assert profile.node_selector == {"nvidia.com/gpu.product": "A100", "zone": ""}
    assert profile.gpu_resource == "nvidia.com/mig-1g.10gb"
    assert [toleration.to_kubernetes() for toleration in profile.tolerations] == [{"key": "a", "operator": "Equal"}]
    assert parse_policy(SMALL).profiles["one"].gpu_resource == "nvidia.com/gpu"


@pytest.mark.parametrize("resource", ["gpu", "nvidia.com/", "nvidia.com/a b", "Nvidia.com/gpu", "nvidia.com/gpu/x"])
def test_a_resource_has_the_name_of_its_vendor(resource: str) -> None:
    with pytest.raises(PolicyError, match="must be a resource such as"):
        parse_policy(SMALL.replace("cpus: 1,", f'cpus: 1, gpu_resource: "{resource}",'))
