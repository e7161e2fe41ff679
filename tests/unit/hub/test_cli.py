from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hub.cli import main
from hub.policy_file import SHIPPED
from tests.unit.hub.policies import SMALL


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def test_a_granted_decision_is_printed_as_json() -> None:
    result = call("decide", "--user", "ada", "--group", "cpsHPCAccess", "--options", '{"profile": "a100-1"}')
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "profile": "a100-1",
        "image": "quay.io/jupyter/pytorch-notebook:cuda12-2025-11-06",
        "cpus": 8,
        "memory": "32G",
        "gpus": 1,
    }


def test_a_refusal_exits_3_with_a_one_line_reason() -> None:
    running = '{"x": {"cpus": 16, "memory": "1G", "gpus": 0}}'
    result = call("decide", "--user", "ada", "--group", "cpsHPCAccess", "--options", "{}", "--running", running)
    assert result.exit_code == 3
    reason = json.loads(result.stdout)["reason"]
    assert reason == (
        "ada would have 18 cores, and 16 are allowed together with 1 other server; "
        "left for this one: 2 GPUs, 0 cores, 127 GB memory"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("--options", "{"),
        ("--options", "[" * 100_000),
        ("--options", "NaN"),
        ("--options", "[-Infinity]"),
        ("--options", "9" * 5000),
        ("--options", ""),
        ("--options", "\udcff"),
        ("--running", '{"a": {"gpus": 1e999}}'),
        ("--running", '{"a": {"cores": 1}}'),
        ("--running", '{"\\ud800\\n": []}'),
        ("--running", "nope"),
        ("--running", "[]"),
        ("--running", '{"a": {"cpus": -1}}'),
        ("--running", '{"a": 1}'),
        ("--policy", "/nowhere"),
    ],
)
def test_what_cannot_be_read_exits_2_with_one_line(arguments: tuple[str, str]) -> None:
    result = call("decide", "--user", "ada", *arguments)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.strip().isprintable()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--user", "a\nb\u202e\udcff", "--options", '{"profile": "\\ud800\\u202e\\n"}'),
        ("--user", "", "--group", "\udcff", "--options", '{"\\u0000": [[]]}'),
        ("--user", "ada", "--options", '{"profile": 1e999, "x": -0.0}'),
        ("--user", "ada", "--running", '{"a": {"cpus": 999999999999999, "memory": "900000T", "gpus": 9}}'),
        ("--user", "ada", "--json", "--group", "cpsHPCAccess", "--options", '{"profile": "standard"}'),
    ],
)
def test_whatever_is_asked_is_answered_with_one_line_of_json(arguments: tuple[str, ...]) -> None:
    result = call("decide", *arguments)
    assert result.exit_code == 3
    assert len(result.stdout.splitlines()) == 1
    assert json.loads(result.stdout)["reason"].isprintable()


def test_a_server_of_nothing_counts_as_nothing() -> None:
    result = call("decide", "--user", "ada", "--running", '{"a": {}, "b": {"cpus": 0}}')
    assert result.exit_code == 0


def test_profiles_are_a_table_or_a_document() -> None:
    table = call("profiles")
    assert table.exit_code == 0
    header, row, note = table.stdout.splitlines()
    assert header.split() == ["profile", "name", "cores", "memory", "GPUs", "image"]
    assert row.split("  ")[0] == "standard (default)"
    assert "💻 Standard Notebook Environment" in row
    assert note == "For GPU access, please contact your administrator."
    document = json.loads(call("profiles", "--group", "x", "--group", "cpsHPCAccess", "--json").stdout)
    assert [profile["slug"] for profile in document["profiles"]] == ["cpu-basic", "a100-1", "a100-2", "custom"]


def test_policy_check_names_every_error_and_exits_2(tmp_path: Path) -> None:
    assert call("policy", "check", SHIPPED).exit_code == 0
    broken = tmp_path / "broken.yaml"
    broken.write_text("everyone: {profiles: [x]}\nprofiles: {y: {display_name: y}}\nzzz: 1\n")
    result = call("policy", "check", str(broken))
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert [line.split(": ", 1)[1] for line in lines] == [
        "line 1: everyone.profiles.0: there is no profile 'x' under profiles",
        "line 1: everyone.limits: is missing",
        "line 2: profiles.y: image is missing; cpus is missing; memory is missing; gpus is missing",
        "line 3: zzz: is not a key of the policy",
    ]


def test_policy_schema_is_json() -> None:
    assert json.loads(call("policy", "schema").stdout)["title"] == "Policy"


