"""The sidecar's image beside a notebook in real containers, as uid 1000 on a read-only root without capabilities."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pods.engine import BASE, SIDECAR, Podman
from tests.pods.pod import RESTRICTED, Pod, Volumes
from tests.processes import wait_until

pytestmark = pytest.mark.slow

_MB = 1_000_000
_IMAGE_MOST_BYTES = 120 * _MB
_HELP_MOST_S = 0.3
_ROUNDS = 5

WORKING = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (open("last.ipynb", "w").write("last"), sys.exit(0)))
for number in range(20):
    open(f"{number}.py", "w").write(str(number))
open("work.ipynb", "w").write("work")
time.sleep(600)
"""

_WORK = {b"work", *(str(number).encode() for number in range(20))}

GREEDY = """
open("work.ipynb", "w").write("work")
hoard = []
while True:
    hoard.append(bytearray(b"x" * (1 << 20)))
"""


def _contents(volumes: Volumes) -> set[bytes]:
    """Of every file in the backup and among the earlier versions."""
    return {path.read_bytes() for path in volumes.persist.rglob("*") if path.is_file()}


@pytest.fixture
def pod(podman: Podman, volumes: Volumes) -> Pod:
    """A pod whose user has worked."""
    pod = Pod(podman, volumes)
    pod.start_notebook(WORKING)
    wait_until(lambda: len(list(volumes.mirror.glob("*.*"))) == len(_WORK), "what the notebook wrote is safe")
    return pod


def test_the_users_directory_and_the_tools_are_there_before_anything_else(podman: Podman, volumes: Volumes) -> None:
    pod = Pod(podman, volumes)
    assert pod.prepared["persist"] == "ok"
    assert pod.prepared["new"]
    assert "gpu-check" in pod.prepared["tools"]
    for path in (volumes.persist, volumes.persist / "Backup", volumes.persist / ".jupyterhub-sidecar"):
        status = path.stat()
        assert (status.st_uid, status.st_mode & 0o777) == (1000, 0o700)


def test_a_link_that_stands_in_the_users_place_is_named_and_not_followed(podman: Podman, volumes: Volumes) -> None:
    pod = Pod(podman, volumes)
    pod.stop()
    volumes.persist.rename(volumes.claim / "bob")
    volumes.persist.symlink_to("bob")
    (volumes.claim / "bob" / "Backup").rename(volumes.claim / "elsewhere")
    assert pod.prepare()["persist"] == "foreign"
    assert not (volumes.claim / "bob" / "Backup").exists()


def test_a_file_of_the_notebook_is_safe_the_end_drains_and_the_next_pod_has_it_all(
    podman: Podman, volumes: Volumes, pod: Pod
) -> None:
    code, message = pod.stop()
    assert (code, message["exit_code"], message["persist"]) == (0, 0, "ok")
    assert (volumes.mirror / "last.ipynb").read_text() == "last"
    again = Pod(podman, volumes)
    assert not again.prepared["new"]
    assert (again.home / "work.ipynb").read_text() == "work"
    assert (again.home / "last.ipynb").read_text() == "last"
    assert (again.home / "last.ipynb").stat().st_uid == 1000
    again.stop()


def test_a_notebook_killed_by_its_memory_limit_loses_nothing(podman: Podman, volumes: Volumes) -> None:
    pod = Pod(podman, volumes)
    name = pod.start_notebook(GREEDY, "--memory=64m", "--memory-swap=64m")
    wait_until(lambda: podman.inspect("container", name)["State"]["Status"] == "exited", "it is killed", 60)
    assert podman.inspect("container", name)["State"]["ExitCode"] == 137
    pod.start_notebook(WORKING)  # as the kubelet does, in the same pod
    wait_until((volumes.mirror / "work.ipynb").exists, "its file is safe")
    assert pod.stop()[0] == 0
    assert (volumes.mirror / "last.ipynb").read_text() == "last"


@pytest.mark.parametrize("directory", ["Backup", ".jupyterhub-sidecar"])
def test_the_notebook_cannot_change_what_is_ours_on_persist(volumes: Volumes, pod: Pod, directory: str) -> None:
    before = sorted(str(path.relative_to(volumes.persist)) for path in volumes.persist.rglob("*"))
    ours = f"Persist/{directory}"
    for attack in (
        f"echo x > {ours}/new",
        f"mkdir {ours}/new",
        f"rm -rf {ours}",
        f"mv {ours} Persist/moved",
        f"rmdir {ours}",
        f"ln -s /etc {ours}/link",
        f"chmod -R 777 {ours}",
        f"find {ours} -type f -exec sh -c 'echo x > \"$1\"' . {{}} ';' ; false",
    ):
        said = pod.in_notebook(f"{attack} && echo done")
        assert "done" not in said, attack
        assert said, attack
    assert sorted(str(path.relative_to(volumes.persist)) for path in volumes.persist.rglob("*")) == before
    assert (volumes.mirror / "work.ipynb").read_text() == "work"


