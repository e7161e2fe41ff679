"""What is left out for what it is, row by row, and in which order the rest is saved."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest

from sidecar import select


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
def test_special_files_are_left_out(kind: int, kept: bool) -> None:
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
    ("path", "size", "may_be"),
    [
        (b"a.out.1234", 1 << 20, True),  # kernel.core_pattern can be anything
        (b"d/core", 100, True),
        (b"d/core.123", 100, True),
        (b"core.py", 100, False),
        (b"core.txt", 100, False),
        (b"score", 100, False),
        (b"small", 64 << 10, False),
    ],
)
def test_every_file_large_enough_to_be_a_core_dump_is_looked_into(path: bytes, size: int, may_be: bool) -> None:
    assert select.may_be_core(path, size) is may_be


@pytest.mark.parametrize(
    ("config", "is_one"),
    [
        (b"home = /usr/bin\nversion = 3.11.7\n", True),
        (b"version = 3.11.7\r\nHOME=/usr/bin\r\n", True),
        (b"", False),
        (b"homepage = https://example.org\n", False),
        (b"my home\n", False),
        (b"# home is where the = is\n", False),
    ],
)
def test_a_virtual_environment_says_where_its_base_is(config: bytes, is_one: bool) -> None:
    assert select.is_environment(config) is is_one


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
        (b"README", select.Class.TEXT),
        (b"project/LICENSE", select.Class.TEXT),
        (b"project/Makefile", select.Class.TEXT),
        (b"project/Dockerfile", select.Class.TEXT),
        (b"project/Snakefile", select.Class.TEXT),
        (b"project/readme.bin", select.Class.OTHER),
        (b"py", select.Class.OTHER),
        (b"project.py/data", select.Class.OTHER),
        (b"project/.env", select.Class.DOTFILE),
        (b"project/.github/workflows/ci.yml", select.Class.TEXT),
        (b".config/app/settings.json", select.Class.DOTFILE),
        (b"not.git/a.py", select.Class.TEXT),
        (b".github/x", select.Class.DOTFILE),
        (b"a/.git/objects/pack/pack-1.pack", select.Class.GIT_OBJECT),
        (b"a/.git/modules/b/objects/ab/cdef", select.Class.GIT_OBJECT),
        (b"a/.git/modules/b/refs/heads/main", select.Class.GIT),
        (b"a/.git/refs/heads/objects/x", select.Class.GIT),
        (b"a/.git/index", select.Class.GIT),
    ],
)
def test_the_class_of_a_path(path: bytes, class_: select.Class) -> None:
    assert select.class_of(path, 100) is class_


def test_a_large_pack_stays_with_the_objects_and_other_large_files_come_last() -> None:
    assert select.class_of(b"a/.git/objects/pack/pack-1.pack", 10**9) is select.Class.GIT_OBJECT
    assert select.class_of(b"a.csv", 10**9) is select.Class.LARGE


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
