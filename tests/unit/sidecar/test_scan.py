"""A directory read: what is saved of it, what is not even touched, and when ``.persistignore`` counts."""

from __future__ import annotations

import os
import socket
import stat
import tracemalloc
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import pytest

from sidecar.entry import Kind, join
from sidecar.fsops import FileSystem, Tree
from sidecar.home.ignore import MAX_BYTES, NAME
from sidecar.home.scan import Listing, Names, Pruned, Scanner
from sidecar.select import STUMP_PREFIX

_MOUNTS = frozenset({b"Persist", b"Shared"})
_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55\n"
_CAP = 2 * MAX_BYTES


class _Watched(FileSystem):
    """Notes what is looked at."""

    def __init__(self) -> None:
        self.touched: set[bytes] = set()

    def open(self, name: bytes, flags: int, mode: int = 0o600, *, at: int | None = None) -> int:
        self.touched.add(name)
        return super().open(name, flags, mode, at=at)

    def lstat(self, name: bytes, *, at: int) -> os.stat_result:
        self.touched.add(name)
        return super().lstat(name, at=at)

    def chosen(
        self, fd: int, choose: Callable[[Collection[bytes]], Iterable[bytes]]
    ) -> Iterator[tuple[bytes, os.stat_result]]:
        for name, status in super().chosen(fd, choose):
            self.touched.add(name)
            yield name, status

    def chosen_by_kind(
        self, fd: int, choose: Callable[[Collection[bytes]], Iterable[bytes]]
    ) -> tuple[list[bytes], list[bytes]]:
        files, directories = super().chosen_by_kind(fd, choose)
        self.touched.update(files, directories)
        return files, directories


@pytest.fixture
def fs() -> _Watched:
    return _Watched()


@pytest.fixture
def home(tmp_path: Path, fs: _Watched) -> Iterator[Tree]:
    with Tree.at(fs, str(tmp_path)) as tree:
        yield tree


@pytest.fixture
def scanner(home: Tree, fs: _Watched) -> Scanner:
    return Scanner(fs, home, _MOUNTS, _CAP)


def _make(home: Path, *paths: str) -> None:
    for path in paths:
        target = home / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            target.mkdir(exist_ok=True)
        else:
            target.touch()


def _environment(directory: Path) -> None:
    _make(directory, "lib/python3.11/site-packages/numpy.py", "bin/python")
    (directory / "pyvenv.cfg").write_text("home = /usr/bin\n")


def _rules(scanner: Scanner, home: Path, text: str) -> None:
    (home / ".persistignore").write_text(text)
    assert scanner.load_rules()
    assert scanner.rules_problem is None


def _saved(scanner: Scanner) -> set[bytes]:
    """Every file and link that a walk finds; both ways to read must agree on them, and on the way."""
    found: set[bytes] = set()
    waiting = [b""]
    while waiting:
        directory = waiting.pop()
        listing, names = scanner.read(directory), scanner.read_names(directory)
        if isinstance(listing, Pruned) or isinstance(names, Pruned):
            assert listing == names
            continue
        kept = {name for name, entry in listing.found.items() if entry.kind is not Kind.DIRECTORY}
        assert kept == set(names.files)
        assert sorted(listing.directories) == sorted(names.directories)
        found |= {join(directory, name) for name in kept}
        waiting += listing.directories
    for path in found:
        assert scanner.skip_name(path) is None
    return found


def _skipped(result: Listing | Pruned) -> dict[bytes, str]:
    assert not isinstance(result, Pruned)
    return {skipped.path: skipped.reason for skipped in result.skipped}


# What is not touched.


