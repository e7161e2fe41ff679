"""The pod that a decision leads to, made by the spawner itself, without a cluster."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import yaml

from hub.no_cluster import NO_CLUSTER
from hub.resolve import Decision

_API = "http://hub:8081/hub/api"
"""Where Zero to JupyterHub's hub is found."""


@dataclass(frozen=True)
class _Group:
    name: str


@dataclass(frozen=True)
class _User:
    """As much of a hub's user as a spawner asks for when it writes a manifest."""

    name: str
    groups: tuple[_Group, ...]
    id: int = 1
    url: str = "/hub/"
    spawners: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Whose pod it is, and where it runs."""

    user: str
    server: str
    groups: Collection[str]
    policy_file: str
    native: bool = True
    image: str = ""
    """Of our containers; empty for the default."""


def pod_manifest(decision: Decision, wanted: Wanted) -> dict[str, Any]:
    """The manifest, as plain data. What the hub's own configuration would add, such as its address, is not in it.

    Raises ``FailedStart``.
    """
    before = os.environ.get("KUBECONFIG")
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "kubeconfig")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(NO_CLUSTER, file)
        os.environ["KUBECONFIG"] = path  # read when kubernetes_asyncio is imported
        try:
            return asyncio.run(_manifest(decision, wanted))
        finally:
            del os.environ["KUBECONFIG"]
            if before is not None:
                os.environ["KUBECONFIG"] = before


async def _manifest(decision: Decision, wanted: Wanted) -> dict[str, Any]:
    from kubernetes_asyncio.client import ApiClient

    from hub.pod_spawner import PodSpawner  # loads all of KubeSpawner, which takes more than a second

    spawner = PodSpawner(
        user=_User(wanted.user, tuple(map(_Group, wanted.groups))),
        orm_spawner=SimpleNamespace(name=wanted.server, server=None, state=None),
        hub=SimpleNamespace(public_host="", base_url="/hub/", url="http://hub:8081/hub/", api_url=_API),
        policy_file=wanted.policy_file,
        native_sidecar="yes" if wanted.native else "no",
        cmd=["jupyterhub-singleuser"],
        oauth_client_id="jupyterhub-user",
    )
    if wanted.image:
        spawner.sidecar_image = wanted.image
    spawner.grant(decision)
    async with ApiClient() as serializer:
        manifest: dict[str, Any] = serializer.sanitize_for_serialization(await spawner.get_pod_manifest())
    return manifest


def to_yaml(manifest: Mapping[str, Any]) -> str:
    """``manifest`` for people and for ``kubectl apply``."""
    return yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=120)
