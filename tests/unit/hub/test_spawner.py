from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tornado.web import HTTPError

from hub.admission import Pending, RefusedRequest, judge
from hub.policy_file import SHIPPED, load_policy
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
    spawners: dict[str, Any] = field(default_factory=dict)
    id: int = 1
    url: str = "/user/ada"
    escaped_name: str = "ada"


@pytest.fixture(autouse=True)
def _kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG)
    # Read from the environment when kubernetes_asyncio is imported.
    monkeypatch.setattr("kubernetes_asyncio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))


def spawner(user: User, name: str = "", **options: Any) -> SidecarSpawner:
    record = SimpleNamespace(name=name, server=None)
    made = SidecarSpawner(_mock=True, user=user, orm_spawner=record, policy_file=SHIPPED, user_options=options)
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


def test_starts_that_have_not_reached_the_spawner_count_too() -> None:
    user, other, policy, pending = hpc(), User("bob", [Group("cpsHPCAccess")]), load_policy(), Pending()
    first = judge(user, "one", {"profile": "a100-2"}, policy, pending=pending)
    assert isinstance(first, Granted)
    with pending.start(user, "one", first.decision.size):
        assert isinstance(judge(user, "two", {"profile": "a100-1"}, policy, pending=pending), Refused)
        assert isinstance(judge(user, "one", {"profile": "a100-1"}, policy, pending=pending), Granted)
        assert isinstance(judge(other, "two", {"profile": "a100-2"}, policy, pending=pending), Granted)
    assert isinstance(judge(user, "two", {"profile": "a100-1"}, policy, pending=pending), Granted)


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
        after.load_state(one.get_state())
        assert after.granted == Decision(
            profile="a100-1",
            image="quay.io/jupyter/pytorch-notebook:cuda12-2025-11-06",
            size=Size(millicpu=8000, memory_bytes=32 * 1024**3, gpus=1),
        )
        after.load_state({"granted": {"cpus": "many"}})

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