def test_rm_rf_of_the_home_in_the_notebook_reaches_no_backup(volumes: Volumes, pod: Pod) -> None:
    said = pod.in_notebook(
        "rm -rf /home/jovyan; ls -A /home/jovyan /home/jovyan/Persist; mount | grep -c ' /home/jovyan'"
    )
    assert said.rstrip().endswith("4"), "all is mounted still"
    assert not list(pod.home.glob("*.py"))
    pod.stop()
    assert _contents(volumes) >= _WORK


def test_rm_rf_of_the_home_in_the_sidecar_neither_unmounts_persist_nor_deletes_anything_of_it(
    volumes: Volumes, pod: Pod
) -> None:
    pod.in_notebook("echo mine > Persist/mine.txt")
    said = pod.in_sidecar("cd /watch/home; rm -rf ./* ./.[!.]*; rmdir Persist Shared; mv Persist elsewhere")
    assert "Persist" in said
    assert (pod.home / "Persist").is_dir()
    said = pod.in_notebook("cat Persist/mine.txt; grep -c ' /home/jovyan/Persist ' /proc/mounts")
    assert said.split() == ["mine", "1"]
    pod.stop()
    assert _WORK | {b"mine\n"} <= _contents(volumes)


def test_our_containers_have_no_rights_and_nothing_to_write_to(podman: Podman, volumes: Volumes) -> None:
    pod = Pod(podman, volumes)
    assert pod.in_sidecar("id -u; id -g").split() == ["1000", "100"]
    rights = pod.in_sidecar("grep -h -E 'Cap(Eff|Prm|Bnd)|NoNewPrivs' /proc/1/status").split()
    assert rights == ["CapPrm:", "0" * 16, "CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1"]
    for place in ("/", "/opt/jupyterhub-sidecar", "/etc", "/home", "/var/tmp", "/watch/home/Persist"):
        assert "Read-only file system" in pod.in_sidecar(f"touch {place}/x"), place
    assert "not found" in pod.in_sidecar("gcc --version")
    left_over = "/opt/jupyterhub-sidecar/bin/pip /wheels /src /pip /opt/jupyterhub-sidecar/bin/jupyterhub-sidecar"
    assert pod.in_sidecar(f"for each in {left_over}; do test -e $each && echo $each; done") == ""
    assert podman.inspect("container", pod.sidecar)["State"]["Status"] == "running"
    pod.stop()


def test_a_tool_is_on_the_path_of_an_image_that_knows_nothing_of_us(pod: Pod) -> None:
    said = pod.in_notebook("command -v gpu-check; gpu-check quick --expect 0 && echo passed")
    assert said.startswith("/usr/local/bin/gpu-check\n")
    assert said.endswith("passed\n")
    assert "Read-only" in pod.in_notebook("echo x > /usr/local/bin/gpu-check")


def test_the_check_of_the_gpus_ends_with_0_and_its_verdict_is_in_the_message(podman: Podman, volumes: Volumes) -> None:
    pod = Pod(podman, volumes)
    assert pod.check_gpus(0)["verdict"] == "pass"
    assert pod.check_gpus(1)["verdict"] == "fail"
    assert (pod.run / "gpu.json").exists()
    pod.stop()


def test_the_image_is_small_and_its_command_line_is_there_at_once(
    podman: Podman, record_property: Callable[[str, object], None]
) -> None:
    ours, base = (podman.inspect("image", name) for name in (SIDECAR, BASE))
    over_bytes = ours["Size"] - base["Size"]
    assert ours["Config"]["User"] == "1000:100"
    script = (
        "import resource, subprocess, time\n"
        f"for _ in range({_ROUNDS}):\n"
        "    began, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "    subprocess.run(['sidecar', '--help'], stdout=-3, check=True)\n"
        "    now = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "    print(time.monotonic() - began, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime)\n"
    )
    said = podman("run", "--rm", *RESTRICTED, "--entrypoint=", SIDECAR, "python3", "-c", script)
    took_s, used_s = zip(*(map(float, line.split()) for line in said.splitlines()), strict=True)
    print(f"{over_bytes / _MB:.1f} MB over the base; sidecar --help {min(took_s):.2f} s, {min(used_s):.2f} s of a core")
    record_property("image_over_base_mb", round(over_bytes / _MB, 1))
    record_property("help_s", round(min(took_s), 3))
    assert 0 < over_bytes <= _IMAGE_MOST_BYTES
    assert min(used_s) <= _HELP_MOST_S, "on a busy machine the clock says nothing"


def test_what_our_containers_add_to_a_start(
    podman: Podman, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Printed, and bounded loosely: what podman needs for a container is in both."""
    bare, whole = [], []
    for number in range(_ROUNDS):
        (tmp_path / str(number)).mkdir()
        volumes = Volumes(tmp_path / str(number))
        began_s = time.monotonic()
        podman("run", "--rm", *RESTRICTED, BASE, "true")
        bare.append(time.monotonic() - began_s)
        began_s = time.monotonic()
        pod = Pod(podman, volumes)
        whole.append(time.monotonic() - began_s)
        pod.stop()
    bare_s, ours_s = statistics.median(bare), statistics.median(whole)
    print(f"a bare container: {bare_s:.2f} s; storage-prepare and the sidecar until it is ready: {ours_s:.2f} s")
    record_property("bare_s", round(bare_s, 2))
    record_property("ours_s", round(ours_s, 2))
    assert ours_s < 20
