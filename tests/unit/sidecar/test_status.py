"""The status is an answer, whatever there is to tell."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from sidecar.fsops import FileSystem
from sidecar.server import answering, ask
from sidecar.status import Status, read_report, summary


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gpu.json"


def _report(more: str = '"gpus": []') -> str:
    return f'{{"schema": 1, "verdict": "pass", "summary": "GPU check: passed", {more}}}'


def _nested(levels: int) -> str:
    return _report('"a": ' + '{"a": ' * (levels - 1) + "1" + "}" * (levels - 1))


@pytest.mark.parametrize("text", [_report('"gpus": [{"uuid": "GPU-1"}]'), _nested(15)])
def test_a_report_is_shown_as_it_is(path: Path, text: str) -> None:
    path.write_text(text)
    report = read_report(FileSystem(), str(path))
    assert report == json.loads(text)
    assert "GPU        pass: GPU check: passed" in summary(Status().document(0.0, report))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("schema", 2),
        ("schema", None),
        ("verdict", "splendid"),
        ("verdict", ["pass"]),
        ("verdict", None),
        ("summary", {}),
        ("summary", None),
    ],
)
def test_what_has_no_verdict_that_is_known_is_no_report(path: Path, name: str, value: object) -> None:
    path.write_text(json.dumps({**json.loads(_report()), name: value}))
    assert read_report(FileSystem(), str(path)) is None


def test_a_hostile_summary_is_one_line_for_people(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(_report()), "summary": "a\x1b[2J\nGPU        pass\u202e" + "x" * 9000}))
    lines = summary(Status().document(0.0, read_report(FileSystem(), str(path)))).splitlines()
    (line,) = [line for line in lines if line.startswith("GPU")]
    assert line.startswith(r"GPU        pass: a\x1b[2J\nGPU        pass\u202exxx")
    assert len(line) < 600


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1",
        "{",
        "[" * 60_000,
        '{"a":' * 10_000,
        _nested(18),
        _nested(900),
        _report('"a": "' + "x" * 70_000 + '"'),
    ],
    ids=["empty", "list", "number", "torn", "deep", "deep and torn", "a little deep", "rather deep", "large"],
)
def test_what_is_no_report_is_none(path: Path, text: str) -> None:
    path.write_text(text)
    assert read_report(FileSystem(), str(path)) is None


def test_a_link_and_a_pipe_are_no_reports(path: Path) -> None:
    path.with_name("real").write_text(_report())
    path.symlink_to("real")
    assert read_report(FileSystem(), str(path)) is None
    path.unlink()
    os.mkfifo(path)
    assert read_report(FileSystem(), str(path)) is None
    assert read_report(FileSystem(), str(path.with_name("nowhere"))) is None


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its answer is the status of a sidecar that could not save a mass of files with long names."""
    failed = {b"%05d" % number + b"\xff" * 4000: "does not fit" for number in range(5000)}

    def answer(request: Mapping[str, object], is_gone: object) -> Mapping[str, object]:
        if request != {"op": "status"}:
            raise ValueError("op is status")
        return Status(state="watching", failed=failed).document(0.0)

    path = str(tmp_path_factory.mktemp("s") / "s")
    with answering(path, answer):
        yield path


def test_a_mass_of_failures_is_told_and_not_that_nothing_runs(server: str) -> None:
    document = ask(server, {"op": "status"}, 20.0)
    assert document is not None
    assert (document["state"], document["failed_count"], len(document["failed"])) == ("watching", 5000, 1000)
    assert "5000 files in all" in summary(document)


@pytest.mark.parametrize("request_line", [b"[" * 60_000, b"", b"[]", b'{"op": "dance"}', b"\xff"])
def test_a_request_that_means_nothing_is_told_so(server: str, request_line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(server)
        connection.sendall(request_line + b"\n")
        with connection.makefile("rb") as reply:
            assert "error" in json.loads(reply.readline())
