"""What surrounds a GPU: read from /proc, /sys and the environment, each finding with a severity of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gpu_checks.facts import Surroundings
from gpu_checks.result import Verdict
from gpu_checks.surroundings import LEAST_MEMORY_BYTES, LEAST_PIDS, LEAST_SHM_BYTES, NO_LIMIT_BYTES, checks_of, look

PASS, WARN = Verdict.PASS, Verdict.WARN
GIB = 1 << 30


def place(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


V2 = {
    "proc/self/cgroup": "0::/pod/notebook\n",
    "sys/fs/cgroup/pod/notebook/memory.max": "max\n",
    "sys/fs/cgroup/pod/memory.max": f"{32 * GIB}\n",
    "sys/fs/cgroup/pod/notebook/cpu.max": "200000 100000\n",
    "sys/fs/cgroup/pod/cpu.max": "max 100000\n",
    "sys/fs/cgroup/pod/pids.max": "1000\n",
    "sys/fs/cgroup/pod/pids.current": "990\n",
}
V1 = {
    "proc/self/cgroup": "7:pids:/kube/a\n4:memory:/kube/a\n2:cpu,cpuacct:/kube/a\n1:name=systemd:/kube\n0::/kube\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/kube/a/memory.limit_in_bytes": f"{GIB}\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu,cpuacct/kube/a/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu,cpuacct/kube/a/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/pids/kube/a/pids.max": "max\n",
}


def test_the_smallest_limit_of_all_groups_above_counts(tmp_path: Path) -> None:
    seen = look({}, place(tmp_path, V2))
    assert (seen.memory_limit_bytes, seen.cpu_limit, seen.pids_left) == (32 * GIB, 2.0, 10)


def test_the_first_version_of_cgroups_is_understood(tmp_path: Path) -> None:
    seen = look({}, place(tmp_path, V1))
    assert (seen.memory_limit_bytes, seen.cpu_limit, seen.pids_left) == (GIB, 0.5, None)


def test_a_quota_of_one_group_is_never_divided_by_the_period_of_another(tmp_path: Path) -> None:
    files = {name: text for name, text in V1.items() if not name.endswith("kube/a/cpu.cfs_quota_us")}
    files["sys/fs/cgroup/cpu,cpuacct/kube/a/cpu.cfs_period_us"] = "1000\n"
    assert look({}, place(tmp_path, files)).cpu_limit == 0.5


@pytest.mark.parametrize(
    "files", [{}, {"proc/self/cgroup": "garbage\n0::/\n"}, {**V2, "sys/fs/cgroup/pod/memory.max": "lots"}]
)
def test_what_cannot_be_read_is_no_limit(tmp_path: Path, files: dict[str, str]) -> None:
    assert look({}, place(tmp_path, files)).memory_limit_bytes is None


def test_a_group_path_never_leads_out(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/../../secret\n", "secret/memory.max": "1", "sys/secret/memory.max": "1"}
    assert look({}, place(tmp_path, files)).memory_limit_bytes is None


def test_the_environment_is_read(tmp_path: Path) -> None:
    (tmp_path / "compat").mkdir()
    (tmp_path / "compat" / "libcuda.so.1").touch()
    seen = look(
        {
            "LD_LIBRARY_PATH": f"/nowhere::{tmp_path}/compat:{tmp_path}",
            "CUDA_VISIBLE_DEVICES": "",
            "CUDA_VERSION": "12.4.1",
            "CUDA_MPS_PIPE_DIRECTORY": "/tmp/mps",
        },
        str(tmp_path),
    )
    assert seen == Surroundings(
        visible_devices="", library_directories=(f"{tmp_path}/compat",), image_cuda="12.4.1", mps=True
    )


def test_the_size_of_the_shared_memory_is_that_of_its_file_system(tmp_path: Path) -> None:
    (tmp_path / "dev" / "shm").mkdir(parents=True)
    total, _, _ = shutil.disk_usage(tmp_path)
    assert look({}, str(tmp_path)).shm_bytes == total


@pytest.mark.parametrize(("limit", "seen"), [(NO_LIMIT_BYTES - 1, NO_LIMIT_BYTES - 1), (NO_LIMIT_BYTES, None)])
def test_a_limit_that_no_machine_has_is_none(tmp_path: Path, limit: int, seen: int | None) -> None:
    files = {"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": str(limit)}
    assert look({}, place(tmp_path, files)).memory_limit_bytes == seen


def test_this_machine_can_be_read() -> None:
    seen = look({})
    assert seen.memory_limit_bytes is None or seen.memory_limit_bytes > 0
    assert seen.shm_bytes is None or seen.shm_bytes >= 0


@pytest.mark.parametrize(
    ("seen", "gpus", "name", "verdict", "words"),
    [
        (Surroundings(shm_bytes=LEAST_SHM_BYTES - 1), 1, "shared memory", WARN, "59 MiB"),
        (Surroundings(shm_bytes=LEAST_SHM_BYTES), 1, "shared memory", PASS, "may need more"),
        (Surroundings(shm_bytes=64 << 20), 1, "shared memory", PASS, "64 MiB; data loaders"),
        (Surroundings(shm_bytes=GIB), 1, "shared memory", PASS, "1024 MiB"),
        (Surroundings(memory_limit_bytes=LEAST_MEMORY_BYTES - 1), 1, "memory limit", WARN, "2047 MiB"),
        (Surroundings(memory_limit_bytes=LEAST_MEMORY_BYTES), 1, "memory limit", PASS, "2048 MiB"),
        (Surroundings(cpu_limit=0.5), 1, "cpu limit", WARN, "0.5 cores"),
        (Surroundings(cpu_limit=1), 1, "cpu limit", PASS, "1 cores"),
        (Surroundings(cpu_limit=1), 2, "cpu limit", WARN, "1 cores"),
        (Surroundings(cpu_limit=2), 2, "cpu limit", PASS, "2 cores"),
        (Surroundings(pids_left=LEAST_PIDS - 1), 1, "process limit", WARN, "63 left"),
        (Surroundings(pids_left=LEAST_PIDS), 1, "process limit", PASS, "64 left"),
        (Surroundings(pids_left=-5), 1, "process limit", WARN, "0 left"),
        (Surroundings(visible_devices="0\x1b"), 1, "visible devices", PASS, "CUDA_VISIBLE_DEVICES=0\\x1b"),
        (Surroundings(mps=True), 1, "sharing", PASS, "MPS"),
        (Surroundings(library_directories=("/cuda/lib64/stubs",)), 1, "library path", WARN, "/cuda/lib64/stubs"),
        (Surroundings(library_directories=("/cuda/compat",)), 1, "library path", PASS, "compatibility library"),
        (Surroundings(image_cuda="12.9.1"), 1, "image", PASS, "image 12.9.1, driver 12.4"),
        (Surroundings(image_cuda="13.0.0"), 1, "image", WARN, "image 13.0.0, driver 12.4"),
    ],
)
def test_each_finding_has_its_severity(seen: Surroundings, gpus: int, name: str, verdict: Verdict, words: str) -> None:
    (check,) = checks_of(seen, gpus=gpus, cuda_driver=12040)
    assert (check.name, check.verdict) == (name, verdict)
    assert words in check.detail
    assert all(bool(text) == (verdict is WARN) for text in (check.cause, check.user_action, check.admin_action))
    assert bool(check.audience) == (verdict is WARN)


def test_what_is_comfortable_says_no_more_than_its_size() -> None:
    (check,) = checks_of(Surroundings(shm_bytes=GIB), gpus=1, cuda_driver=12040)
    assert check.detail == "1024 MiB"


@pytest.mark.parametrize(
    "seen",
    [
        Surroundings(),
        Surroundings(library_directories=("/usr/lib/x86_64-linux-gnu",)),
        Surroundings(image_cuda="latest"),
        Surroundings(image_cuda="13\n"),
    ],
)
def test_what_is_not_known_or_usual_is_no_finding(seen: Surroundings) -> None:
    assert checks_of(seen, gpus=1, cuda_driver=12040) == ()


def test_an_unknown_driver_is_not_compared_with_the_image() -> None:
    assert checks_of(Surroundings(image_cuda="13.0"), gpus=1, cuda_driver=0) == ()