def test_what_is_left_out_by_name_is_not_touched(tmp_path: Path, scanner: Scanner, fs: _Watched) -> None:
    _make(tmp_path, "Persist/x", "Shared/x", ".cache/x", "a.pyc", ".nfs0001", "work.ipynb", "sub/Persist")
    (tmp_path / "Save").symlink_to("Persist")
    _make(tmp_path, os.fsdecode(STUMP_PREFIX) + "1")
    skipped = _skipped(scanner.read(b""))
    assert set(skipped) == {b"Persist", b"Shared", b"Save", b".cache", b"a.pyc", b".nfs0001", STUMP_PREFIX + b"1"}
    names = scanner.read_names(b"")
    assert isinstance(names, Names)
    assert (names.files, names.directories) == ([b"work.ipynb"], [b"sub"])
    assert not fs.touched & set(skipped)
    for mount in _MOUNTS:
        assert isinstance(scanner.read(mount), Pruned)
        assert isinstance(scanner.read_names(mount), Pruned)
        assert scanner.skip_name(mount + b"/x") == "another storage tier"
    assert not fs.touched & _MOUNTS
    assert _saved(scanner) == {b"work.ipynb", b"sub/Persist"}


def test_a_pruned_directory_has_no_file_looked_at(tmp_path: Path, scanner: Scanner, fs: _Watched) -> None:
    _make(tmp_path, "d/a", "d/b")
    (tmp_path / "d" / "CACHEDIR.TAG").write_bytes(_SIGNATURE)
    assert isinstance(scanner.read(b"d"), Pruned)
    assert fs.touched == {os.fsencode(tmp_path), b"d", b"CACHEDIR.TAG"}


# What is read.


def test_a_listing_has_what_is_saved_and_names_the_rest(tmp_path: Path, scanner: Scanner) -> None:
    _make(tmp_path, "d/file", "d/sub/", "d/\n", "d/-rf")
    (tmp_path / "d" / "link").symlink_to("nowhere")
    (tmp_path / "d" / "large").write_bytes(bytes(_CAP + 1))
    os.mkfifo(tmp_path / "d" / "fifo")
    invalid = os.fsencode(tmp_path) + b"/d/\xff\xfe"
    os.close(os.open(invalid, os.O_CREAT))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "d" / "socket"))
        listing, names = scanner.read(b"d"), scanner.read_names(b"d")
    assert isinstance(listing, Listing)
    assert isinstance(names, Names)
    assert {name: entry.kind for name, entry in listing.found.items()} == {
        b"file": Kind.FILE,
        b"\n": Kind.FILE,
        b"-rf": Kind.FILE,
        b"\xff\xfe": Kind.FILE,
        b"link": Kind.LINK,
        b"sub": Kind.DIRECTORY,
    }
    assert listing.directories == names.directories == [b"d/sub"]
    assert _skipped(listing) == {
        b"d/large": f"larger than the cap of {_CAP} bytes",
        b"d/fifo": "a FIFO",
        b"d/socket": "a socket",
    }
    assert sorted(names.files) == sorted([b"file", b"\n", b"-rf", b"\xff\xfe", b"link", b"large"])
    assert listing.names == {os.fsencode(name) for name in os.listdir(tmp_path / "d")}


def test_what_is_no_directory_is_an_error(tmp_path: Path, scanner: Scanner) -> None:
    _make(tmp_path, "file")
    for path in (b"file", b"gone"):
        with pytest.raises(OSError, match=r"\[Errno"):
            scanner.read(path)
        with pytest.raises(OSError, match=r"\[Errno"):
            scanner.read_names(path)


# What is left out for what is in it.


def test_a_directory_with_a_valid_cachedir_tag_is_left_out(tmp_path: Path, scanner: Scanner) -> None:
    _make(tmp_path, "d/data")
    tag = tmp_path / "d" / "CACHEDIR.TAG"
    tag.write_bytes(b"Signature: something else")
    assert isinstance(scanner.read(b"d"), Listing)
    tag.write_bytes(_SIGNATURE)
    assert isinstance(scanner.read(b"d"), Pruned)
    tag.unlink()
    (tmp_path / "elsewhere").write_bytes(_SIGNATURE)
    tag.symlink_to("../elsewhere")
    assert isinstance(scanner.read(b"d"), Listing), "a link is not followed"
    tag.unlink()
    os.mkfifo(tag)
    assert isinstance(scanner.read(b"d"), Listing), "nobody waits for a writer"


