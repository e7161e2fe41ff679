"""What is left out by default, row by row, and in which order the rest is saved."""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar import select
from sidecar.fsops import FileSystem, Tree
from sidecar.scan import Listing, Pruned, Scanner

_MOUNTS = frozenset({b"Persist", b"Shared"})
_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55\n"


@pytest.mark.parametrize(
    "path",
    [
        b".cache",
        b".npm",
        b".nv",
        b".triton",
        b"__pycache__",
        b"project/__pycache__",
        b"a.pyc",
        b"deep/er/a.pyc",
        b".pytest_cache",
        b"project/.mypy_cache",
        b"project/.ipynb_checkpoints",
        b"web/node_modules",
        b".conda/pkgs",
        b".local/lib",
        b".local/share/Trash",
        b".local/share/jupyter/runtime",
        b".nfs0000000012345678",
        b"d/.nfs00000001",
        b"Persist",
        b"Shared",
        b"Save",
    ],
)
def test_left_out_by_name(path: bytes) -> None:
    assert select.skip_name(path, _MOUNTS)


@pytest.mark.parametrize(
    "path",
    [
        b".git",
        b".git/config",
        b".ssh",
        b".ssh/id_ed25519",
        b".jupyter",
        b".bash_history",
        b".config",
        b".local",
        b".local/share",
        b".local/bin",
        b".conda",
        b".conda/environments.txt",
        b"project/.local/lib",
        b"project/Persist",
        b"project/Save",
        b"a.py",
        b"cache",
        b"core",
        b".nfs.md"[1:],
    ],
)
def test_kept(path: bytes) -> None:
    assert select.skip_name(path, _MOUNTS) is None


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        (stat.S_IFREG, True),
        (stat.S_IFDIR, True),
        (stat.S_IFLNK, True),
        (stat.S_IFSOCK, False),
        (stat.S_IFIFO, False),
        (stat.S_IFBLK, False),
        (stat.S_IFCHR, False),
    ],
)
def test_special_files_are_left_out(kind: int, kept: bool, tmp_path: Path) -> None:
    import os

    status = os.stat_result((kind | 0o644, 1, 1, 1, 0, 0, 10, 0, 0, 0))
    assert (select.skip_status(status, 100) is None) is kept


def test_a_file_over_the_cap_is_left_out_with_the_cap_in_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(101))
    assert "100" in (select.skip_status(path.stat(), 100) or "")
    assert select.skip_status(path.stat(), 101) is None


def _elf(kind: int, order: str = "little") -> bytes:
    return (
        b"\x7fELF"
        + bytes([2, 1 if order == "little" else 2, 1])
        + bytes(9)
        + struct.pack("<H" if order == "little" else ">H", kind)
    )


@pytest.mark.parametrize(
    ("head", "is_core"),
    [
        (_elf(4), True),
        (_elf(4, "big"), True),
        (_elf(2), False),  # a program
        (_elf(3), False),  # a library
        (b"a text about apples", False),
        (b"\x7fELF", False),
        (b"", False),
    ],
)
def test_a_core_dump_is_known_by_its_header(head: bytes, is_core: bool) -> None:
    assert select.is_core(head) is is_core


@pytest.mark.parametrize(
    ("path", "may_be"),
    [(b"core", True), (b"d/core.123", True), (b"core.py", True), (b"score", False), (b"hardcore", False)],
)
def test_only_names_of_core_dumps_are_looked_into(path: bytes, may_be: bool) -> None:
    assert select.may_be_core(path) is may_be


def test_the_order_of_importance() -> None:
    in_order = [
        (b"z.ipynb", 10),
        (b"src/z.py", 10),
        (b"repo/.git/objects/ab/cdef", 10),
        (b"repo/.git/refs/heads/main", 10),
        (b".bashrc", 10),
        (b"z.bin", 10),
        (b"a.bin", 100 * 10**6 + 1),
    ]
    classes = [select.class_of(path, size) for path, size in in_order]
    assert classes == sorted(set(classes))


