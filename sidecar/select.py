"""What matters, and in which order: keep, or skip with a reason. Pure, but for looks into a directory.

The defaults are FACTS of the field: caches and what can be made again stay out, notebooks come first. What a user adds
to them or takes back is in ``ignore``.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Set
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
    b"py pyi pyx pxd pyw r rmd qmd rnw jl md markdown rst org txt tex bib sty cls c h cc cpp cxx hh hpp hxx inl cu "
    b"cuh cl f for f77 f90 f95 f03 f08 s asm rs go java kt scala clj js mjs cjs ts jsx tsx vue svelte html htm css "
    b"scss less sh bash zsh fish ps1 bat sql yaml yml toml ini cfg conf json jsonl csv tsv xml xsl svg m lua pl pm "
    b"php rb swift cs hs ml ex erl lisp el cmake make mk dockerfile ipy smk nf wdl cwl stan jags bugs sas sps do ado "
    b"nb wl proto graphql tf nix gradle ino v sv vhd diff patch dot mmd properties lock".split()
)
_TEXT_NAMES = frozenset(
    b"readme license licence copying notice authors contributors changelog changes news todo install makefile "
    b"gnumakefile dockerfile containerfile snakefile jenkinsfile vagrantfile procfile pipfile gemfile rakefile "
    b"justfile sconstruct sconscript codeowners".split()
)

_CACHE = "a cache: it can be made again"
_COMPILED = "compiled Python: it can be made again"

DEFAULTS: tuple[tuple[bytes, str], ...] = (
    *((name, _CACHE) for name in b".cache .npm .nv .triton __pycache__ .pytest_cache .mypy_cache".split()),
    *((name, _CACHE) for name in b".ipynb_checkpoints node_modules".split()),
    *((path, _CACHE) for path in b"/.conda/pkgs /.local/lib /.local/share/Trash /.local/share/jupyter/runtime".split()),
    (b"*.pyc", _COMPILED),
)
"""What is left out unless the user brings it back: lines of a gitignore, each with its reason."""

STUMP_PREFIX = b".~jupyterhub-sidecar-restoring-"
"""Where a file system cannot make unnamed files, one being restored has a name with this beginning."""

BESIDE_PREFIX = b".~jupyterhub-sidecar-saving-"
"""In the mirror, what is being saved beside where it is to stand has a name with this beginning."""

SAVE_LINK = b"Save"

TIER = "another storage tier"
LINK_TO_PERSIST = "the link to Persist"
NOT_OURS: tuple[tuple[bytes, str], ...] = (
    (b".nfs", "an NFS leftover of a deleted file"),
    (STUMP_PREFIX, "a file that was being restored"),
    (BESIDE_PREFIX, "a name that is kept for files that are being saved"),
)
"""Beginnings of names that are left out whatever the user says, each with its reason."""

_CORE_BYTES = 64 << 10
"""A core dump is larger; what is smaller is somebody's example of one, unless it has the kernel's name for it."""
_CORE_NAME = re.compile(rb"core(\.[0-9]+)?")
_ELF_CORE_TYPE = 4  # e_type ET_CORE, elf(5)

_CACHEDIR_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"  # bford.info/cachedir
ENVIRONMENT_FILE = b"pyvenv.cfg"
HEAD_BYTES = 4096
"""How much of CACHEDIR.TAG and pyvenv.cfg is enough to know them."""

# What venv and virtualenv put into an environment. With anything else beside them it is somebody's project.
_ENVIRONMENT_NAMES = frozenset(b"pyvenv.cfg bin Scripts lib lib64 Lib include share etc .gitignore .lock".split())

_INSTALLED = re.compile(rb"(?:(.*)/)?(?:lib|lib64)/(?:python|pypy)[0-9.]+t?", re.DOTALL)


def skip_status(status: os.stat_result, max_file_bytes: int) -> str | None:
    """Why what ``status`` describes is left out, or None."""
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return f"larger than the cap of {max_file_bytes} bytes" if status.st_size > max_file_bytes else None
    if stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
        return None
    if stat.S_ISSOCK(mode):
        return "a socket"
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    return "a device"


def may_be_core(path: bytes, size: int = 0) -> bool:
    """Whether a file of ``size`` bytes is worth a look at its head: ``is_core`` decides, whatever its name is."""
    return size > _CORE_BYTES or _CORE_NAME.fullmatch(name_of(path)) is not None


def is_core(head: bytes) -> bool:
    """Whether a file that begins with ``head`` (at least 18 bytes) is an ELF core dump."""
    if len(head) < 18 or not head.startswith(b"\x7fELF"):
        return False
    order = "little" if head[5] == 1 else "big"
    return int.from_bytes(head[16:18], order) == _ELF_CORE_TYPE  # type: ignore[arg-type]  # one of two literals


def is_environment(config: bytes) -> bool:
    """Whether ``config`` is what a virtual environment has in its pyvenv.cfg: it says where the base Python is."""
    lines = (line.partition(b"=") for line in config.splitlines())
    return any(equals and key.strip().lower() == b"home" for key, equals, _ in lines)  # PEP 405


MARKERS = frozenset({b"CACHEDIR.TAG", ENVIRONMENT_FILE})
"""A directory without one of these is left out for what is in it only if an installer filled it."""


def may_be_installed(directory: bytes) -> bool:
    """Whether ``environment_of`` may have an answer; False is certain."""
    return b"lib" in directory


def skip_directory(names: Set[bytes], read_head: Callable[[bytes], bytes]) -> str | None:
    """Why the directory that contains ``names`` is left out for what is in it, or None.

    ``read_head`` gives the first ``HEAD_BYTES`` of a file in it, or nothing where that cannot be read.
    """
    if b"CACHEDIR.TAG" in names and read_head(b"CACHEDIR.TAG").startswith(_CACHEDIR_SIGNATURE):
        return "marked as a cache by its CACHEDIR.TAG"
    if ENVIRONMENT_FILE in names and names <= _ENVIRONMENT_NAMES and is_environment(read_head(ENVIRONMENT_FILE)):
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
    """How much ``path`` matters when not everything can be saved in time.

    A large pack of Git stays with the objects: a repository whose refs name what is missing is none.
    """
    if b".git/" in path and (path.startswith(b".git/") or b"/.git/" in path):
        return _class_in_git(path)
    if size > LARGE_BYTES:
        return Class.LARGE
    name = path.rpartition(b"/")[2].lower()
    suffix = name.rpartition(b".")[2]
    if suffix == b"ipynb":
        return Class.NOTEBOOK
    if path.startswith(b"."):
        return Class.DOTFILE
    if suffix in _TEXT_SUFFIXES if suffix != name else name in _TEXT_NAMES:
        return Class.TEXT
    return Class.DOTFILE if b"/." in path else Class.OTHER


def _class_in_git(path: bytes) -> Class:
    # Objects before the refs that name them: a mirror cut short is then still a valid repository. The objects of
    # submodules lie deeper, and a branch can be called "objects".
    below = path[path.index(b".git/") + 4 :]
    return Class.GIT_OBJECT if b"/objects/" in below and b"/refs/" not in below else Class.GIT
