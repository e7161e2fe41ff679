from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from jupyterhub import orm  # type: ignore[import-untyped]  # jupyterhub has no type information
from tornado.web import HTTPError
from traitlets.config import Config

from hub.admission import Pending, RefusedRequest, judge
from hub.local import LocalSpawner
from hub.policy_file import SHIPPED, load_policy
from hub.processes import identify
from hub.quantity import Size
from hub.resolve import Decision, Granted, Refused
from hub.spawner import SidecarSpawner

KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: none, cluster: {server: "https://127.0.0.1:9"}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
users: [{name: none, user: {}}]
current-context: none
"""


@dataclass
class Group:
    name: str


@dataclass
class User:
    """As much of a hub's user as a spawner asks for."""

    name: str
    groups: list[Group]
    records: dict[str, orm.Spawner] = field(default_factory=dict)
    made_again: Callable[[str], Any] | None = None
    id: int = 1
    url: str = "/user/ada"
    escaped_name: str = "ada"

    def __post_init__(self) -> None:
        self.spawners = _Spawners(self)

    @property
    def orm_spawners(self) -> dict[str, orm.Spawner]:
        return dict(self.records)


class _Spawners(dict[str, Any]):
    """JupyterHub's: what is not in memory is made from its record."""

    def __init__(self, user: User) -> None:
        super().__init__()
        self._user = user

    def __missing__(self, name: str) -> Any:
        assert self._user.made_again is not None
        return self._user.made_again(name)


@pytest.fixture(autouse=True)
def _kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG)
    # Read from the environment when kubernetes_asyncio is imported.
    monkeypatch.setattr("kubernetes_asyncio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))


def spawner(
    user: User,
    name: str = "",
    kind: type[SidecarSpawner] = SidecarSpawner,
    config: Config | None = None,
    **options: Any,
) -> SidecarSpawner:
    """As the hub makes it from a server's record."""
    record = user.records.setdefault(name, orm.Spawner(name=name))
    made = kind(
        _mock=True, user=user, orm_spawner=record, policy_file=SHIPPED, user_options=options, config=config or Config()
    )
    made.load_state(record.state or {})
    user.spawners[name] = made
    return made


def run(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 30))


def hpc() -> User:
    return User("ada", [Group("cpsHPCAccess")])


def test_a_granted_decision_becomes_kubespawners_settings() -> None:
    async def body() -> None:
        one = spawner(hpc(), profile="a100-2")
        await one.load_user_options()
        assert one.image == "quay.io/jupyter/pytorch-notebook:cuda12-2025-11-06"
        assert (one.cpu_limit, one.mem_limit) == (16.0, 64 * 1024**3)
        assert one.extra_resource_limits == {"nvidia.com/gpu": "2"}
        manifest = await one.get_pod_manifest()
        limits = manifest.spec.containers[0].resources.limits
        assert limits["nvidia.com/gpu"] == "2"

    run(body)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"profile": "a100-1"}, 403),
        ({"image--unlisted-choice": "evil.io/x:1"}, 400),
        ({"image": "x"}, 400),
        ({"profile": ["x"]}, 400),
    ],
)
def test_a_refusal_is_http_4xx_with_a_readable_message_and_reserves_nothing(
    options: dict[str, Any], status: int
) -> None:
    async def body() -> None:
        one = spawner(User("ada", []), **options)
        with pytest.raises(RefusedRequest) as caught:
            await one.load_user_options()
        assert caught.value.status_code == status
        assert caught.value.jupyterhub_message.isprintable()
        assert one.granted is None

    run(body)


def test_two_starts_at_once_never_exceed_the_caps_together() -> None:
    async def body() -> None:
        user = hpc()
        servers = [spawner(user, f"s{number}", profile="a100-1") for number in range(20)]
        answers = await asyncio.gather(*(one.load_user_options() for one in servers), return_exceptions=True)
        assert sum(answer is None for answer in answers) == 2
        assert all(answer is None or isinstance(answer, RefusedRequest) for answer in answers)

    run(body)


def test_starts_that_have_not_reached_the_spawner_count_until_they_are_over() -> None:
    user, other, policy, pending = hpc(), User("bob", [Group("cpsHPCAccess")]), load_policy(), Pending()

    def answer(user: User, server: str, profile: str) -> Granted | Refused:
        return judge(user, server, {"profile": profile}, policy, pending=pending)

    first = answer(user, "one", "a100-2")
    assert isinstance(first, Granted)
    over = pending.start(user, "one", first.decision.size)
    assert isinstance(answer(user, "two", "a100-1"), Refused)
    assert isinstance(answer(user, "one", "a100-1"), Granted)
    assert isinstance(answer(other, "two", "a100-2"), Granted)
    over_again = pending.start(user, "one", Size(gpus=1))
    over_again()
    assert isinstance(answer(user, "two", "a100-1"), Refused), "the same server asked for again releases nothing"
    over()
    assert isinstance(answer(user, "two", "a100-1"), Granted)


