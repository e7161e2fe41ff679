"""The benchmarks' harness, with sizes that say nothing: that it measures, and that it does not flatter."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.bench.__main__ import BENCHMARKS, measure
from tests.bench.figures import Series, beside, goal
from tests.bench.flush import measure_flush
from tests.bench.operations import calls_below
from tests.bench.ours import Ours
from tests.bench.peers import Peer, Peers, find_peers
from tests.bench.plot import points
from tests.bench.progress import Progress
from tests.bench.scratch import Scratch, scratch_below
from tests.bench.sizes import Sizes
from tests.bench.table import markdown
from tests.bench.trees import IncompleteCopyError, check_copy, make_tree
from tests.processes import CHECKOUT

TINY = Sizes(
    rest_s=0.0,
    flush_files=(20, 40),
    flush_changed=(3, 30),
    flush_rounds=1,
    first_copy_files=20,
    first_copy_rounds=1,
    large_file_bytes=1 << 20,
    large_file_rounds=1,
    latency_files=20,
    latency_samples=2,
    memory_files=(20, 40),
    memory_idle_s=0.1,
    memory_peer_files=20,
    idle_files=20,
    idle_s=0.2,
    idle_longest_s=0.2,
    ready_rounds=1,
    operations_files=20,
    operations_s=0.5,
    burst_files=50,
)
PIPE = io.StringIO()
QUIET = Progress(PIPE)


ONE_FLUSH = replace(TINY, flush_files=(20,), flush_changed=(3,))


def without_restic() -> Peers:
    """restic takes a second for its key, each time."""
    return replace(find_peers(), restic=find_peers(path="/nonexistent").restic)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run of everything says."""
    with scratch_below(tmp_path_factory.mktemp("bench")) as scratch:
        measured, code = measure(list(BENCHMARKS), TINY, scratch, without_restic(), QUIET)
    assert code == 0, measured
    assert PIPE.getvalue() == ""  # progress is for terminals
    found: dict[str, Any] = json.loads(json.dumps(measured))
    return found


@pytest.mark.slow
def test_every_benchmark_has_its_figures(document: dict[str, Any]) -> None:
    assert not {name for name in BENCHMARKS if "error" in document[name]}
    runs = document["flush"]["runs"]
    assert [(run["files"], run["changed"]) for run in runs] == [(20, 3), (40, 3), (40, 30)]
    series = [*runs, document["first_copy"], {"ours": document["first_copy"]["ours_process"]}, document["large_file"]]
    for each in series:
        ours = each["ours"]
        assert 0 < ours["min_s"] <= ours["median_s"] <= ours["max_s"]
        assert ours["durable"]
    assert document["memory"]["runs"][0]["pss_idle_mb"]["value"] > 5
    assert document["memory"]["runs"][1]["files"] == 40
    assert 0 < document["latency"]["p50_s"]["value"] <= document["latency"]["max_s"]
    assert document["burst"]["new_file_safe_s"]["value"] > 0
    assert document["ready"]["warm_s"]["value"] > 0
    assert document["idle_cpu"]["idle_cpu_percent"]["value"] >= 0
    operations = document["persist_operations"]
    assert operations["reasons"] or operations["control_operations_of_one_changed_file"] > 0


@pytest.mark.slow
def test_every_peer_is_a_figure_or_null_with_its_reason(document: dict[str, Any]) -> None:
    compared = [*document["flush"]["runs"], *document["flush"]["first_copies"], document["first_copy"]]
    for each in compared:
        for tool in ("rsync", "rclone", "restic"):
            assert (each[tool] is None) == (tool in each["reasons"])
            assert each[tool] is None or each[tool]["median_s"] > 0
    for run in document["memory"]["runs"]:
        for tool in ("rsync", "rclone", "restic"):
            assert (run[f"{tool}_peak_rss_mb"] is None) == (tool in run["reasons"])


@pytest.mark.slow
def test_the_table_has_a_row_for_every_benchmark(document: dict[str, Any]) -> None:
    text = "\n".join(markdown(document))
    for words in (
        "| 40 | 30 |",
        "first copy of 20 files",
        "one file of",
        "p99",
        "50 files at once",
        "memory at 40 files",
        "idle CPU",
        "cold start",
        "calls on Persist",
    ):
        assert words in text
    assert "≤ 1 s: met / ≤ 3 s: met" in text
    assert "failed: no room" in "\n".join(markdown({**document, "burst": {"error": "no room"}}))


@pytest.mark.slow
def test_the_plot_has_a_point_for_every_size(document: dict[str, Any]) -> None:
    assert [files for files, _ in points(document, "ours", 3)] == [20, 40]
    assert points(document, "ours", 10) == []


@pytest.mark.parametrize("peer", find_peers().copies, ids=lambda peer: peer.name)
def test_an_installed_peer_copies_a_tree(peer: Peer, tmp_path: Path) -> None:
    if peer.version is None:
        pytest.skip(f"{peer.words[0]} is not installed")
    tree = make_tree(tmp_path / "home", 20, 10)
    series = Series(peer.durable)
    peer.ready(tmp_path / "copy")
    peer.measure_tree(series, tree, tmp_path / "copy")
    assert series.reason is None
    assert series.seconds[0] > 0
    assert series.peak_rss_bytes[0] > 1 << 20


