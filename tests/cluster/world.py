"""A real cluster as the tests see it: a spawner with settings of its own, commands in containers, Persist from outside.

The notebook is a stand-in that needs no hub: an HTTP server that ends with exit code 0 when it is asked to.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from kubernetes_asyncio import client
from kubernetes_asyncio.client.rest import ApiException
from kubernetes_asyncio.config import load_kube_config
from kubernetes_asyncio.stream import WsApiClient
from kubespawner import KubeSpawner

from hub.pod_spawner import PodSpawner

GRACE_S = 30
READER = "sidecar-test-reader"
_STAND_IN = "trap 'exit 0' TERM; python3 -m http.server 8888 --directory /tmp & wait"

_POLICY = """
everyone: {{profiles: [small], limits: {{gpus: 0, cpus: 1, memory: 1G}}}}
profiles: {{small: {{display_name: Small, image: "{image}", cpus: 0.1, memory: 256M, gpus: 0}}}}
storage: {{persist: {{claim: {persist}}}, shared_claim: {shared}, grace_s: {grace_s}}}
"""


@dataclass(frozen=True)
class Settings:
    """From the environment; ``missing`` names what it lacks."""

    namespace: str
    image: str
    persist: str
    shared: str

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Settings | list[str]:
        needed = ["KUBECONFIG", "CLUSTER_SIDECAR_IMAGE", "CLUSTER_PERSIST_CLAIM", "CLUSTER_SHARED_CLAIM"]
        missing = [name for name in needed if not environ.get(name)]
        if missing:
            return missing
        namespace = environ.get("CLUSTER_NAMESPACE", "default")
        return cls(namespace, *(environ[name] for name in needed[1:]))


@dataclass
class User:
    name: str
    groups: list[Any] = field(default_factory=list)
    spawners: dict[str, Any] = field(default_factory=dict)
    orm_spawners: dict[str, Any] = field(default_factory=dict)
    id: int = 1
    url: str = "/user/x"
    escaped_name: str = "x"


class World:
    """One test's view of the cluster."""

    def __init__(self, settings: Settings, scratch: Path) -> None:
        self.settings = settings
        self._policy = scratch / "policy.yaml"
        self._policy.write_text(
            _POLICY.format(image=settings.image, persist=settings.persist, shared=settings.shared, grace_s=GRACE_S)
        )
        self.user = User(f"t{os.urandom(4).hex()}")

    async def __aenter__(self) -> World:
        await load_kube_config()
        self._client = client.ApiClient()
        self.api = client.CoreV1Api(self._client)
        await self._start_reader()
        return self

    async def __aexit__(self, *_: object) -> None:
        for spawner in self.user.spawners.values():
            await spawner.stop()
        await KubeSpawner._stop_all_reflectors()
        await self._client.close()

    def spawner(self, server: str = "", **settings: Any) -> PodSpawner:
        """A new spawner; the last one of the same name is forgotten, as by a hub that was started again."""
        command = settings.pop("command", ["/bin/sh", "-c", _STAND_IN])
        one = PodSpawner(
            user=self.user,
            orm_spawner=SimpleNamespace(name=server, server=None, state=None),
            hub=SimpleNamespace(public_host="", base_url="/hub/", url="/hub/", api_url="http://127.0.0.1:9/hub/api"),
            namespace=self.settings.namespace,
            policy_file=str(self._policy),
            sidecar_image=self.settings.image,
            oauth_client_id="test",
            cmd=["jupyterhub-singleuser"],
            extra_container_config={"command": command} if command else {},
            **settings,
        )
        self.user.spawners[server] = one
        return one

    async def started(self, server: str = "", **settings: Any) -> PodSpawner:
        one = self.spawner(server, **settings)
        await one.start()
        return one

    async def run(self, pod: str, container: str, script: str) -> str:
        """What a line of shell prints in a container, both streams together."""
        async with WsApiClient() as sockets:
            output: str = await client.CoreV1Api(sockets).connect_get_namespaced_pod_exec(
                pod,
                self.settings.namespace,
                container=container,
                command=cast(Any, ["/bin/sh", "-c", f"exec 2>&1; {script}"]),  # its type knows one word only
                stdin=False,
                stdout=True,
                stderr=True,
                tty=False,
            )
        return output.strip()

    async def write(self, spawner: PodSpawner, name: str, *, kib: int = 1) -> str:
        """A file of random bytes is in the notebook's home; its SHA-256."""
        path = f"/home/jovyan/{name}"
        return await self.run(
            spawner.pod_name,
            "notebook",
            f"head -c {kib * 1024} /dev/urandom >{path} && sha256sum <{path} | cut -c1-64",
        )

    async def saved(self, name: str, server: str = "default") -> str:
        """The SHA-256 of the file in the backup, read by a pod that has nothing to do with ours; empty without one."""
        path = f"/claims/persist/{self.user.name}/Backup/{server}/{name}"
        return await self.run(READER, "reader", f"test -f {path} && sha256sum <{path} | cut -c1-64")

    async def create(self, pod: dict[str, Any], **options: Any) -> Any:
        """The pod, which is plain data, is created. Raises ``ApiException``."""
        return await self.api.create_namespaced_pod(self.settings.namespace, cast(Any, pod), **options)

    async def _start_reader(self) -> None:
        mount = {"name": "persist", "mountPath": "/claims/persist", "readOnly": True}
        container = {
            "name": "reader",
            "image": self.settings.image,
            "command": ["/bin/sh", "-c", "trap exit TERM; sleep 86400 & wait"],
            "volumeMounts": [mount],
            "securityContext": {"runAsUser": 1000, "runAsGroup": 100},
        }
        volume = {"name": "persist", "persistentVolumeClaim": {"claimName": self.settings.persist}}
        body = {"metadata": {"name": READER}, "spec": {"containers": [container], "volumes": [volume]}}
        try:
            await self.create(body)
        except ApiException as error:
            if error.status != 409:
                raise
        await until(self._reader_runs, 120)

    async def _reader_runs(self) -> bool:
        pod = await self.api.read_namespaced_pod(READER, self.settings.namespace)
        return bool(pod.status.phase == "Running")


async def until(condition: Callable[[], Any], longest_s: float) -> None:
    """``condition``, which may be a coroutine function, is true. Raises ``TimeoutError``."""
    async with asyncio.timeout(longest_s):
        while True:
            result = condition()
            if (await result) if asyncio.iscoroutine(result) else result:
                return
            await asyncio.sleep(0.2)