def test_caps_count_what_was_granted_until_the_server_has_stopped_and_not_what_was_asked() -> None:
    async def body() -> None:
        user = hpc()
        big = spawner(user, "big", profile="a100-2")
        await big.load_user_options()
        big.user_options = {"profile": "cpu-basic"}
        small = spawner(user, "small", profile="a100-1")
        with pytest.raises(RefusedRequest, match="3 GPUs, and 2 are allowed"):
            await small.load_user_options()
        big.clear_state()
        await small.load_user_options()
        assert small.granted is not None

    run(body)


def test_what_was_granted_survives_a_restart_of_the_hub() -> None:
    async def body() -> None:
        one = spawner(hpc(), profile="a100-1")
        await one.load_user_options()
        after = spawner(hpc())
        after.load_state(one.orm_spawner.state)
        assert after.granted == Decision(
            profile="a100-1",
            image="quay.io/jupyter/pytorch-notebook:cuda12-2025-11-06",
            size=Size(millicpu=8000, memory_bytes=32 * 1024**3, gpus=1),
        )

    run(body)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"granted": None},
        {"granted": {}},
        {"granted": [1]},
        {"granted": {"cpus": "many"}},
        {"granted": {"profile": "x", "image": "y", "gpus": 0}},
    ],
)
def test_a_running_server_whose_decision_cannot_be_read_counts_as_everything(state: dict[str, Any]) -> None:
    async def body() -> None:
        user = hpc()
        one = spawner(user, "one")
        one.orm_spawner.server = orm.Server()
        one.load_state(state)
        with pytest.raises(RefusedRequest, match=r"18 cores.*what 'one' was granted is not known.*stop it first"):
            await spawner(user, "two", profile="cpu-basic").load_user_options()
        with pytest.raises(RefusedRequest, match="no option"):
            await spawner(user, "two", profile="cpu-basic", x="1").load_user_options()
        one.clear_state()
        await spawner(user, "two", profile="cpu-basic").load_user_options()

    run(body)


def test_a_server_that_does_not_run_holds_nothing_whatever_is_stored(cluster: type[Cluster]) -> None:
    async def body() -> None:
        user = hpc()
        spawner(user, "one", cluster).load_state({"pod_name": "x", "granted": {"cpus": "many"}})
        spawner(user, "two", cluster).load_state({"pod_name": "x"})
        await spawner(user, "three", cluster, profile="a100-2").load_user_options()

    run(body)


class Cluster(SidecarSpawner):
    """Pods that a test makes and that only it removes."""

    pods: ClassVar[dict[str, Any]] = {}
    created: ClassVar[list[Any]] = []
    deleted: ClassVar[list[Any]] = []
    watched: ClassVar[list[bool]] = []
    reflector: ClassVar[Any] = None

    @property
    def pod_reflector(self) -> Any:
        return Cluster.reflector

    async def _start_watching_pods(self, replace: bool = False) -> None:
        self.watched.append(replace)
        if Cluster.reflector is None or replace:
            Cluster.reflector = reflector(self.pods)

    async def _make_delete_pod_request(self, name: str, options: Any, *_: object) -> bool:
        self.deleted.append((name, options))
        return True

    async def _make_create_pod_request(self, pod: Any, *_: object) -> bool:
        self.created.append(pod)
        raise TimeoutError


def reflector(pods: dict[str, Any], *, loading: bool = False, failed: bool = False) -> Any:
    """KubeSpawner's: it is there before it has asked for the first time, and stays when that failed."""
    first: Future[None] = Future()
    if failed:
        first.set_exception(ConnectionError("no API server"))
    elif not loading:
        first.set_result(None)
    return SimpleNamespace(pods=pods, first_load_future=first)


@pytest.fixture
def cluster() -> type[Cluster]:
    for kept in (Cluster.pods, Cluster.created, Cluster.deleted, Cluster.watched):
        kept.clear()
    Cluster.reflector = reflector(Cluster.pods)
    return Cluster


