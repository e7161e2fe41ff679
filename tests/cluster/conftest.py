from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from kubernetes_asyncio.config import kube_config
from kubespawner.clients import load_config

from tests.cluster.world import Settings, World

Body = Callable[[World], Awaitable[None]]


@pytest.fixture
def on_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Body], None]:
    """Runs a test's body on the cluster that the environment names; without one the test is skipped, and says why."""
    settings = Settings.read(os.environ)
    if isinstance(settings, list):
        pytest.skip(
            f"no cluster: {', '.join(settings)} not set. CLUSTER_SIDECAR_IMAGE is an image of images/sidecar, with its "
            "tag, that the nodes have; the claims are ReadWriteMany, and Persist's root belongs to group 100 (2775)"
        )
    # Other tests of this process may have had a cluster that is none.
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", os.environ["KUBECONFIG"])
    load_config.cache_clear()

    def run(body: Body) -> None:
        async def within() -> None:
            async with World(settings, tmp_path) as world:
                await body(world)

        asyncio.run(asyncio.wait_for(within(), 600))

    return run