def test_a_path_in_a_directory_left_out_for_its_content_is_left_out_as_long_as_that_is_so(
    tmp_path: Path, home: Tree, scanner: Scanner
) -> None:
    _make(tmp_path, "d/sub/data")
    tag = tmp_path / "d" / "CACHEDIR.TAG"
    tag.write_bytes(_SIGNATURE)
    assert scanner.skip_name(b"d/sub/data") is None, "nobody has looked yet"
    assert isinstance(scanner.read(b"d"), Pruned)
    for path in (b"d", b"d/sub", b"d/sub/data"):
        assert scanner.skip_name(path) == "marked as a cache by its CACHEDIR.TAG"
    assert scanner.skip(b"d", (tmp_path / "d").stat()) == "marked as a cache by its CACHEDIR.TAG"
    assert isinstance(scanner.read(b"d/sub"), Pruned)
    tag.unlink()
    assert isinstance(scanner.read(b"d"), Listing)
    assert scanner.skip_name(b"d/sub/data") is None
    assert _saved(scanner) == {b"d/sub/data"}
    tag.write_bytes(_SIGNATURE)
    assert isinstance(scanner.read(b"d"), Pruned)
    (tmp_path / "d").rename(tmp_path / "e")
    home.forget()
    with pytest.raises(FileNotFoundError):
        scanner.read(b"d")
    assert scanner.skip_name(b"d/sub/data") is None


def test_a_home_is_never_left_out_as_a_whole(tmp_path: Path, scanner: Scanner) -> None:
    (tmp_path / "CACHEDIR.TAG").write_bytes(_SIGNATURE)
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\n")
    assert isinstance(scanner.read(b""), Listing)
    assert isinstance(scanner.read_names(b""), Names)


def test_a_pure_environment_is_left_out_and_one_inside_a_project_keeps_the_work(
    tmp_path: Path, scanner: Scanner
) -> None:
    _environment(tmp_path / "pure")
    _environment(tmp_path / "project")
    _make(tmp_path, "project/work.ipynb", "project/.gitignore", "project/lib/mine.py")
    assert isinstance(scanner.read(b"pure"), Pruned)
    assert isinstance(scanner.read(b"project/lib/python3.11"), Pruned)
    assert _saved(scanner) == {
        b"project/work.ipynb",
        b"project/.gitignore",
        b"project/lib/mine.py",
        b"project/bin/python",
        b"project/pyvenv.cfg",
    }


def test_a_pyvenv_cfg_without_a_home_makes_no_environment(tmp_path: Path, scanner: Scanner) -> None:
    _environment(tmp_path / "d")
    (tmp_path / "d" / "pyvenv.cfg").write_text("what I know about pyvenv.cfg\n")
    assert b"d/lib/python3.11/site-packages/numpy.py" in _saved(scanner)


def test_a_lib_of_ones_own_is_kept(tmp_path: Path, scanner: Scanner) -> None:
    _make(tmp_path, "lib/python3.11/")
    assert isinstance(scanner.read(b"lib/python3.11"), Listing)


# The user's rules.