async def failed_end(cluster: type[Cluster], user: User) -> None:
    """A server with two GPUs whose pod is stuck, as JupyterHub goes on after a failed stop."""
    one = spawner(user, "one", cluster, profile="a100-2")
    one.start_timeout = 1
    await one.load_user_options()
    cluster.pods[f"{one.namespace}/{one.pod_name}"] = {"metadata": {"uid": "u1"}}
    with pytest.raises(TimeoutError):
        await one.stop()
    one.clear_state()
    one.orm_spawner.state = one.get_state()
    del user.spawners["one"]
    user.made_again = lambda name: spawner(user, name, cluster)
    cluster.deleted.clear()
    cluster.watched.clear()


async def turns() -> None:
    """What was begun in the background is through."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_server_whose_end_took_too_long_counts_until_its_pod_is_gone(cluster: type[Cluster]) -> None:
    async def body() -> None:
        user = hpc()
        await failed_end(cluster, user)
        with pytest.raises(RefusedRequest, match="3 GPUs, and 2 are allowed"):
            await spawner(user, "two", profile="a100-1").load_user_options()
        with pytest.raises(HTTPError, match="has not ended yet"):
            await user.spawners["one"].delete_forever()
        cluster.pods.clear()
        await spawner(user, "two", profile="a100-1").load_user_options()
        assert "granted" not in user.records["one"].state

    run(body)


def test_a_restart_with_less_does_not_forget_the_pod_that_is_still_there(cluster: type[Cluster]) -> None:
    async def body() -> None:
        user = hpc()
        await failed_end(cluster, user)
        assert judge(user, "one", {"profile": "cpu-basic"}, load_policy()) == Refused(
            "the server has not ended yet", "forbidden"
        )
        with pytest.raises(RefusedRequest, match="has not ended yet"):
            await spawner(user, "one", cluster, profile="cpu-basic").load_user_options()
        with pytest.raises(RefusedRequest, match="4 GPUs, and 2 are allowed"):
            await spawner(user, "two", cluster, profile="a100-2").load_user_options()
        cluster.pods.clear()
        await spawner(user, "one", cluster, profile="cpu-basic").load_user_options()

    run(body)


@pytest.mark.parametrize("before", ["nothing", "loading", "failed", "given up"])
def test_after_a_restart_of_the_hub_a_pod_counts_until_it_is_known_to_be_gone(
    cluster: type[Cluster], before: str
) -> None:
    async def body() -> None:
        user = hpc()
        await failed_end(cluster, user)
        Cluster.reflector = {
            "nothing": None,
            "loading": reflector({}, loading=True),
            "failed": reflector({}, failed=True),
            "given up": reflector({}, loading=True),
        }[before]
        if before == "given up":
            Cluster.reflector.first_load_future.cancel()
        two = spawner(user, "two", cluster, profile="a100-2")
        with pytest.raises(RefusedRequest, match="4 GPUs, and 2 are allowed"):
            await two.load_user_options()
        assert "granted" in user.records["one"].state
        await turns()
        assert cluster.watched == [before in {"failed", "given up"}], "somebody asks, or it would count for ever"
        with pytest.raises(RefusedRequest, match="4 GPUs, and 2 are allowed"):
            await two.load_user_options()
        cluster.pods.clear()
        Cluster.reflector = reflector(cluster.pods)
        await two.load_user_options()

    run(body)


def test_a_pod_whose_deletion_was_lost_is_asked_to_end_again_and_no_other_of_its_name(cluster: type[Cluster]) -> None:
    async def body() -> None:
        user = hpc()
        await failed_end(cluster, user)
        one = user.spawners["one"]
        for _ in range(2):
            assert one.is_ending()
        await turns()
        ((name, options),) = cluster.deleted
        assert (name, options.preconditions.uid) == (one.pod_name, "u1")
        assert options.grace_period_seconds == one.delete_grace_period
        cluster.pods[f"{one.namespace}/{one.pod_name}"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        assert one.is_ending()
        await turns()
        assert len(cluster.deleted) == 1

    run(body)


def test_a_local_server_whose_end_was_not_seen_counts_while_its_notebook_runs(tmp_path: Path) -> None:
    async def body() -> None:
        user = hpc()
        config = Config({"LocalSpawner": {"data": str(tmp_path)}})
        first = spawner(user, "one", LocalSpawner, config, profile="a100-2")
        await first.load_user_options()
        process = await asyncio.create_subprocess_exec("sleep", "60")
        seen = identify(process.pid)
        assert seen is not None
        state = {**first.get_state(), "notebook": {"pid": seen.pid, "birth": seen.birth}}
        user.records["one"].state = state
        try:
            one = spawner(user, "one", LocalSpawner, config)
            with pytest.raises(RefusedRequest, match="4 GPUs, and 2 are allowed"):
                await spawner(user, "two", LocalSpawner, config, profile="a100-2").load_user_options()
            assert not one.is_ending(), "a start of it ends what is left itself"
        finally:
            process.kill()
            await process.wait()
        await spawner(user, "two", LocalSpawner, config, profile="a100-2").load_user_options()

    run(body)


def beside(pod: Any) -> Any:
    """A hook of an administrator, who has a proxy beside every notebook."""
    pod.spec.containers.append({"name": "proxy", "image": "x", "resources": {"limits": {"cpu": "64"}}})
    return pod


def twice_the_gpus(pod: Any) -> Any:
    pod.spec.containers[0].resources.limits["nvidia.com/gpu"] = "2"
    return pod


def second_with_gpu(pod: Any) -> Any:
    pod.spec.containers.append({"name": "second", "resources": {"limits": {"nvidia.com/gpu": 1}}})
    return pod


async def no_limits(pod: Any) -> Any:
    pod.spec.containers[0].resources.limits.clear()
    return pod


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, None),
        ({"modify_pod_hook": lambda _, pod: beside(pod)}, None),
        ({"init_containers": [{"name": "prepare", "image": "x", "resources": {"limits": {"memory": "1Ti"}}}]}, None),
        ({"cpu_limit": 64, "extra_resource_limits": {"nvidia.com/gpu": "8"}}, None),
        ({"profile_list": [{"slug": "a100-1", "display_name": "x", "kubespawner_override": {"cpu_limit": 64}}]}, None),
        ({"modify_pod_hook": lambda _, pod: twice_the_gpus(pod)}, "2 GPUs where 1 were granted"),
        ({"modify_pod_hook": lambda _, pod: second_with_gpu(pod)}, "2 GPUs where 1 were granted"),
        ({"modify_pod_hook": lambda _, pod: no_limits(pod)}, "no limit on cpu; no limit on memory"),
        ({"extra_container_config": {"resources": {"limits": {"cpu": 64}}}}, "64 cores where 8 were granted"),
        ({"extra_pod_config": {"containers": []}}, "no limit on cpu"),
    ],
)
def test_the_finished_pod_is_no_larger_than_what_was_granted(
    cluster: type[Cluster], settings: dict[str, Any], said: str | None
) -> None:
    async def body() -> None:
        config = Config({"KubeSpawner": {"storage_pvc_ensure": False, "events_enabled": False, **settings}})
        one = spawner(hpc(), "one", cluster, config=config, profile="a100-1")
        one.k8s_api_request_retry_timeout = 1
        if said is None:
            with pytest.raises(TimeoutError):
                await one.start()
            assert len(cluster.created) == 1, "tried, and there is no cluster"
        else:
            with pytest.raises(RefusedRequest, match=said) as caught:
                await one.start()
            assert caught.value.status_code == 403
            assert caught.value.jupyterhub_message.isprintable()
            assert cluster.created == []

    run(body)


def test_a_pod_of_which_the_user_lost_the_right_meanwhile_is_not_made(cluster: type[Cluster]) -> None:
    async def body() -> None:
        user = hpc()

        def hook(_: object, pod: Any) -> Any:
            user.groups.clear()
            return pod

        settings = {"storage_pvc_ensure": False, "events_enabled": False, "modify_pod_hook": hook}
        config = Config({"KubeSpawner": settings})
        with pytest.raises(RefusedRequest, match="not among those offered"):
            await spawner(user, "one", cluster, config=config, profile="a100-1").start()
        assert cluster.created == []

    run(body)


def test_the_form_shows_the_groups_profiles_and_selects_the_default() -> None:
    async def body() -> None:
        form = await spawner(hpc()).get_options_form()
        assert form.count('type="radio"') == 4
        assert form.count("checked") - form.count("'checked'") == 1
        assert "⚙️ Custom Configuration" in form
        (only,) = [await spawner(User("ada", [])).get_options_form()]
        assert only.count('type="radio"') == 1
        assert "For GPU access, please contact your administrator." in only

    run(body)


def test_saved_options_of_a_lost_group_do_not_break_the_form() -> None:
    async def body() -> None:
        form = await spawner(User("ada", []), profile="a100-1", gpus="1").get_options_form()
        assert 'value="standard"\n               checked' in form
        assert "a100-1" not in form

    run(body)


def test_a_server_cannot_be_renamed() -> None:
    async def body() -> None:
        with pytest.raises(HTTPError) as caught:
            await spawner(hpc(), "old").rename("old", "new")
        assert caught.value.status_code == 400

    run(body)
