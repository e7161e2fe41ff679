from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from hub import home
from hub.local_server import LocalServer, Programs, StartRefused
from hub.plan import Plan, local_directories, local_plan
from hub.policy_file import load_policy
from hub.processes import end_all, marked, until, with_descendants
from hub.quantity import Size
from hub.resolve import Decision

ENVIRON = {"PATH": os.environ["PATH"]}
STANDIN = str(Path(__file__).with_name("standin.py"))
REPORT = {"schema": 1, "expected": 1, "verdict": "pass", "summary": "GPU check: passed – 1 GPU"}


@dataclass
class Bench:
    """One server with stand-ins for its programs, and everything it said."""

    tmp: Path
    port: int
    gpus: int = 0
    block: bool = False
    frameworks: bool = True
    told: list[str] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)

    def rules(self, role: str, **rules: Any) -> None:
        (self.tmp / f"{role}.json").write_text(json.dumps(rules))

    @property
    def plan(self) -> Plan:
        decision = Decision(profile="p", image="a:1", size=Size(millicpu=1000, memory_bytes=1, gpus=self.gpus))
        plan = local_plan(decision, local_directories(str(self.tmp / "data"), "ada", ""), load_policy(), user="ada")
        return replace(plan, block_on_gpu=self.block, check_frameworks=plan.check_frameworks and self.frameworks)

    def server(self) -> LocalServer:
        def program(role: str) -> tuple[str, ...]:
            return (sys.executable, STANDIN, role, str(self.tmp / f"{role}.json"))

        programs = Programs(
            sidecar=program("sidecar"),
            gpu_preflight=program("preflight"),
            gpu_check=program("gpu"),
            notebook=(*program("notebook"), str(self.port)),
        )
        logger = logging.getLogger(f"bench.{self.tmp.name}")
        logger.setLevel(logging.DEBUG)
        logger.addHandler(_Collect(self.logged))
        return LocalServer(
            self.plan,
            programs,
            say=lambda _, text: self.told.append(text),
            log=logging.LoggerAdapter(logger, {}),
        )

    def calls(self, role: str) -> list[str]:
        path = self.tmp / f"{role}.json.calls"
        return path.read_text().splitlines() if path.exists() else []

    async def start(self, server: LocalServer) -> None:
        await server.start(ENVIRON, port=self.port)

    @property
    def running(self) -> list[int]:
        server = self.plan.directories.server
        return [process.pid for mark in ("notebook", "storage") for process in marked(f"{server}#{mark}")]


class _Collect(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(f"{record.levelname} {record.getMessage()}")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    bench = Bench(tmp_path, port)
    for role in ("sidecar", "notebook", "preflight", "gpu"):
        bench.rules(role)
    yield bench
    server = bench.plan.directories.server
    asyncio.run(end_all([*marked(f"{server}#notebook"), *marked(f"{server}#storage")], patience_s=0.2))


def run(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 30))


def test_storage_is_ready_before_the_notebook_starts(bench: Bench) -> None:
    bench.rules(
        "sidecar",
        states=[
            {"state": "starting"},
            {"state": "restoring", "restored": {"files": 120}},
            {},
            {"state": "watching", "restored": {"files": 1}, "protected": {"files": 1200}, "pending": {"files": 2}},
        ],
    )

    async def body() -> None:
        server = bench.server()
        await bench.start(server)
        assert await server.poll() is None
        await server.end()

    run(body)
    assert [text for text, _ in itertools.groupby(bench.told)] == [
        "Storage: preparing your home",
        "Storage: bringing your work back from Persist: 120 files",
        "Storage: preparing your home",
        "Storage: 1 file brought back from Persist; your home is being saved: 1,200 files safe, 2 files to go",
        "Starting JupyterLab",
    ]
    assert len(bench.calls("notebook")) == 1


def test_the_home_is_wiped_once_everything_is_safe_and_persist_is_untouched(bench: Bench) -> None:
    async def body() -> None:
        server = bench.server()
        await bench.start(server)
        directories = server.plan.directories
        for place in (directories.persist, directories.shared, directories.home):
            (Path(place) / "work.txt").write_text("precious")
        await server.end()
        assert not os.path.lexists(directories.home)
        assert (Path(directories.persist) / "work.txt").read_text() == "precious"
        assert (Path(directories.shared) / "work.txt").read_text() == "precious"
        assert not [name for name in os.listdir(directories.server) if name.startswith(".wiping")]

    run(body)
    assert bench.running == []