def test_a_user_leaves_out_more_and_brings_back(tmp_path: Path, scanner: Scanner) -> None:
    _make(
        tmp_path, "data/raw/x.h5", "data/a.csv", ".cache/pip/x", ".cache/important/x", ".cache/important/__pycache__/y"
    )
    _make(tmp_path, "a.pyc", "build", "src/build/x.o", "src/a.py")
    _rules(scanner, tmp_path, "*.h5\nbuild/\n!.cache/important/\n!*.pyc\n")
    assert _saved(scanner) == {
        b".persistignore",
        b"data/a.csv",
        b".cache/important/x",
        b"a.pyc",
        b"build",
        b"src/a.py",
    }
    assert scanner.skip_name(b"data/raw/x.h5") == "left out by .persistignore: *.h5"
    assert scanner.skip_name(b"src/build/x.o") == "left out by .persistignore: build/"
    assert scanner.skip_name(b".cache/pip/x") == "a cache: it can be made again"
    assert scanner.skip_name(b".cache") is None, "it must be entered"
    assert scanner.skip(b".cache", (tmp_path / ".cache").stat()) == "a cache: it can be made again"
    assert scanner.skip_name(b"src/build") is None, "it could be a file"
    assert scanner.skip(b"src/build", (tmp_path / "src" / "build").stat()) == "left out by .persistignore: build/"
    assert scanner.skip(b"build", (tmp_path / "build").stat()) is None
    assert isinstance(scanner.read(b"src/build"), Pruned)


def test_of_a_passage_one_entry_tells_that_it_is_left_out(tmp_path: Path, scanner: Scanner) -> None:
    _make(tmp_path, *(f".cache/pip/{number}" for number in range(9)), ".cache/uv/x", ".cache/important/x")
    _rules(scanner, tmp_path, "!.cache/important/\n")
    home, cache = scanner.read(b""), scanner.read(b".cache")
    assert isinstance(home, Listing)
    assert isinstance(cache, Listing)
    assert home.directories == [b".cache"]
    assert b".cache" not in home.found
    assert _skipped(home) == {b".cache": "a cache: it can be made again"}
    assert _skipped(cache) == {}
    assert list(cache.found) == [b"important"]
    assert cache.directories == [b".cache/important"]


def test_a_user_brings_back_what_is_left_out_for_its_content(tmp_path: Path, scanner: Scanner) -> None:
    for name in ("one", "two", "three"):
        _environment(tmp_path / name)
        _make(tmp_path, f"{name}/etc/mine", f"{name}/etc/other")
    _make(tmp_path, "tagged/x")
    (tmp_path / "tagged" / "CACHEDIR.TAG").write_bytes(_SIGNATURE)
    assert _saved(scanner) == set()
    _rules(scanner, tmp_path, "!one/\n!two/etc/mine\n!tagged\n")
    assert _saved(scanner) == {
        b".persistignore",
        b"one/pyvenv.cfg",
        b"one/bin/python",
        b"one/etc/mine",
        b"one/etc/other",
        b"one/lib/python3.11/site-packages/numpy.py",
        b"two/etc/mine",
        b"tagged/CACHEDIR.TAG",
        b"tagged/x",
    }
    assert scanner.skip_name(b"two/etc/other") == "a virtual environment: it can be made again"
    assert scanner.skip_name(b"three/etc/mine") == "a virtual environment: it can be made again"


def test_nobody_brings_back_the_tiers_special_files_or_what_is_over_the_cap(tmp_path: Path, scanner: Scanner) -> None:
    _make(tmp_path, "Persist/x", "d/.nfs01")
    (tmp_path / "Save").symlink_to("Persist")
    (tmp_path / "large").write_bytes(bytes(_CAP + 1))
    os.mkfifo(tmp_path / "fifo")
    _rules(scanner, tmp_path, "!*\n!/*\n!Persist\n!Persist/**\n!Save\n!large\n!fifo\n!d/.nfs01\n")
    listing = scanner.read(b"")
    assert isinstance(listing, Listing)
    assert set(listing.found) == {NAME, b"d"}
    assert scanner.skip_name(b"d/.nfs01") == "an NFS leftover of a deleted file"


def test_a_core_dump_is_brought_back_by_its_own_line_only(tmp_path: Path, scanner: Scanner) -> None:
    assert not scanner.is_brought_back(b"d/core")
    _rules(scanner, tmp_path, "!core*\n!crashes/\n!*.dump/\n")
    assert scanner.is_brought_back(b"d/core.1")
    assert not scanner.is_brought_back(b"crashes/vm")
    assert not scanner.is_brought_back(b"vm.dump")


