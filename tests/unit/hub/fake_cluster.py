"""As much of a Kubernetes API server as KubeSpawner talks to, in this process: pods and events, listed and watched.

There is no kubelet: a test says what becomes of a pod. What was asked is written down.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from kubernetes_asyncio import client
from kubespawner import KubeSpawner
from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from hub.pod_spawner import PodSpawner
from hub.policy_file import SHIPPED

NAMESPACE = "hubs"
Document = dict[str, Any]


def leave_alone(_: object) -> None:
    """What nothing becomes of."""


@dataclass
class Group:
    name: str


@dataclass
class User:
    """As much of a hub's user as a spawner asks for."""

    name: str = "ada"
    groups: list[Group] = field(default_factory=lambda: [Group("cpsHPCAccess")])
    spawners: dict[str, Any] = field(default_factory=dict)
    orm_spawners: dict[str, Any] = field(default_factory=dict)
    id: int = 1
    url: str = "/user/ada"
    escaped_name: str = "ada"


class FakeCluster:
    """``grace`` has, in order, the grace with which each deletion was asked for, in seconds. With a ``refusal`` no pod
    is taken."""

    def __init__(self) -> None:
        self.resources: dict[str, dict[str, Document]] = {"pods": {}, "events": {}}
        self.grace: list[int] = []
        self.created: list[Document] = []
        self.minor = "36"
        self.refusal = ""
        self.conflicts = 0
        self.on_create: Callable[[str], object] = leave_alone
        self.on_delete: Callable[[str], object] = self.remove
        self.port = 0
        self._version = 100
        self._uid = 0
        self._history: dict[str, list[tuple[int, Document]]] = {"pods": [], "events": []}
        self._watchers: dict[str, list[asyncio.Queue[Document]]] = {"pods": [], "events": []}

    def pod(self, name: str) -> Document:
        return self.resources["pods"][name]

    def create(self, pod: Document) -> Document:
        name = pod["metadata"]["name"]
        self._uid += 1
        self.created.append(copy.deepcopy(pod))
        pod["metadata"].update(namespace=NAMESPACE, uid=f"uid-{self._uid}")
        pod["status"] = {"phase": "Pending", "podIP": None}
        self._set("pods", "ADDED", pod)
        self.on_create(name)
        return pod

    def update(self, pod_name: str, **status: Any) -> None:
        """The status of the pod has these fields."""
        pod = self.pod(pod_name)
        pod["status"].update(status)
        self._set("pods", "MODIFIED", pod)

    def run(self, pod_name: str, **notebook: Any) -> None:
        """All of its containers run; fields of the notebook's status can be others."""
        started = {"state": {"running": {}}, "ready": True, "started": True, "restartCount": 0}
        own = {"name": "notebook", "image": "image", **started, **notebook}
        storage = {"name": "storage", "image": "sidecar", **started}
        conditions = [{"type": "PodScheduled", "status": "True"}]
        self.update(
            pod_name,
            phase="Running",
            podIP="127.0.0.1",
            conditions=conditions,
            containerStatuses=[own],
            initContainerStatuses=[storage],
        )

    def say_goodbye(self, pod_name: str, message: str, code: int = 0) -> None:
        """The sidecar has ended with this termination message."""
        ended = {"exitCode": code, "message": message}
        self.update(pod_name, initContainerStatuses=[{"name": "storage", "state": {"terminated": ended}}])

    def tell(self, pod_name: str, reason: str, message: str, kind: str = "Warning") -> None:
        """There is an event of the pod."""
        self._uid += 1
        event = {
            "metadata": {"namespace": NAMESPACE, "name": f"event-{self._uid}", "uid": f"event-{self._uid}"},
            "involvedObject": {"kind": "Pod", "name": pod_name, "uid": self.pod(pod_name)["metadata"]["uid"]},
            "reason": reason,
            "message": message,
            "type": kind,
            "lastTimestamp": f"2026-01-01T00:00:{self._uid:02}Z",
            "eventTime": None,
        }
        self._set("events", "ADDED", event)

    def remove(self, name: str) -> None:
        """The pod is gone."""
        pod = self.resources["pods"].pop(name)
        self._version += 1
        self._publish("pods", "DELETED", pod)

    def delete(self, name: str, grace_s: int) -> Document:
        self.grace.append(grace_s)
        pod = self.pod(name)
        if "deletionTimestamp" not in pod["metadata"]:
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            self._set("pods", "MODIFIED", pod)
            self.on_delete(name)
        return pod

    def watch(self, kind: str, since: int) -> asyncio.Queue[Document]:
        """All that has changed since the version ``since``, and will."""
        queue: asyncio.Queue[Document] = asyncio.Queue()
        for version, change in self._history[kind]:
            if version > since:
                queue.put_nowait(change)
        self._watchers[kind].append(queue)
        return queue

    def is_watched(self, kind: str) -> bool:
        return bool(self._watchers[kind])

    def unwatch(self, kind: str, queue: asyncio.Queue[Document]) -> None:
        self._watchers[kind].remove(queue)

    @property
    def version(self) -> str:
        return str(self._version)

    def _set(self, kind: str, change: str, resource: Document) -> None:
        self._version += 1
        resource["metadata"]["resourceVersion"] = self.version
        self.resources[kind][resource["metadata"]["name"]] = resource
        self._publish(kind, change, resource)

    def _publish(self, kind: str, change: str, resource: Document) -> None:
        event = {"type": change, "object": copy.deepcopy(resource)}
        self._history[kind].append((self._version, event))
        for queue in self._watchers[kind]:
            queue.put_nowait(event)