def test_a_home_deeper_than_pythons_recursion_is_wiped_and_its_links_are_not_followed(bench: Bench) -> None:
    outside = bench.tmp / "outside"
    outside.mkdir()
    (outside / "work.txt").write_text("precious")

    async def body() -> None:
        server = bench.server()
        await bench.start(server)
        at = os.open(server.plan.directories.home, os.O_RDONLY)
        for _ in range(1100):
            os.mkdir("d", dir_fd=at)
            os.symlink(outside, "link", dir_fd=at)
            below = os.open("d", os.O_RDONLY, dir_fd=at)
            os.close(at)
            at = below
        os.close(at)
        await server.end()
        assert not os.path.lexists(server.plan.directories.home)
        # On a busy machine the end does not wait until so deep a tree is gone.
        until_s = time.monotonic() + 30
        while any(name.startswith(".wiping") for name in os.listdir(server.plan.directories.server)):
            assert time.monotonic() < until_s
            await asyncio.sleep(0.05)

    run(body)
    assert (outside / "work.txt").read_text() == "precious"


@pytest.mark.skipif(os.geteuid() == 0, reason="needs an account that permissions hold back: root is not")
def test_a_home_with_a_read_only_directory_is_wiped_to_the_last_file(bench: Bench) -> None:
    async def body() -> None:
        server = bench.server()
        await bench.start(server)
        closed = Path(server.plan.directories.home) / "go" / "mod"
        closed.mkdir(parents=True)
        (closed / "file").write_text("x")
        closed.chmod(0o500)
        closed.parent.chmod(0)
        await server.end()
        left = [path.name for path in Path(server.plan.directories.server).iterdir() if path.name.startswith(".wip")]
        assert left == []

    run(body)


@pytest.mark.parametrize("code", [2, 3, 4, 5])
def test_the_home_is_kept_loudly_when_not_everything_is_safe(bench: Bench, code: int) -> None:
    bench.rules("sidecar", run=code, backup=code)

    async def body() -> None:
        server = bench.server()
        await bench.start(server)
        directories = server.plan.directories
        (Path(directories.home) / "work.txt").write_text("precious")
        await server.end()
        assert (Path(directories.home) / "work.txt").read_text() == "precious"
        loud = [line for line in bench.logged if line.startswith("ERROR THE HOME IS KEPT")]
        assert directories.home in loud[0]
        assert f"exit code {code}: the last line" in loud[0]
        bench.rules("sidecar", run=0)
        again = bench.server()
        await bench.start(again)
        assert any("home of your last session was kept" in line for line in bench.told)
        assert (Path(directories.home) / "work.txt").read_text() == "precious"
        assert home.kept_note(directories) == ""
        await again.end()

    run(body)


def test_work_put_in_the_place_of_a_link_is_not_wiped(bench: Bench) -> None:
    async def body() -> None:
        server = bench.server()
        await bench.start(server)
        link = Path(server.plan.directories.home) / "Persist"
        link.unlink()
        link.mkdir()
        (link / "work.txt").write_text("precious")
        await server.end()
        assert (link / "work.txt").read_text() == "precious"
        again = bench.server()
        await bench.start(again)
        assert link.is_symlink()
        aside = list(link.parent.glob("Persist.moved-aside-*/work.txt"))
        assert [path.read_text() for path in aside] == ["precious"]
        await again.end()

    run(body)


def test_work_put_in_the_place_of_save_is_moved_to_where_it_is_saved(bench: Bench) -> None:
    async def body() -> None:
        server = bench.server()
        await bench.start(server)
        save = Path(server.plan.directories.home) / "Save"
        save.mkdir()
        (save / "work.txt").write_text("precious")
        await server.end()
        again = bench.server()
        await bench.start(again)
        assert [path.read_text() for path in save.parent.glob("Save.moved-aside-*/work.txt")] == ["precious"]
        assert not os.path.lexists(save)
        await again.end()
        assert not os.path.lexists(save.parent)

    run(body)


def test_a_server_whose_user_removed_the_whole_home_leaves_no_process(bench: Bench) -> None:
    async def body() -> None:
        server = bench.server()
        await bench.start(server)
        shutil.rmtree(server.plan.directories.home)
        await server.end()

    run(body)
    assert bench.running == []


@pytest.mark.parametrize("obstacle", ["no run directory", "no place for the note"])
def test_an_end_that_meets_an_obstacle_keeps_the_home_and_is_over(bench: Bench, obstacle: str) -> None:
    bench.rules("sidecar", run=1, backup=4)

    async def body() -> None:
        server = bench.server()
        await bench.start(server)
        directories = server.plan.directories
        if obstacle == "no run directory":
            shutil.rmtree(directories.run)
        else:
            os.mkdir(directories.kept)
        assert await server.end() == 0
        assert os.path.lexists(directories.home)

    run(body)
    assert bench.running == []
    assert any(line.startswith("ERROR THE HOME IS KEPT") for line in bench.logged)


