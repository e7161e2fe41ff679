"""What matters, and in which order: keep, or skip with a reason. Pure, but for two looks into a directory.

The defaults are FACTS of the field: caches and what can be made again stay out, notebooks come first.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from enum import IntEnum

from sidecar.entry import name_of


class Class(IntEnum):
    """The order in which files are saved when time is short: DESIGN, "What matters, and in which order"."""

    NOTEBOOK = 0
    TEXT = 1
    GIT_OBJECT = 2
    GIT = 3
    DOTFILE = 4
    OTHER = 5
    LARGE = 6


LARGE_BYTES = 100 * 10**6

_TEXT_SUFFIXES = frozenset(
    b".py .r .rmd .qmd .jl .md .rst .txt .tex .bib .c .h .cc .cpp .hpp .cu .cuh .f .f90 .rs .go .java .scala .js .ts "
    b".jsx .tsx .html .css .sh .bash .sql .yaml .yml .toml .ini .cfg .json .csv .tsv .xml .svg .m .lua .pl .rb .cmake "
    b".dockerfile .make".split()
)

# Recreated by the programs that own them; a name at any depth.
_CACHE_DIRECTORIES = frozenset(
    b".cache .npm .nv .triton __pycache__ .pytest_cache .mypy_cache .ipynb_checkpoints node_modules".split()
)
# The same, but only at this place below the home.
_CACHE_PATHS = frozenset(b".conda/pkgs .local/lib .local/share/Trash .local/share/jupyter/runtime".split())

_CACHEDIR_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"  # bford.info/cachedir
_ELF_CORE_TYPE = 4  # e_type ET_CORE, elf(5)

# What venv and virtualenv put into an environment. With anything else beside them it is somebody's project.
_ENVIRONMENT_NAMES = frozenset(b"pyvenv.cfg bin Scripts lib lib64 Lib include share etc .gitignore .lock".split())

_INSTALLED = re.compile(rb"(?:(.*)/)?(?:lib|lib64)/(?:python|pypy)[0-9.]+t?", re.DOTALL)

SAVE_LINK = b"Save"

STUMP_PREFIX = b".~jupyterhub-sidecar-restoring-"
"""Where a file system cannot make unnamed files, one being restored has a name with this beginning."""


def skip_name(path: bytes, mounts: frozenset[bytes]) -> str | None:
    """Why ``path`` is left out by its name alone, or None. Costs no system call: events are filtered with it."""
    if path in mounts:
        return "another storage tier"
    if path == SAVE_LINK:
        return "the link to Persist"
    name = name_of(path)
    if name in _CACHE_DIRECTORIES or path in _CACHE_PATHS:
        return "a cache: it can be made again"
    if name.endswith(b".pyc"):
        return "compiled Python: it can be made again"
    if name.startswith(b".nfs"):
        return "an NFS leftover of a deleted file"
    if name.startswith(STUMP_PREFIX):
        return "a file that was being restored"
    return None


def skip_status(status: os.stat_result, max_file_bytes: int) -> str | None:
    """Why what ``status`` describes is left out, or None."""
    mode = status.st_mode
    if stat.S_ISSOCK(mode):
        return "a socket"
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
        return "a device"
    if stat.S_ISREG(mode) and status.st_size > max_file_bytes:
        return f"larger than the cap of {max_file_bytes} bytes"
    return None


def may_be_core(path: bytes) -> bool:
    """Whether the name is one that kernels give core dumps; ``is_core`` decides."""
    name = name_of(path)
    return name == b"core" or name.startswith(b"core.")


def is_core(head: bytes) -> bool:
    """Whether a file that begins with ``head`` (at least 18 bytes) is an ELF core dump."""
    if len(head) < 18 or not head.startswith(b"\x7fELF"):
        return False
    order = "little" if head[5] == 1 else "big"
    return int.from_bytes(head[16:18], order) == _ELF_CORE_TYPE  # type: ignore[arg-type]  # one of two literals


def skip_directory(names: frozenset[bytes], read_head: Callable[[bytes], bytes]) -> str | None:
    """Why the directory that contains ``names`` is left out for what is in it, or None.

    ``read_head`` gives the first bytes of a file in it, or none where that cannot be read.
    """
    if b"CACHEDIR.TAG" in names and read_head(b"CACHEDIR.TAG").startswith(_CACHEDIR_SIGNATURE):
        return "marked as a cache by its CACHEDIR.TAG"
    if b"pyvenv.cfg" in names and names <= _ENVIRONMENT_NAMES:
        return "a virtual environment: it can be made again"
    return None


def environment_of(path: bytes) -> bytes | None:
    """The directory whose installed packages ``path`` holds, if that is a virtual environment; None for other paths.

    ``python -m venv .`` puts pyvenv.cfg beside the user's own work. That must be saved all the same, a ``lib`` or a
    ``bin`` of their own included; only what an installer filled, ``lib/python3.11``, can be made again.
    """
    match = _INSTALLED.fullmatch(path)
    return None if match is None else match[1] or b""


INSTALLED = "the packages of a virtual environment: they can be made again"


def class_of(path: bytes, size: int) -> Class:
    """How much ``path`` matters when not everything can be saved in time."""
    name = name_of(path)
    suffix = os.path.splitext(name)[1].lower()
    parts = path.split(b"/")
    if b".git" in parts[:-1]:
        # Objects before the refs that name them: a mirror cut short is then still a valid repository.
        below = parts[parts.index(b".git") + 1]
        return Class.GIT_OBJECT if below == b"objects" else Class.GIT
    if size > LARGE_BYTES:
        return Class.LARGE
    if suffix == b".ipynb":
        return Class.NOTEBOOK
    if suffix in _TEXT_SUFFIXES:
        return Class.TEXT
    if parts[0].startswith(b"."):
        return Class.DOTFILE
    return Class.OTHER