def test_a_peer_that_is_not_installed_is_null_and_nothing_fails(tmp_path: Path) -> None:
    with scratch_below(tmp_path) as scratch:
        found, code = measure(["flush"], ONE_FLUSH, scratch, find_peers(path="/nonexistent"), QUIET)
    assert code == 0
    for run in found["flush"]["runs"]:
        assert (run["rsync"], run["ours_to_rsync_ratio"]) == (None, None)
        assert run["reasons"]["rsync"] == "rsync is not installed"
        assert run["ours"]["median_s"] > 0


def test_a_peer_that_does_not_do_its_work_has_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """rsync copies nothing and claims success; rclone fails."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, code in (("rsync", 0), ("rclone", 7)):
        program = programs / name
        program.write_text(
            f'#!/bin/sh\ncase "$1" in *version) echo {name} 1.0; exit 0;; esac\necho no >&2\nexit {code}\n'
        )
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    with scratch_below(tmp_path) as scratch:
        figure = measure_flush(scratch, without_restic(), ONE_FLUSH, QUIET)
    (run,) = figure["runs"]
    assert (run["rsync"], run["rclone"]) == (None, None)
    assert run["reasons"]["rsync"].startswith("rsync did not copy everything: ")
    assert run["reasons"]["rclone"] == "rclone ended with 7: no"


class _Forgetful(Ours):
    """Loses one file of each flush."""

    def flush(self) -> None:
        super().flush()
        newest = max(self.mirror.rglob("*.txt"), key=lambda path: path.stat().st_mtime_ns)
        newest.write_bytes(b"")


def test_an_incomplete_copy_of_ours_is_an_error_and_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(BENCHMARKS, "flush", partial(measure_flush, ours=_Forgetful))
    with scratch_below(tmp_path) as scratch:
        found, code = measure(["flush"], ONE_FLUSH, scratch, find_peers(path="/nonexistent"), QUIET)
    assert code == 1
    assert list(found["flush"]) == ["error"]
    assert " is not what " in capsys.readouterr().err


@pytest.mark.parametrize("harm", ["lost", "another time", "other bytes"])
def test_a_harmed_copy_is_not_complete(tmp_path: Path, harm: str) -> None:
    tree = make_tree(tmp_path / "home", 30, 10)
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", tree.root, copy], check=True)
    check_copy(tree, copy)
    victim = copy / tree.name(17)
    status = victim.stat()
    if harm == "lost":
        victim.unlink()
    elif harm == "another time":
        os.utime(victim, ns=(1, 1))
    else:
        victim.write_bytes(b"x" * status.st_size)
        os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(IncompleteCopyError, match="result17"):
        check_copy(tree, copy)


def test_a_home_made_of_donated_trees_has_as_many_files(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    for files in (30, 20):
        given = scratch.directory("given")
        make_tree(given, files, 10)
        scratch.donate(given, files)
    home = scratch.home(45)
    assert sum(1 for path in home.rglob("*") if path.is_file()) == 45
    assert {path.name for path in home.iterdir()} >= {"part45", "project0"}


def test_calls_are_counted_by_what_they_touch() -> None:
    lines = [
        b'7 100.5 openat(3</s/persist>, "x", O_RDONLY) = 5</s/persist/x>\n',
        b'7 101.5 read(5</s/home/y>, ""..., 4) = 4\n',
        b"7 102.5 fsync(5</s/persist/x> <unfinished ...>\n",
        b"7 102.6 <... fsync resumed>) = 0\n",
        b'7 103.5 pwrite64(9</s/persist/.jupyterhub-sidecar/default/lease>, ""..., 9, 0) = 9\n',
        b"7 104.5 +++ exited with 0 +++\n",
    ]
    expected = [(100.5, "openat", False), (102.5, "fsync", False), (103.5, "pwrite64", True)]
    assert calls_below(Path("/s/persist"), lines) == expected


def test_a_figure_says_whether_it_meets_its_target() -> None:
    assert goal(0.049, 0.05) == {"value": 0.049, "target": 0.05, "met": True}
    assert goal(0.051, 0.05)["met"] is False
    assert "met" not in goal(0.051, None)
    figure = beside({"ours": Series(True, [3.0, 1.0, 2.0]), "rsync": Series(False, reason="gone")}, 2.5)
    assert figure["ours"]["median_s"] == 2.0
    assert (figure["ours"]["met"], figure["rsync"], figure["reasons"]) == (True, None, {"rsync": "gone"})


def test_a_name_that_means_nothing_is_a_usage_error_and_prints_no_json() -> None:
    command = [sys.executable, "-m", "tests.bench", "everything"]
    result = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert "persist_operations" in result.stderr


def test_progress_is_shown_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    Progress(terminal).say("flush")
    assert terminal.getvalue() == "flush\n"