class _Handler(RequestHandler):
    def initialize(self, cluster: FakeCluster) -> None:
        self.cluster = cluster

    def fail(self, status: int, message: str = "no") -> None:
        self.set_status(status)
        self.finish({"kind": "Status", "message": message, "code": status})


class _Version(_Handler):
    def get(self) -> None:
        minor = self.cluster.minor
        fields = ("gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform")
        self.finish({"major": "1", "minor": minor, "gitVersion": f"v1.{minor}", **dict.fromkeys(fields, "x")})


class _List(_Handler):
    async def get(self, kind: str) -> None:
        if self.get_query_argument("watch", "") == "True":
            await self._watch(kind)
            return
        items = list(self.cluster.resources[kind].values())
        self.finish({"kind": "List", "metadata": {"resourceVersion": self.cluster.version}, "items": items})

    async def _watch(self, kind: str) -> None:
        queue = self.cluster.watch(kind, int(self.get_query_argument("resourceVersion")))
        try:
            while True:
                self.write(json.dumps(await asyncio.wait_for(queue.get(), 5)) + "\n")
                await self.flush()
        except TimeoutError:
            self.finish()
        except StreamClosedError:
            return
        finally:
            self.cluster.unwatch(kind, queue)

    def post(self, kind: str) -> None:
        pod = json.loads(self.request.body)
        if self.cluster.refusal:
            self.fail(403, self.cluster.refusal)
            return
        if pod["metadata"]["name"] in self.cluster.resources[kind]:
            self.cluster.conflicts += 1
            self.fail(409)
            return
        self.set_status(201)
        self.finish({"metadata": self.cluster.create(pod)["metadata"]})


class _One(_Handler):
    def delete(self, kind: str, name: str) -> None:
        if name not in self.cluster.resources[kind]:
            self.fail(404)
            return
        pod = self.cluster.delete(name, int(self.get_query_argument("gracePeriodSeconds", "-1")))
        self.finish({"metadata": pod["metadata"]})


@asynccontextmanager
async def fake_cluster() -> AsyncIterator[FakeCluster]:
    """A cluster that answers at ``port`` of 127.0.0.1, and nothing in it."""
    cluster = FakeCluster()
    settings = {"cluster": cluster}
    base = f"/api/v1/namespaces/{NAMESPACE}"
    app = Application(
        [
            ("/version/?", _Version, settings),
            (f"{base}/(pods|events)", _List, settings),
            (f"{base}/(pods)/([^/]+)", _One, settings),
        ],
        log_function=leave_alone,
    )
    socket, cluster.port = bind_unused_port()
    server = HTTPServer(app)
    server.add_socket(socket)
    try:
        yield cluster
    finally:
        await KubeSpawner._stop_all_reflectors()
        PodSpawner._native = None
        server.stop()


def pod_spawner(cluster: FakeCluster, user: User | None = None, name: str = "", **settings: Any) -> PodSpawner:
    """A spawner whose cluster is ``cluster``. ``options`` among the settings are the user's."""
    user = user or User()
    options = settings.pop("options", {"profile": "cpu-basic"})
    one = PodSpawner(
        _mock=True,
        user=user,
        orm_spawner=SimpleNamespace(name=name, server=None, state=None),
        namespace=NAMESPACE,
        k8s_api_host=f"http://127.0.0.1:{cluster.port}",
        user_options=options,
        cmd=["jupyterhub-singleuser"],
        **{"policy_file": SHIPPED, **settings},
    )
    user.spawners[name] = one
    return one


def plain(pod: Any) -> Document:
    """A model of Kubernetes' client as plain data."""

    class Serializer(client.ApiClient):
        def __init__(self) -> None:
            pass

    document: Document = json.loads(json.dumps(Serializer().sanitize_for_serialization(pod)))
    return document