@pytest.mark.parametrize("name", ["sidecar.log", "notebook.log", "home-kept.txt"])
def test_a_fifo_planted_for_a_file_of_ours_makes_nobody_wait(bench: Bench, name: str) -> None:
    directory = Path(bench.plan.directories.server)
    directory.mkdir(parents=True)
    os.mkfifo(directory / name)

    async def body() -> None:
        server = bench.server()
        with contextlib.suppress(StartRefused):
            await asyncio.wait_for(bench.start(server), 10)
        await server.end()

    run(body)
    assert bench.running == []


def test_a_directory_planted_for_the_gpu_report_does_not_stop_the_start(bench: Bench) -> None:
    bench.gpus = 1
    bench.rules("preflight", output=json.dumps(REPORT))
    Path(bench.plan.directories.gpu_report).mkdir(parents=True)

    async def body() -> None:
        server = bench.server()
        await bench.start(server)
        await server.end()

    run(body)
    assert any("report of the last GPU check cannot be removed" in line for line in bench.logged)


def test_a_child_with_an_empty_environment_ends_with_its_notebook(bench: Bench) -> None:
    bench.rules("notebook", unmarked=True)

    async def body() -> None:
        server = bench.server()
        await bench.start(server)
        assert server.notebook
        (child,) = (process for process in with_descendants([server.notebook]) if process != server.notebook)
        assert child not in marked(f"{server.plan.directories.server}#notebook")
        await server.end()
        assert not child.alive()

    run(body)


def test_a_killed_sidecar_is_started_again_while_the_notebook_runs(bench: Bench) -> None:
    async def body() -> None:
        server = bench.server()
        await bench.start(server)
        (storage,) = marked(f"{server.plan.directories.server}#storage")
        os.kill(storage.pid, signal.SIGKILL)
        assert await until(lambda: len(bench.calls("sidecar")) >= 1 and _restarted(bench, storage.pid), 10)
        assert await server.poll() is None
        await server.end()

    run(body)
    assert any(line.startswith("ERROR the sidecar ended") for line in bench.logged)


def _restarted(bench: Bench, old: int) -> bool:
    storage = marked(f"{bench.plan.directories.server}#storage")
    return any(process.pid != old for process in storage)


@pytest.mark.parametrize(("backup", "wiped"), [(0, True), (4, False)])
def test_after_a_sidecar_died_at_the_end_a_last_backup_decides(bench: Bench, backup: int, wiped: bool) -> None:
    bench.rules("sidecar", run=1, backup=backup)

    async def body() -> None:
        server = bench.server()
        await bench.start(server)
        await server.end()
        assert os.path.lexists(server.plan.directories.home) is not wiped

    run(body)
    assert "sidecar backup" in bench.calls("sidecar")


def test_when_the_notebook_ends_by_itself_the_home_is_drained_and_its_exit_code_is_told(bench: Bench) -> None:
    bench.rules("notebook", exit=7)

    async def body() -> None:
        server = bench.server()
        await bench.start(server)
        assert await until(lambda: not os.path.lexists(server.plan.directories.home), 10)
        assert await server.poll() == 7

    run(body)
    assert bench.running == []


def test_a_stubborn_notebook_and_its_kernels_are_gone_in_time(bench: Bench) -> None:
    bench.rules("notebook", stubborn=True, kernel=True)

    async def body() -> None:
        server = bench.server()
        await bench.start(server)
        assert await until(lambda: len(marked(f"{server.plan.directories.server}#notebook")) == 2, 5)
        began = time.monotonic()
        await server.end()
        assert time.monotonic() - began < 8

    run(body)
    assert bench.running == []


def test_a_sidecar_that_ends_at_once_fails_the_start_with_its_last_line(bench: Bench) -> None:
    bench.rules("sidecar", early=4, backup=4, states=[{"state": "starting"}])

    async def body() -> None:
        with pytest.raises(StartRefused, match=r"exit code 4: Persist cannot be used"):
            await bench.start(bench.server())

    run(body)
    assert bench.calls("notebook") == []
    assert bench.running == []


def test_a_notebook_that_ends_at_once_fails_the_start_with_its_last_line(bench: Bench) -> None:
    bench.rules("notebook", early=1)

    async def body() -> None:
        with pytest.raises(StartRefused, match=r"exit code 1: No module named jupyterlab"):
            await bench.start(bench.server())

    run(body)
    assert bench.running == []


def test_a_stop_during_the_start_leaves_nothing_behind(bench: Bench) -> None:
    bench.rules("sidecar", states=[{"state": "restoring"}])

    async def body() -> None:
        server = bench.server()
        start = asyncio.create_task(bench.start(server))
        assert await until(lambda: bool(bench.running), 5)
        assert await server.poll() is None
        await server.end()
        with pytest.raises(StartRefused):
            await start

    run(body)
    assert bench.calls("notebook") == []
    assert bench.running == []


