"""Pods as the spawner makes them on a hub of Zero to JupyterHub, without a cluster; and the golden ones.

``python -m tests.unit.hub.manifests`` writes the golden manifests anew.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from kubernetes_asyncio.config import kube_config
from traitlets.config import Config

from hub.no_cluster import NO_CLUSTER
from hub.policy_file import SHIPPED

GOLDEN = Path(__file__).parent / "golden"
Document = dict[str, Any]

SHARED = "shared: [] # empty"
SHARES = (
    "shared: [{name: team-a, groups: [team-a], access: rw}, {name: team-b, groups: [team-b], access: rw}, "
    "{name: papers, access: ro}, {name: team-a, groups: [guests], access: ro}] # empty"
)

# What Zero to JupyterHub's chart sets for a default installation with storage.type none (its jupyterhub_config.py).
Z2JH = {
    "KubeSpawner": {
        "uid": 1000,
        "fs_gid": 100,
        "storage_pvc_ensure": False,
        "start_timeout": 300,
        "cmd": ["jupyterhub-singleuser"],
        "init_containers": [
            {
                "name": "block-cloud-metadata",
                "image": "quay.io/jupyterhub/k8s-network-tools:4.4.0",
                "imagePullPolicy": "IfNotPresent",
                "command": ["iptables", "--append", "OUTPUT", "--destination", "169.254.169.254", "--jump", "DROP"],
                "securityContext": {"runAsUser": 0, "privileged": True, "capabilities": {"add": ["NET_ADMIN"]}},
            }
        ],
    }
}

CASES: Mapping[str, Mapping[str, Any]] = {
    "standard": {"groups": []},
    "cpu-basic": {"options": {"profile": "cpu-basic"}},
    "a100-1": {"options": {"profile": "a100-1"}},
    "a100-2": {"options": {"profile": "a100-2"}},
    "custom": {"options": {"profile": "custom"}},
    "custom-without-gpu": {"options": {"profile": "custom", "gpus": "0", "image": "datascience"}},
    "named-server-with-shares": {"server": "My Server", "groups": ["cpsHPCAccess", "team-a"], "shares": True},
    "before-kubernetes-1-29": {"options": {"profile": "a100-1"}, "native": False},
}


def manifest(
    *,
    user: str = "ada",
    server: str = "",
    groups: list[str] | None = None,
    options: Mapping[str, Any] | None = None,
    policy: str = "",
    shares: bool = False,
    native: bool = True,
    config: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Document:
    """The pod of ``server`` of ``user``, a member of ``groups``; ``policy`` is the text of a policy file."""
    from hub.pod_spawner import PodSpawner
    from tests.unit.hub.fake_cluster import Group, User, plain

    text = policy or Path(SHIPPED).read_text()
    if shares:
        assert SHARED in text
        text = text.replace(SHARED, SHARES)

    async def make() -> Document:
        with tempfile.TemporaryDirectory() as directory:
            kubeconfig, policy_file = Path(directory, "kubeconfig"), Path(directory, "policy.yaml")
            kubeconfig.write_text(json.dumps(NO_CLUSTER))
            policy_file.write_text(text)
            kube_config.KUBE_CONFIG_DEFAULT_LOCATION = str(kubeconfig)
            names = ["cpsHPCAccess"] if groups is None else groups
            one = PodSpawner(
                config=Config({**Z2JH, **(config or {})}),
                user=User(user, [Group(name) for name in names]),
                orm_spawner=SimpleNamespace(name=server, server=None, state=None),
                hub=SimpleNamespace(public_host="", base_url="/hub/", url="/hub/", api_url="http://hub:8081/hub/api"),
                policy_file=str(policy_file),
                native_sidecar="yes" if native else "no",
                oauth_client_id="jupyterhub-user",
                user_options=dict(options or {}),
                **settings,
            )
            await one.load_user_options()
            return plain(await one.get_pod_manifest())

    return asyncio.run(make())


def golden(case: str) -> str:
    """The text of a golden manifest: what is another with each version of JupyterHub is left out."""
    made = manifest(**CASES[case])
    annotations = made["metadata"]["annotations"]
    for name in ("kubespawner", "jupyterhub"):
        del annotations[f"hub.jupyter.org/{name}-version"]
    notebook = made["spec"]["containers"][0]
    notebook["env"] = [each for each in notebook["env"] if not each["name"].startswith(("JUPYTERHUB_", "JPY_"))]
    return yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=120)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for case in CASES:
        (GOLDEN / f"{case}.yaml").write_text(golden(case))
