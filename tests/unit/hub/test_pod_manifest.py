"""The pod of every shipped profile, and what is true of every pod."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.admission import FailedStart
from hub.cli import main
from hub.names import server_directory, user_directory
from hub.pod import Surroundings, init_containers, notebook_mounts, post_start, volumes
from hub.pod_plan import Deployment, pod_plan
from hub.policy_file import SHIPPED, load_policy
from hub.quantity import Size
from hub.resolve import Decision
from sidecar.config import Share, from_environ
from tests.unit.hub.manifests import CASES, GOLDEN, Document, golden, manifest
from tests.unit.hub.pod_rules import broken_rules, container, every_container, mounts

OURS = {"storage-prepare", "gpu-preflight", "storage"}
PLACEMENT = """\
    node_selector: {accelerator: a100}
    tolerations: [{key: gpu, operator: Exists}]
"""


def environment(pod: Document, name: str) -> dict[str, str]:
    """As a kubelet hands it to the container."""
    return {each["name"]: each["value"].replace("$$", "$") for each in container(pod, name)["env"] if "value" in each}


@pytest.mark.parametrize("case", CASES)
def test_the_pod_is_the_golden_one(case: str) -> None:
    """``python -m tests.unit.hub.manifests`` writes them anew; each change in them is to be looked at."""
    assert golden(case) == (GOLDEN / f"{case}.yaml").read_text()


def test_there_is_a_golden_pod_for_every_shipped_profile_and_no_other() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)
    assert set(yaml.safe_load(Path(SHIPPED).read_text())["profiles"]) <= set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_a_golden_pod_breaks_no_rule_of_kubernetes(case: str) -> None:
    assert broken_rules(yaml.safe_load((GOLDEN / f"{case}.yaml").read_text())) == []


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        (["spec", "containers", 0, "volumeMount"], [], "no field volumeMount"),
        (["spec", "containers", 0, "volumeMounts", 0, "name"], "gone", "no volume gone"),
        (["spec", "containers", 0, "volumeMounts", 0, "mountPath"], "/home/jovyan/Persist", "is there twice"),
        (["spec", "containers", 0, "volumeMounts", 0, "mountPath"], "/home/jovyan/Persist/x/..", "is no path"),
        (["spec", "initContainers", 0, "name"], "storage", "containers: storage is there twice"),
        (["spec", "initContainers", 0, "startupProbe"], {"periodSeconds": 1}, "has no startupProbe"),
        (["spec", "initContainers", 0, "restartPolicy"], "Never", "only an init container"),
        (["spec", "initContainers", 0, "tty"], "yes", "is str and not bool"),
        (["spec", "terminationGracePeriodSeconds"], "120", "is str and not int"),
        (["spec", "volumes", 0, "hostPath"], {"path": "/"}, "not exactly one source"),
        (["metadata", "name"], "Jupyter", "is no label"),
        (["metadata", "labels", "x"], "-", "label x"),
    ],
)
def test_the_rules_see_what_they_are_for(path: list[Any], value: Any, rule: str) -> None:
    pod = yaml.safe_load((GOLDEN / "cpu-basic.yaml").read_text())
    place = pod
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert any(rule in line for line in broken_rules(pod))


def test_two_users_with_two_servers_each_share_nothing_but_what_their_groups_allow() -> None:
    members = {"ada": ["cpsHPCAccess", "team-a"], "bob": ["cpsHPCAccess", "team-b"]}
    pods = {
        (user, server): manifest(user=user, server=server, groups=groups, shares=True)
        for user, groups in members.items()
        for server in ("", "gpu box")
    }
    assert len({pod["metadata"]["name"] for pod in pods.values()}) == 4
    for (user, server), pod in pods.items():
        team = "team-a" if user == "ada" else "team-b"
        assert mounts(pod, "notebook") == {
            "/home/jovyan": ("home", "", False),
            "/home/jovyan/Persist": ("persist", user, False),
            "/home/jovyan/Persist/Backup": ("persist", f"{user}/Backup", True),
            "/home/jovyan/Persist/.jupyterhub-sidecar": ("persist", f"{user}/.jupyterhub-sidecar", True),
            f"/home/jovyan/Shared/{team}": ("shared", team, False),
            "/home/jovyan/Shared/papers": ("shared", "papers", True),
            "/run/jupyterhub-sidecar": ("run", "", False),
            "/usr/local/bin/gpu-check": ("tools", "gpu-check", True),
        }
        assert mounts(pod, "storage") == {
            "/watch/home": ("home", "", False),
            "/watch/home/Persist": ("guard", "", True),
            "/watch/home/Shared": ("guard", "", True),
            "/watch/persist": ("persist", user, False),
            f"/watch/shared/{team}": ("shared", team, True),
            "/watch/shared/papers": ("shared", "papers", True),
            "/run/jupyterhub-sidecar": ("run", "", False),
            "/tmp": ("tmp", "", False),
        }
        assert mounts(pod, "storage-prepare") == {
            "/claims/persist": ("persist", "", False),
            "/tools": ("tools", "", False),
        }
        assert environment(pod, "storage-prepare")["PREPARE_USER"] == user
        read = from_environ(environment(pod, "storage"))
        assert read.server == server_directory(server)
        assert read.owner == user
        assert read.shared == (Share(team, "rw"), Share("papers", "ro"))
        assert read.mounts == ("Persist", "Shared")
    servers = [from_environ(environment(pod, "storage")).server for pod in pods.values()]
    assert servers[:2] == servers[2:]
    assert servers[0] != servers[1]


def test_who_is_in_no_share_has_no_shared_and_may_call_a_directory_so() -> None:
    policy = Path(SHIPPED).read_text().replace("shared: [] #", "shared: [{name: a, groups: [a]}] #")
    pod = manifest(policy=policy)
    assert "shared" not in {volume["name"] for volume in pod["spec"]["volumes"]}
    assert "/watch/home/Shared" not in mounts(pod, "storage")
    assert from_environ(environment(pod, "storage")).mounts == ("Persist",)


names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=60
) | st.sampled_from(
    ["{", "}", "{username}", "a{0}b", "$(SIDECAR_HOME)", "$$", "..", "Persist", "default", "-rf", "a:b"]
)


@settings(deadline=None)
@given(user=names, other=names, server=names | st.just(""))
def test_whatever_a_user_is_called_all_their_containers_have_one_directory_that_nobody_else_has(
    user: str, other: str, server: str
) -> None:
    policy = load_policy()
    decision = Decision(profile="a100-1", image="x:1", size=Size(millicpu=8000, memory_bytes=1 << 35, gpus=1))
    plan = pod_plan(decision, policy, Deployment(image="y:1"), user=user, server=server, groups=[])
    around = Surroundings(uid=1000, gid=100, nested=(), names=(), token=False)
    parts = [{"name": "notebook", "volumeMounts": notebook_mounts(plan)}, *init_containers(plan, around)]
    pod = {"metadata": {"name": "x"}, "spec": {"containers": parts, "volumes": volumes(plan)}}
    subs = {
        sub.split("/")[0]
        for name in ("notebook", "storage")
        for volume, sub, _ in mounts(pod, name).values()
        if volume == "persist"
    }
    assert subs == {plan.user_directory}
    assert environment(pod, "storage-prepare")["PREPARE_USER"] == plan.user_directory
    read = from_environ(environment(pod, "storage"))
    assert replace(read, mounts=plan.sidecar.mounts) == plan.sidecar
    if other != user:
        assert user_directory(other) != plan.user_directory


@pytest.mark.parametrize("user", ["a{b}", "{unescaped_username}", "{", "}}", "$(SIDECAR_HOME)", "a$$b", "%(x)s", "é{}"])
def test_braces_and_dollars_stay_what_they_are(user: str) -> None:
    pod = manifest(user=user, server=user, config={"KubeSpawner": {"lifecycle_hooks": {}}})
    read = from_environ(environment(pod, "storage"))
    assert read.owner == user
    assert pod["metadata"]["annotations"]["hub.jupyter.org/username"] == user
    for each in container(pod, "storage")["env"]:
        # What is left when a kubelet has replaced every $$ has no reference in it.
        assert "$(" not in each.get("value", "").replace("$$", "")


def test_a_policy_with_braces_in_its_texts_stays_what_it_is() -> None:
    policy = Path(SHIPPED).read_text().replace("Single A100 GPU", "{gpu} of {username}")
    assert broken_rules(manifest(policy=policy, options={"profile": "a100-1"})) == []


@pytest.mark.parametrize("case", CASES)
def test_our_containers_are_locked_down_and_have_what_they_need_and_no_more(case: str) -> None:
    pod = manifest(**CASES[case])
    ours = [each for each in every_container(pod) if each["name"] in OURS]
    assert len(ours) >= 2
    for one in ours:
        assert one["securityContext"] == {
            "runAsUser": 1000,
            "runAsGroup": 100,
            "runAsNonRoot": True,
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert {"cpu", "memory"} <= set(one["resources"]["limits"])
        assert one["resources"]["requests"] == one["resources"]["limits"]
        assert "livenessProbe" not in one
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert "shareProcessNamespace" not in pod["spec"]
    notebook = container(pod, "notebook")["resources"]
    assert notebook["requests"] == notebook["limits"]


def test_containers_come_in_the_order_in_which_they_need_one_another() -> None:
    pod = manifest(options={"profile": "a100-1"})
    assert [each["name"] for each in every_container(pod)] == [
        "storage-prepare",
        "gpu-preflight",
        "storage",
        "block-cloud-metadata",
        "notebook",
    ]
    assert container(pod, "storage")["restartPolicy"] == "Always"
    old = manifest(options={"profile": "a100-1"}, native=False)
    assert [each["name"] for each in every_container(old)] == [
        "storage-prepare",
        "gpu-preflight",
        "block-cloud-metadata",
        "notebook",
        "storage",
    ]
    assert "restartPolicy" not in container(old, "storage")
    assert from_environ(environment(old, "storage")).native is False


def test_the_gpus_are_the_notebooks_and_only_those() -> None:
    for count in (1, 2):
        pod = manifest(options={"profile": f"a100-{count}"})
        asked = {
            each["name"]: each["resources"]["limits"].get("nvidia.com/gpu")
            for each in every_container(pod)
            if "resources" in each
        }
        assert asked == {"storage-prepare": None, "gpu-preflight": f"{count}", "storage": None, "notebook": f"{count}"}
        assert environment(pod, "gpu-preflight")["GPU_CHECK_EXPECT"] == str(count)
        assert "NVIDIA_VISIBLE_DEVICES" not in environment(pod, "notebook")
        assert "postStart" in container(pod, "notebook")["lifecycle"]
    none = manifest(
        options={"profile": "cpu-basic"}, config={"KubeSpawner": {"environment": {"NVIDIA_VISIBLE_DEVICES": "all"}}}
    )
    assert environment(none, "notebook")["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert "gpu-preflight" not in {each["name"] for each in every_container(none)}
    assert "postStart" not in (container(none, "notebook").get("lifecycle") or {})


def test_a_policy_that_checks_no_gpus_has_no_preflight_and_no_hook() -> None:
    policy = Path(SHIPPED).read_text().replace("at_spawn: quick", "at_spawn: off")
    policy = policy.replace("frameworks: background", "frameworks: off")
    pod = manifest(policy=policy, options={"profile": "a100-1"})
    assert "gpu-preflight" not in {each["name"] for each in every_container(pod)}
    assert "postStart" not in (container(pod, "notebook").get("lifecycle") or {})


def test_a_mount_of_others_in_the_home_is_guarded_and_never_saved() -> None:
    extra = [
        {"name": "data", "mountPath": "/home/jovyan/data"},
        {"name": "data", "mountPath": "/home/jovyan/data/deep"},
        {"name": "data", "mountPath": "/home/jovyan/.config/tool"},
        {"name": "data", "mountPath": "/home/jovyan/.bashrc", "subPath": "bashrc"},
        {"name": "data", "mountPath": "/home/jovyan/Persist/inside"},
        {"name": "data", "mountPath": "/opt/data"},
    ]
    config = {"KubeSpawner": {"volumes": [{"name": "data", "emptyDir": {}}], "volume_mounts": extra}}
    pod = manifest(config=config)
    assert broken_rules(pod) == []
    guarded = {path for path, mount in mounts(pod, "storage").items() if mount == ("guard", "", True)}
    assert guarded == {f"/watch/home/{name}" for name in ("Persist", "Shared", "data", ".config/tool")}
    assert from_environ(environment(pod, "storage")).mounts == (".bashrc", "Persist", "Shared", "data")


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"volumes": [{"name": "home", "emptyDir": {}}]}, "a volume 'home' twice"),
        (
            {
                "volumes": [{"name": "mine", "emptyDir": {}}],
                "volume_mounts": [{"name": "mine", "mountPath": "/home/jovyan/"}],
            },
            "a mount of the notebook at '/home/jovyan' twice",
        ),
        ({"init_containers": [{"name": "storage", "image": "x"}]}, "a container 'storage' twice"),
        ({"extra_containers": [{"name": "gpu-preflight", "image": "x"}]}, "a container 'gpu-preflight' twice"),
        ({"extra_pod_config": {"shareProcessNamespace": True}}, "shareProcessNamespace cannot be used"),
        ({"extra_pod_config": {"hostPID": True}}, "hostPID cannot be used"),
        ({"uid": 0}, "cannot run as root"),
        ({"container_security_context": {"runAsUser": 0}}, "cannot run as root"),
    ],
)
def test_a_configuration_that_contradicts_ours_is_refused_in_one_line(config: dict[str, Any], why: str) -> None:
    with pytest.raises(FailedStart) as caught:
        manifest(config={"KubeSpawner": config}, options={"profile": "a100-1"})
    message = caught.value.jupyterhub_message
    assert why in message
    assert message.isprintable()


def test_what_an_administrator_configured_stays() -> None:
    policy = Path(SHIPPED).read_text().replace("gpus: 1\n\n  a100-2", f"gpus: 1\n{PLACEMENT}\n  a100-2")
    config = {
        "KubeSpawner": {
            "node_selector": {"pool": "users"},
            "tolerations": [{"key": "hub.jupyter.org/dedicated", "value": "user", "effect": "NoSchedule"}],
            "lifecycle_hooks": {
                "postStart": {"exec": {"command": ["git", "pull"]}},
                "preStop": {"exec": {"command": ["x"]}},
            },
            "fs_gid": 100,
            "gid": 1000,
            "service_account": "notebooks",
            "automount_service_account_token": True,
            "extra_pod_config": {"terminationGracePeriodSeconds": 5, "priorityClassName": "users"},
        }
    }
    pod = manifest(policy=policy, options={"profile": "a100-1"}, config=config)
    spec, notebook = pod["spec"], container(pod, "notebook")
    assert broken_rules(pod) == []
    assert spec["nodeSelector"] == {"pool": "users", "accelerator": "a100"}
    assert [each["key"] for each in spec["tolerations"]] == ["hub.jupyter.org/dedicated", "gpu"]
    assert spec["terminationGracePeriodSeconds"] == 120
    assert spec["priorityClassName"] == "users"
    assert spec["securityContext"] == {"fsGroup": 100, "fsGroupChangePolicy": "OnRootMismatch"}
    assert notebook["lifecycle"]["preStop"] == {"exec": {"command": ["x"]}}
    assert notebook["lifecycle"]["postStart"]["exec"]["command"][-2:] == ["git", "pull"]
    for name in OURS:
        # The API server mounts a token only where nothing is mounted.
        assert mounts(pod, name)["/var/run/secrets/kubernetes.io/serviceaccount"] == ("guard", "", True)
        assert container(pod, name)["securityContext"]["runAsGroup"] == 1000


@pytest.fixture
def waiting_check(tmp_path: Path) -> Path:
    """A check that waits for a word, and then says that it ran."""
    os.mkfifo(tmp_path / "word")
    script = tmp_path / "gpu-check"
    script.write_text(f'#!/bin/sh\nread word <{tmp_path}/word\necho "$@" >{tmp_path}/ran\n')
    script.chmod(0o755)
    return script


@pytest.mark.parametrize(("command", "code"), [((), 0), (("true",), 0), (("sh", "-c", "exit 7"), 7)])
def test_the_hook_returns_while_its_check_goes_on(waiting_check: Path, command: tuple[str, ...], code: int) -> None:
    check, ran = str(waiting_check), waiting_check.with_name("ran")
    hook = [part.replace("/usr/local/bin/gpu-check", check) for part in post_start(command)["exec"]["command"]]
    # With an inherited stream this would wait for the check.
    done = subprocess.run(hook, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")
    assert not ran.exists()
    waiting_check.with_name("word").write_text("go\n")
    until = time.monotonic() + 30
    while not (ran.exists() and ran.read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert ran.read_text() == "short --background\n"


def call(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["manifest", *arguments], catch_exceptions=False)


def test_the_command_prints_the_pod_without_a_cluster() -> None:
    group = ("--group", "cpsHPCAccess", "--options", '{"profile": "a100-2"}')
    result = call("--user", "ada", "--server", "box", "--image", "example.org/sidecar:1", *group)
    assert result.exit_code == 0
    pod = yaml.safe_load(result.stdout)
    assert broken_rules(pod) == []
    assert {each["image"] for each in every_container(pod) if each["name"] in OURS} == {"example.org/sidecar:1"}
    assert from_environ(environment(pod, "storage")).server == "box"
    expected = copy.deepcopy(manifest(server="box", options={"profile": "a100-2"})["spec"]["volumes"])
    assert pod["spec"]["volumes"] == expected


def test_the_command_refuses_what_decide_refuses() -> None:
    result = call("--user", "ada", "--options", '{"profile": "a100-2"}')
    assert result.exit_code == 3
    assert "is not among those offered to ada" in json.loads(result.stdout)["reason"]
    assert call("--user", "ada", "--options", "{").exit_code == 2
    assert "Exit codes:" in call("--help").stdout