def started_by_a_hub_that_is_gone(bench: Bench) -> LocalServer:
    """Its processes run on, and nobody looks after them."""
    servers = []

    async def body() -> None:
        servers.append(bench.server())
        await bench.start(servers[0])
        (Path(servers[0].plan.directories.home) / "work.txt").write_text("precious")

    run(body)
    return servers[0]


def test_what_a_killed_hub_left_running_is_ended_before_the_next_start(bench: Bench) -> None:
    started_by_a_hub_that_is_gone(bench)
    before = set(bench.running)

    async def body() -> None:
        again = bench.server()
        await bench.start(again)
        assert len(bench.running) == 2
        assert not before & set(bench.running)
        assert (Path(again.plan.directories.home) / "work.txt").read_text() == "precious"
        await again.end()

    run(body)


def test_a_new_hub_adopts_a_running_server_and_wipes_only_after_a_backup(bench: Bench) -> None:
    notebook = started_by_a_hub_that_is_gone(bench).notebook
    assert notebook

    async def body() -> None:
        second = bench.server()
        second.adopt(notebook)
        assert await second.poll() is None
        await second.end()
        assert not os.path.lexists(second.plan.directories.home)

    run(body)
    assert "sidecar backup" in bench.calls("sidecar")
    assert bench.running == []


def test_the_gpu_verdict_is_told_and_its_report_kept(bench: Bench) -> None:
    bench.gpus = 1
    bench.rules("preflight", output=json.dumps(REPORT))

    async def body() -> None:
        server = bench.server()
        await bench.start(server)
        assert json.loads(Path(server.plan.directories.gpu_report).read_text()) == REPORT
        await server.end()

    run(body)
    assert bench.calls("preflight") == ["preflight GPU_CHECK_EXPECT=1"]
    assert bench.calls("gpu") == ["gpu short --background"]
    assert "GPU check: passed – 1 GPU" in bench.told
    assert "INFO GPU check: passed – 1 GPU" in bench.logged


@pytest.mark.parametrize("gpus", [0, 1])
def test_an_earlier_sessions_gpu_report_is_never_read_for_this_ones(bench: Bench, gpus: int) -> None:
    """Neither where no GPU was asked for, nor where the check said nothing."""
    bench.gpus = gpus
    bench.rules("preflight", exit=1)
    place = Path(bench.plan.directories.gpu_report)
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(REPORT))

    async def body() -> None:
        server = bench.server()
        await bench.start(server)
        await server.end()

    run(body)
    verdict = json.loads(place.read_text())["verdict"] if place.exists() else None
    assert verdict == ("unknown" if gpus else None)
    assert len(bench.calls("gpu")) == gpus


def test_the_report_that_the_check_wrote_itself_stays(bench: Bench) -> None:
    bench.gpus = 1
    place = bench.plan.directories.gpu_report
    bench.rules("preflight", output=json.dumps(REPORT), file=place)

    async def body() -> None:
        server = bench.server()
        await bench.start(server)
        await server.end()

    run(body)
    assert json.loads(Path(place).read_text()) == {"in": "full"}


def test_frameworks_that_cannot_be_checked_do_not_stop_the_start(bench: Bench) -> None:
    bench.gpus = 1
    bench.rules("preflight", output=json.dumps(REPORT))
    bench.rules("gpu", exit=3)

    async def body() -> None:
        server = bench.server()
        await bench.start(server)
        await server.end()

    run(body)
    assert "WARNING the notebook's frameworks are not checked: exit code 3" in bench.logged


def test_no_frameworks_are_checked_where_the_policy_says_off(bench: Bench) -> None:
    bench.gpus = 1
    bench.frameworks = False
    bench.rules("preflight", output=json.dumps(REPORT))

    async def body() -> None:
        server = bench.server()
        await bench.start(server)
        await server.end()

    run(body)
    assert bench.calls("gpu") == []


@pytest.mark.parametrize("verdict", ["fail", "unknown"])
def test_a_sick_gpu_warns_or_blocks_as_the_policy_says(bench: Bench, verdict: str) -> None:
    bench.gpus = 2
    line = f"GPU check: {verdict} – 2 GPUs were asked for, and 1 is there."
    bench.rules("preflight", output=json.dumps({"schema": 1, "expected": 2, "verdict": verdict, "summary": line}))

    async def body() -> None:
        warned = bench.server()
        await bench.start(warned)
        await warned.end()
        assert line in bench.told
        bench.block = True
        with pytest.raises(StartRefused, match="2 GPUs were asked for, and 1 is there"):
            await bench.start(bench.server())

    run(body)
    assert len(bench.calls("notebook")) == 1
    assert bench.running == []