@pytest.mark.parametrize(
    ("path", "class_"),
    [
        (b"A.IPYNB", select.Class.NOTEBOOK),
        (b"big.ipynb", select.Class.NOTEBOOK),
        (b".git/config", select.Class.GIT),
        (b".git/HEAD", select.Class.GIT),
        (b".git", select.Class.DOTFILE),
        (b".config/x/y", select.Class.DOTFILE),
        (b"data.sqlite", select.Class.OTHER),
        (b"README.md", select.Class.TEXT),
    ],
)
def test_the_class_of_a_path(path: bytes, class_: select.Class) -> None:
    assert select.class_of(path, 100) is class_


Read = Callable[[bytes], Listing | Pruned]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(directory: bytes) -> Listing | Pruned:
        with Tree.at(FileSystem(), str(tmp_path)) as home:
            return Scanner(FileSystem(), home, _MOUNTS, 1 << 30).read(directory)

    return read


def test_a_directory_with_a_valid_cachedir_tag_is_left_out(tmp_path: Path, read: Read) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "data").touch()
    (tmp_path / "d" / "CACHEDIR.TAG").write_bytes(b"Signature: something else")
    assert isinstance(read(b"d"), Listing)
    (tmp_path / "d" / "CACHEDIR.TAG").write_bytes(_SIGNATURE)
    assert isinstance(read(b"d"), Pruned)
    (tmp_path / "d" / "CACHEDIR.TAG").unlink()
    (tmp_path / "elsewhere").write_bytes(_SIGNATURE)
    (tmp_path / "d" / "CACHEDIR.TAG").symlink_to("../elsewhere")
    assert isinstance(read(b"d"), Listing), "a link is not followed"


def test_a_home_is_never_left_out_as_a_whole(tmp_path: Path, read: Read) -> None:
    (tmp_path / "CACHEDIR.TAG").write_bytes(_SIGNATURE)
    (tmp_path / "pyvenv.cfg").touch()
    assert isinstance(read(b""), Listing)


def test_a_pure_environment_is_left_out_and_one_inside_a_project_keeps_the_work(tmp_path: Path, read: Read) -> None:
    for environment in ("pure", "project"):
        (tmp_path / environment / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
        (tmp_path / environment / "bin").mkdir()
        (tmp_path / environment / "pyvenv.cfg").touch()
    assert isinstance(read(b"pure"), Pruned)
    (tmp_path / "project" / "work.ipynb").touch()
    (tmp_path / "project" / ".gitignore").touch()
    (tmp_path / "project" / "lib" / "mine.py").touch()
    listing = read(b"project")
    assert isinstance(listing, Listing)
    assert {path for path, _ in listing.kept} >= {b"project/work.ipynb", b"project/.gitignore", b"project/lib"}
    below = read(b"project/lib")
    assert isinstance(below, Listing)
    assert b"project/lib/mine.py" in [path for path, _ in below.kept]
    assert isinstance(read(b"project/lib/python3.11"), Pruned)


def test_a_lib_of_ones_own_is_kept(tmp_path: Path, read: Read) -> None:
    (tmp_path / "lib" / "python3.11").mkdir(parents=True)
    assert isinstance(read(b"lib/python3.11"), Listing)


@pytest.mark.parametrize(
    ("path", "environment"),
    [
        (b"lib/python3.11", b""),
        (b"a/b/lib/python3.13t", b"a/b"),
        (b"a/lib64/pypy3.10", b"a"),
        (b"a/lib/python3.11/site-packages", None),
        (b"a/lib/mine", None),
        (b"a/glib/python3.11", None),
        (b"a\n/lib/python3.9", b"a\n"),
    ],
)
def test_where_an_installer_puts_packages(path: bytes, environment: bytes | None) -> None:
    assert select.environment_of(path) == environment
