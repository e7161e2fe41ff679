"""``storage-prepare``: the user's directory is made or it is said why not, and nothing of anybody's is touched."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sidecar.fsops import FileSystem
from sidecar.prepare import Prepared, prepared, put_tools, report
from tests.faults.faulty import Fault, FaultyFileSystem
from tests.processes import CHECKOUT, tree, wait_until

NAMES = {"Backup", ".jupyterhub-sidecar"}

WAITING = """
import os
from sidecar import fsops
fsops.READ_FLAGS = os.O_RDONLY  # whoever opens a FIFO waits for a writer
from sidecar.prepare import main
main()
"""


def _prepared(claim: Path, user: str = "alice", fs: FileSystem | None = None) -> Prepared:
    return prepared(fs or FileSystem(), str(claim), user, require_mount=False)


def _run(claim: Path, user: str, **settings: str) -> tuple[dict[str, Any], bytes]:
    """What the process says on its output, and the termination message; it has exited 0."""
    log = claim.parent / "termination-log"
    log.write_text("of a container before" * 300)
    result = subprocess.run(
        [sys.executable, "-m", "sidecar.prepare", "--no-require-mount"],
        env={
            "PYTHONPATH": str(CHECKOUT),
            "PREPARE_PERSIST": str(claim),
            "PREPARE_USER": user,
            "SIDECAR_TERMINATION_LOG": str(log),
            **settings,
        },
        capture_output=True,
        check=True,
    )
    document: dict[str, Any] = json.loads(result.stdout)
    return document, log.read_bytes()


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    claim = tmp_path / "claim"
    claim.mkdir()
    return claim


def test_a_new_user_has_a_directory_of_their_own_with_the_two_that_the_notebook_mounts(claim: Path) -> None:
    assert _prepared(claim) == Prepared("ok", is_new=True)
    assert set(os.listdir(claim / "alice")) == NAMES
    for path in (claim / "alice", *(claim / "alice" / name for name in NAMES)):
        assert stat.S_IMODE(path.stat().st_mode) & 0o777 == 0o700


def test_a_user_who_comes_back_finds_everything_as_it_was(claim: Path) -> None:
    _prepared(claim)
    (claim / "alice" / "Backup" / "work.ipynb").write_text("work")
    (claim / "alice" / "notes").write_text("notes")
    (claim / "alice").chmod(0o750)
    before = tree(claim)
    assert _prepared(claim) == Prepared("ok", is_new=False)
    assert tree(claim) == before


@pytest.mark.parametrize("user", ["..", ".", "", "a/b", "/etc", "a\0b", "x" * 256, "../bob"])
def test_what_is_not_one_component_is_refused_and_nothing_is_made(claim: Path, user: str) -> None:
    assert _prepared(claim, user).state == "unknown"
    assert tree(claim.parent) == {"claim": tree(claim.parent)["claim"]}


def test_names_that_look_dangerous_and_are_plain_components_are_used_as_they_are(claim: Path) -> None:
    for user in ("-rf", "a\nb", "ü", "{username}", "x" * 255):
        assert _prepared(claim, user).state == "ok"
        assert (claim / user / "Backup").is_dir()


def _link_to_another_user(claim: Path) -> None:
    (claim / "bob").mkdir()
    (claim / "alice").symlink_to("bob")


def _link_to_nowhere(claim: Path) -> None:
    (claim / "alice").symlink_to("/nowhere")


def _file(claim: Path) -> None:
    (claim / "alice").write_text("a file")


def _fifo(claim: Path) -> None:
    os.mkfifo(claim / "alice")


def _backup_is_a_link(claim: Path) -> None:
    (claim / "alice").mkdir()
    (claim / "alice" / "Backup").symlink_to("/etc")


def _ours_is_a_file(claim: Path) -> None:
    (claim / "alice").mkdir()
    (claim / "alice" / ".jupyterhub-sidecar").write_text("a file")


def _of_somebody_else(claim: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory to somebody else")
    (claim / "alice").mkdir()
    (claim / "alice").chmod(0o777)
    os.chown(claim / "alice", 2000, 2000)


@pytest.mark.parametrize(
    "plant",
    [_link_to_another_user, _link_to_nowhere, _file, _fifo, _backup_is_a_link, _ours_is_a_file, _of_somebody_else],
    ids=lambda plant: plant.__name__.strip("_"),
)
def test_what_somebody_planted_is_named_and_left_as_it_is(claim: Path, plant: Callable[[Path], None]) -> None:
    plant(claim)
    before = tree(claim)
    told = _prepared(claim)
    assert told.state == "foreign"
    assert "alice" in told.detail
    after = tree(claim)
    assert {path: after[path] for path in before} == before
    assert set(after) - set(before) <= {"alice/Backup"}, "of the two, the one that could be made"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_directory_that_the_kubelet_made_as_root_is_used_where_its_group_may_write(claim: Path) -> None:
    (claim / "alice").mkdir()
    os.chown(claim / "alice", 0, 100)
    (claim / "alice").chmod(0o2775)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.chdir(claim)  # the test's own directories do not let others in by their path
            os.setgroups([])
            os.setgid(100)
            os.setuid(1000)
            code = prepared(FileSystem(), ".", "alice", require_mount=False) != Prepared("ok")
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (claim / "alice" / "Backup").stat().st_uid == 1000


class _Squashing(FileSystem):
    """A server for which everybody is one and the same user."""

    def fstat(self, fd: int) -> os.stat_result:
        return self._squashed(super().fstat(fd))

    def lstat(self, name: bytes, *, at: int) -> os.stat_result:
        return self._squashed(super().lstat(name, at=at))

    @staticmethod
    def _squashed(status: os.stat_result) -> os.stat_result:
        return os.stat_result((*status[:4], 65534, 65534, *status[6:]))


def test_a_server_that_squashes_everybody_takes_nobodys_directory_for_somebody_elses(claim: Path) -> None:
    (claim / "alice").mkdir()
    assert _prepared(claim, fs=_Squashing()) == Prepared("ok")
    assert os.listdir(claim) == ["alice"], "nothing is left of the question"


class _Refusing(FileSystem):
    """A claim whose server says ``number`` to whoever wants to make something."""

    def __init__(self, number: int) -> None:
        self._number = number

    def mkdir(self, name: bytes, mode: int, *, at: int) -> None:  # noqa: ARG002  the call's signature
        raise OSError(self._number, os.strerror(self._number))


REFUSALS = [
    (errno.EROFS, "read-only", "read-only"),
    (errno.ENOSPC, "full", "full"),
    (errno.EDQUOT, "full", "quota"),
    (errno.ESTALE, "stale", "stale"),
    (errno.EACCES, "missing", "2775"),
    (errno.EPERM, "missing", "2775"),
]


@pytest.mark.parametrize(("number", "state", "word"), REFUSALS)
def test_a_claim_in_which_nothing_can_be_made_is_a_state_with_a_cause(
    claim: Path, number: int, state: str, word: str
) -> None:
    told = _prepared(claim, fs=_Refusing(number))
    assert told.state == state
    assert word in told.detail


@pytest.mark.parametrize("number", [number for number, _, _ in REFUSALS])
def test_a_claim_in_which_nothing_can_be_made_is_good_enough_where_everything_stands(claim: Path, number: int) -> None:
    _prepared(claim)
    assert _prepared(claim, fs=_Refusing(number)).state == "ok"


def test_two_servers_of_one_user_that_start_at_once_both_find_it(claim: Path) -> None:
    class Beaten(FileSystem):
        """Somebody else is first with each directory."""

        def mkdir(self, name: bytes, mode: int, *, at: int) -> None:
            super().mkdir(name, mode, at=at)
            super().mkdir(name, mode, at=at)

    assert _prepared(claim, fs=Beaten()) == Prepared("ok", is_new=False)


def test_a_claim_that_is_not_mounted_is_missing_and_nothing_is_made_where_it_should_be(claim: Path) -> None:
    assert prepared(FileSystem(), str(claim), "alice").state == "missing"
    assert os.listdir(claim) == []
    assert _prepared(claim / "not there").state == "missing"


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOSPC, errno.EACCES])
def test_whichever_call_fails_ok_is_never_said_of_what_is_not_there(tmp_path: Path, number: int) -> None:
    at = 1
    while True:
        claim = tmp_path / f"claim{at}"
        claim.mkdir()
        fs = FaultyFileSystem(Fault(at=at, number=number))
        told = _prepared(claim, fs=fs)
        fs.bury()
        if told.state == "ok":
            assert set(os.listdir(claim / "alice")) == NAMES
        else:
            assert told.detail
        if not fs.happened:
            break
        at += 1
    assert at > 10, "every call had its turn"


def test_the_tools_are_single_files_that_everybody_can_run(tmp_path: Path) -> None:
    source, target = tmp_path / "from", tmp_path / "to"
    source.mkdir()
    target.mkdir()
    for name in ("gpu-check", "persist"):
        (source / name).write_bytes(name.encode() * 50_000)
    (target / "gpu-check").write_text("of a start before")
    (target / "persist.new").write_text("of one that was killed")
    umask = os.umask(0o077)
    try:
        assert put_tools(FileSystem(), str(source), str(target)) == (["gpu-check", "persist"], "")
    finally:
        os.umask(umask)
    assert sorted(os.listdir(target)) == ["gpu-check", "persist"]
    for name in ("gpu-check", "persist"):
        assert (target / name).read_bytes() == name.encode() * 50_000
        assert stat.S_IMODE((target / name).stat().st_mode) == 0o755


def test_tools_without_room_for_them_are_told_and_no_half_of_one_is_left_under_its_name(tmp_path: Path) -> None:
    source, target = tmp_path / "from", tmp_path / "to"
    source.mkdir()
    target.mkdir()
    for name in ("a", "b"):
        (source / name).write_bytes(bytes(100))
    fs = FaultyFileSystem(Fault(number=errno.ENOSPC))
    put_tools(fs, str(source), str(target))
    fs.bury()
    writes = [number for number, call in enumerate(fs.calls, 1) if call == "write"]
    for path in target.iterdir():
        path.unlink()
    fs = FaultyFileSystem(Fault(at=writes[1], number=errno.ENOSPC))
    names, detail = put_tools(fs, str(source), str(target))
    fs.bury()
    assert names == ["a"]
    assert os.strerror(errno.ENOSPC) in detail
    assert not (target / "b").exists()


def test_the_process_leaves_its_report_in_place_and_exits_0(claim: Path) -> None:
    tools = claim.parent / "tools"
    tools.mkdir()
    built = claim.parent / "built"
    built.mkdir()
    (built / "gpu-check").write_text("#!/bin/sh\n")
    document, message = _run(claim, "alice", PREPARE_TOOLS=str(tools), PREPARE_TOOLS_FROM=str(built))
    assert json.loads(message) == document
    assert document == {
        "schema": 1,
        "persist": "ok",
        "detail": "",
        "directory": "alice",
        "new": True,
        "tools": ["gpu-check"],
        "tools_detail": "",
    }
    assert os.access(tools / "gpu-check", os.X_OK)


@pytest.mark.parametrize(
    ("user", "settings"),
    [
        ("..", {}),
        ("", {}),
        ("\U0001f600" * 60, {"PREPARE_PERSIST": "/nowhere/" + "\U0001f600" * 3000}),
        ("\u202e\x1b[31m", {"PREPARE_PERSIST": "/etc/passwd", "PREPARE_TOOLS": "/nowhere\n" * 500}),
    ],
    ids=["dots", "nothing", "long", "hostile"],
)
def test_whatever_it_is_given_it_exits_0_with_a_message_of_less_than_4_kib(
    claim: Path, user: str, settings: dict[str, str]
) -> None:
    document, message = _run(claim, user, **settings)
    assert json.loads(message) == document
    assert document["persist"] in ("unknown", "missing")
    assert len(message) < 4096
    assert not {"\x1b", "\n", "\u202e"} & set("".join(map(str, document.values())))


def test_without_arguments_it_says_so_and_exits_0(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "sidecar.prepare"], env={"PYTHONPATH": str(CHECKOUT)}, capture_output=True, check=True
    )
    assert json.loads(result.stdout)["persist"] == "unknown"


def _opened(fifo: Path, writers: list[int]) -> bool:
    with suppress(OSError):  # there is no reader yet
        writers.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    return bool(writers)


def test_a_pod_that_is_deleted_meanwhile_has_its_container_end_at_once_with_0(claim: Path) -> None:
    waits = claim.parent / "waits"
    waits.mkdir()
    os.mkfifo(waits / "tool")
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING],
        env={
            "PYTHONPATH": str(CHECKOUT),
            "PREPARE_PERSIST": str(claim),
            "PREPARE_USER": "alice",
            "PREPARE_TOOLS": str(claim.parent),
            "PREPARE_TOOLS_FROM": str(waits),
        },
        stdout=subprocess.PIPE,
    )
    writers: list[int] = []
    try:
        wait_until(lambda: _opened(waits / "tool", writers), "it reads what never comes")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
        os.close(writers[0])
    assert process.returncode == 0
    assert json.loads(output)["persist"] == "unknown"


def test_a_report_fits_whatever_is_in_it() -> None:
    message = report(Prepared("foreign", "\U0001f600" * 9000), "\x00" * 255, ["\udcff" * 255] * 100, "\n" * 9000)
    assert len(message) < 4096
    assert json.loads(message)["persist"] == "foreign"