def test_policy_check_tells_what_is_probably_a_mistake_and_exits_0(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(SMALL + '  two: {display_name: Two, image: "a:1", cpus: 1, memory: 1G, gpus: 0}\n')
    result = call("policy", "check", str(file))
    assert result.exit_code == 0
    assert result.stderr == f"{file}: line 5: profiles.two: is offered to nobody (a warning)\n"
    document = json.loads(call("policy", "check", "--json", str(file)).stdout)
    assert document == {
        "schema": 1,
        "file": str(file),
        "valid": True,
        "errors": [],
        "warnings": [{"line": 5, "key": "profiles.two", "message": "is offered to nobody"}],
    }


def test_policy_check_writes_errors_as_a_document_too(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(f"{SMALL}colour: red\n")
    result = call("policy", "check", "--json", str(file))
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    assert (document["valid"], document["errors"]) == (
        False,
        [{"line": 5, "key": "colour", "message": "is not a key of the policy"}],
    )


def test_tables_and_documents_come_through_where_there_are_no_emoji() -> None:
    environ = os.environ | {"PYTHONIOENCODING": "latin-1"}
    for arguments in (["profiles"], ["profiles", "--json"], ["policy", "schema"]):
        command = [sys.executable, "-c", "from hub.cli import main; main()", *arguments]
        done = subprocess.run(command, env=environ, capture_output=True, check=True)
        assert done.stderr == b""
        assert "💻".encode() not in done.stdout
        if arguments != ["profiles"]:
            json.loads(done.stdout)


def test_the_policy_file_is_given_by_option_or_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(SMALL)
    assert "one (default)" in call("profiles", "--policy", str(file)).stdout
    monkeypatch.setenv("HUB_POLICY", str(file))
    assert "one (default)" in call("profiles").stdout
    assert json.loads(call("decide", "--user", "ada").stdout)["profile"] == "one"
    assert "standard (default)" in call("profiles", "--policy", SHIPPED).stdout


@pytest.mark.parametrize("command", ["up", "decide", "profiles", "policy", ("policy", "check"), ("policy", "schema")])
def test_every_command_lists_its_exit_codes(command: str | tuple[str, ...]) -> None:
    words = (command,) if isinstance(command, str) else command
    assert "Exit codes:" in call(*words, "--help").stdout


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    """What looks like a notebook environment."""
    program = tmp_path / "notebook" / "bin" / "jupyterhub-singleuser"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return tmp_path / "notebook"


def test_up_refuses_a_port_in_use_in_one_line(tmp_path: Path, notebook: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = call("up", "--port", port, "--data", str(tmp_path / "data"), "--notebook", str(notebook))
    assert result.exit_code == 1
    assert result.stderr == (
        f"cannot start: port {port} on 127.0.0.1: Address already in use; choose another with --port (or PORT=…)\n"
    )


@pytest.mark.parametrize("place", ["file/data", "x" * 300, "/".join(["long"] * 300), "/proc/data", "a:b", "a\nb"])
def test_up_refuses_a_data_directory_that_cannot_be_written_in_one_line(
    tmp_path: Path, notebook: Path, place: str
) -> None:
    (tmp_path / "file").write_text("no directory")
    result = call("up", "--data", str(tmp_path / place), "--notebook", str(notebook))
    assert result.exit_code == 1
    assert result.stderr.startswith("cannot start: DATA ")
    assert len(result.stderr.splitlines()) == 1


def test_up_refuses_a_broken_policy_with_every_error_and_what_else_is_wrong(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("everyone: {profiles: [x]}\nprofiles: {y: {display_name: y}}\nzzz: 1\n")
    result = call("up", "--policy", str(broken), "--data", str(tmp_path / "data"), "--notebook", str(tmp_path))
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert sum("broken.yaml: line" in line for line in lines) == 4
    assert "no notebook environment" in lines[-1]


def test_up_refuses_a_port_that_is_none_and_an_empty_directory() -> None:
    assert call("up", "--data", "").exit_code == 2
    assert call("up", "--port", "0").exit_code == 2
    assert call("up", "--port", "70000").exit_code == 2


def run(*arguments: str, redirection: str = "") -> subprocess.CompletedProcess[str]:
    command = f'exec "$@" {redirection}'
    jupyterhub_sidecar = [sys.executable, "-c", "from hub.cli import main; main()"]
    return subprocess.run(
        ["bash", "-c", command, "-", *jupyterhub_sidecar, *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
@pytest.mark.parametrize(
    "arguments", [("decide", "--user", "ada"), ("profiles",), ("profiles", "--json"), ("policy", "schema")]
)
def test_output_that_cannot_be_written_is_one_line(arguments: tuple[str, ...], redirection: str) -> None:
    result = run(*arguments, redirection=redirection)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("cannot go on: ")


@pytest.mark.parametrize(
    "arguments",
    [("\udcff", "--db", "sqlite://"), ("ada", "--db", "\udcff"), ("ada", "--db", ""), ("ada", "--db", "nothing"),
     ("ada", "--db", "nothing://h/x"), ("ada", "--db", "postgresql://h:abc/x"),
     ("ada", "--db", "sqlite://?timeout=x"), ("ada", "--db", "oracle://h/x"), ("ada", "--db", "sqlite:///\udcff")],
)  # fmt: skip
@pytest.mark.parametrize("command", ["show", "release"])
def test_a_database_that_cannot_be_used_is_a_readable_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("identity", command, *arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    assert result.stderr


def test_looking_for_a_name_makes_no_database(tmp_path: Path) -> None:
    path = tmp_path / "none.sqlite"
    result = call("identity", "show", "ada", "--db", f"sqlite:///{path}")
    assert result.exit_code == 2
    assert "there is no database" in result.stderr
    assert not path.exists()