def test_what_was_saved_may_be_written_back_whatever_the_rules_say_now(tmp_path: Path, scanner: Scanner) -> None:
    _rules(scanner, tmp_path, "*\n")
    for path in (b".cache/important/x", b"a.ipynb", b".persistignore", b"d/Persist"):
        assert scanner.is_ours(path)
    for path in (b"Persist", b"Persist/x", b"Save", b"Save/x", b"d/" + STUMP_PREFIX + b"x", b".nfs1/x"):
        assert not scanner.is_ours(path)


def test_rules_count_from_the_moment_they_are_loaded(tmp_path: Path, scanner: Scanner) -> None:
    _make(tmp_path, "d/a.h5")
    assert not scanner.load_rules(), "there is no file"
    assert b"d/a.h5" in _saved(scanner)
    _rules(scanner, tmp_path, "*.h5\n")
    assert not scanner.load_rules(), "it is the same"
    assert b"d/a.h5" not in _saved(scanner)
    (tmp_path / ".persistignore").unlink()
    assert scanner.load_rules()
    assert b"d/a.h5" in _saved(scanner)


def test_a_broken_line_is_named_in_the_status(tmp_path: Path, scanner: Scanner) -> None:
    (tmp_path / ".persistignore").write_text("*.h5\n[z\n")
    assert scanner.load_rules()
    assert scanner.rules_problem == ".persistignore: line 2, [z: a bracket is not closed"
    assert scanner.skip_name(b"a.h5")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link(path: Path) -> None:
    (path.parent / "elsewhere").write_text("*\n")
    path.symlink_to("elsewhere")


def _directory(path: Path) -> None:
    path.mkdir()


def _too_large(path: Path) -> None:
    path.write_bytes(b"*\n" + b"#" * MAX_BYTES)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize("make", [_fifo, _link, _directory, _too_large, _socket])
def test_a_file_that_is_none_leaves_the_defaults_and_is_named(
    make: Callable[[Path], None], tmp_path: Path, scanner: Scanner
) -> None:
    make(tmp_path / ".persistignore")
    assert scanner.load_rules()
    assert (scanner.rules_problem or "").startswith(".persistignore: it ")
    assert (scanner.rules_problem or "").endswith("the defaults count alone")
    assert scanner.skip_name(b"a.ipynb") is None
    assert scanner.skip_name(b".cache/x")
    _make(tmp_path, "work.ipynb")
    assert b"work.ipynb" in _saved(scanner)


def test_a_file_of_just_the_allowed_size_counts(tmp_path: Path, scanner: Scanner) -> None:
    _rules(scanner, tmp_path, ("#" * (MAX_BYTES - 6)) + "\n*.h5\n")
    assert scanner.skip_name(b"a.h5")


class _Unreadable(FileSystem):
    def read(self, fd: int, count: int) -> bytes:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(5, "Input/output error")
        return super().read(fd, count)


def test_a_file_that_cannot_be_read_leaves_the_defaults_and_is_named(tmp_path: Path) -> None:
    (tmp_path / ".persistignore").write_text("*\n")
    with Tree.at(_Unreadable(), str(tmp_path)) as home:
        scanner = Scanner(_Unreadable(), home, _MOUNTS, _CAP)
        assert scanner.load_rules()
        assert "Input/output error" in (scanner.rules_problem or "")
        assert scanner.skip_name(b"a.ipynb") is None


def test_a_path_deeper_than_pythons_stack_is_left_out_as_any_other(scanner: Scanner) -> None:
    assert scanner.skip_name(b"/".join([b"d"] * 3000 + [b".cache"] + [b"d"] * 2000)) == "a cache: it can be made again"


def test_what_is_remembered_of_directories_is_bounded(scanner: Scanner) -> None:
    tracemalloc.start()
    try:
        for number in range(8000):
            assert scanner.skip_name(b"%d/x.py" % number) is None
            assert scanner.skip_name(b"%d/.cache/x.py" % number)
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
    finally:
        tracemalloc.stop()
