"""``.persistignore`` says what Git would say, but for ``!`` lines that name a place; and it cannot be abused."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.home.ignore import MAX_PARTS, MAX_PATTERN_BYTES, LeftOut, Rules, RulesHere
from sidecar.select import STUMP_PREFIX

_MOUNTS = (b"Persist", b"Shared")


def _fate(rules: Rules, path: bytes, *, is_directory: bool = False) -> LeftOut | None:
    *above, name = path.split(b"/")
    here: RulesHere = rules.home
    for each in above:
        here = here.enter(each)
    return here.left_out if here.is_closed else here.decide(name, is_directory=is_directory)[0]


def _keeps(text: bytes, path: bytes, *, is_directory: bool = False) -> bool:
    rules = Rules(text, _MOUNTS)
    assert rules.problem is None
    return _fate(rules, path, is_directory=is_directory) is None


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
        b"d/" + STUMP_PREFIX + b"1",
        b"Persist",
        b"Shared",
        b"Save",
        b".cache/pip/http/x",
        b".local/lib/python3.11/site-packages/numpy/core.py",
        b"web/node_modules/left-pad/index.js",
        b"Persist/Backup/default/a.ipynb",
        b"Save/a.ipynb",
    ],
)
def test_left_out_by_default(path: bytes) -> None:
    assert not _keeps(b"", path)


@pytest.mark.parametrize(
    "path",
    [
        b".git",
        b".git/config",
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
        b"nfs.md",
        b"a.pyc\n",
        b".cache\n",
        b".cache ",
        b"\xff.pyc.txt",
        b".persistignore",
    ],
)
def test_kept_by_default(path: bytes) -> None:
    assert _keeps(b"", path)


@pytest.mark.parametrize(
    ("text", "path", "kept"),
    [
        # More is left out.
        (b"data/\n", b"data/x", False),
        (b"data/\n", b"project/data/x", False),
        (b"data/\n", b"data", True),  # a file
        (b"/data\n", b"project/data", True),
        (b"*.h5\n", b"runs/1/weights.h5", False),
        (b"*.h5\n!best.h5\n", b"runs/1/best.h5", True),
        (b"*.h5\n!best.h5\n*.h5\n", b"runs/1/best.h5", False),
        (b"!best.h5\n*.h5\n", b"runs/1/best.h5", False),  # the last line decides
        (b"*\n", b"a.ipynb", False),
        (b"*\n", b".persistignore", True),
        (b".persistignore\n", b".persistignore", True),
        (b"data\r\n# data2\r\n\r\n", b"data", False),
        (b"\xef\xbb\xbfdata\n", b"data", False),
        (b"data  \n", b"data", False),
        (b"data\\ \n", b"data ", False),
        (b"data\\ \n", b"data", True),
        (b"\\#data\n", b"#data", False),
        (b"\\!data\n", b"!data", False),
        # What the defaults leave out is brought back.
        (b"!*.pyc\n", b"project/a.pyc", True),
        (b"!*.pyc\n", b"project/__pycache__/a.pyc", False),  # no line about names reaches into a cache
        (b"!__pycache__/\n!*.pyc\n", b"project/__pycache__/a.pyc", True),
        (b"!.cache/\n", b".cache/pip/x", True),
        (b"!.cache/\n", b".cache/pip/__pycache__/x", False),
        (b"!.cache/important/\n", b".cache/important/deep/x", True),
        (b"!.cache/important/\n", b".cache/important/x.pyc", False),
        (b"!.cache/important/\n", b".cache/pip/x", False),
        (b"!.cache/important/\n", b".cache/important", False),  # a file
        (b"!.cache/important/\n", b".cache", False),  # a file
        (b"!.cache/*/keep.txt\n", b".cache/a/keep.txt", True),
        (b"!.cache/*/keep.txt\n", b".cache/a/b/keep.txt", False),
        (b"!.cache/**/keep.txt\n", b".cache/a/b/keep.txt", True),
        (b"!.cache/**/keep.txt\n", b".cache/a/b/lose.txt", False),
        (b"!.cache/important/**\n", b".cache/important/a/b", True),
        (b"!.local/lib/python3.11/site-packages/mine\n", b".local/lib/python3.11/site-packages/mine/a.py", True),
        (b"!.local/lib/python3.11/site-packages/mine\n", b".local/lib/python3.11/site-packages/numpy/a.py", False),
        (b"!.cache/important/\n!*.md\n", b".cache/a.md", False),
        (b"!**/a/b\n", b".cache/a/b", False),
        (b"!**/important/\n", b".cache/important/x", False),  # as !important/, which names no place
        (b"!*\n", b".cache/pip/x.pyc", True),
        # Of two lines about one place the last decides.
        (b"!.cache/important/\n.cache/\n", b".cache/important/x", False),
        (b"data/\n!data/small/\n*.tmp\n", b"data/small/a", True),
        (b"data/\n!data/small/\n*.tmp\n", b"data/small/a.tmp", False),
        (b"!.cache/*\n!*.md\n", b".cache/a.md", True),  # a line more about names takes nothing away
        (b"!.cache/a/b/\n.cache/a/\n", b".cache/a/b/x", False),
        # What nobody brings back.
        (b"!*\n!/*\n!Persist/\n!Persist/**\n", b"Persist/x", False),
        (b"!*\n!/Save\n!Save/**\n", b"Save", False),
        (b"!.nfs*\n!*\n", b"d/.nfs0001", False),
        (b"!.nfs1/x\n", b".nfs1/x", False),
        (b"!*\n!/d/*\n", b"d/" + STUMP_PREFIX + b"x", False),
        # Names that are hard on regular expressions.
        (b"data\n", b"data\n", True),
        (b"dat?\n", b"data\n", True),
        (b"a/b\n", b"x\n/a/b", True),
        (b"x\n", b"a\nb/x", False),
        (b"*x\n", b"a\nx", False),
        (b"[!a]x\n", b"\nx", False),
        (b"a[!x]b\n", b"a/b", True),  # no wildcard stands for a slash
        (b"a?b\n", b"a/b", True),
        (b"back\\\\slash\n", b"back\\slash", False),
        (b"\xff*\n", b"\xff\xfe", False),
        ("ü*\n".encode(), "üb".encode(), False),
        ("ü*\n".encode(), b"\xfcb", True),
        (b"a**b\n", b"axxb", False),
        (b"**\n", b"x", False),
        (b"\\*\\*\n", b"**", False),
        (b"\\*\\*\n", b"xx", True),
    ],
)
def test_what_a_line_means(text: bytes, path: bytes, kept: bool) -> None:
    assert _keeps(text, path) is kept


def test_a_passage_is_not_closed_and_what_it_does_not_lead_to_is() -> None:
    home = Rules(b"!.cache/a/important/\n").home
    cache = home.enter(b".cache")
    assert cache.left_out is not None
    assert not cache.is_closed
    assert not cache.enter(b"a").is_closed
    assert cache.enter(b"pip").is_closed
    assert cache.enter(b"a").enter(b"important").left_out is None
    assert home.enter(b"other").enter(b".cache").is_closed


def test_a_name_whose_kind_decides_is_not_left_out_before_it_is_known() -> None:
    home = Rules(b"build/\nout\n!out/\n!.cache/x/\n").home
    for name in (b"build", b"out", b".cache"):
        assert home.leaves_out(name) is None
    assert home.leaves_out(b".npm") is not None
    assert home.decide(b"build", is_directory=True)[0] is not None
    assert home.decide(b"out", is_directory=False)[0] is not None


def test_the_reason_shows_the_line() -> None:
    left_out = _fate(Rules(b"*.h5\n\x1b]0;*\xe2\x80\xae\n"), b"\x1b]0;x\xe2\x80\xae")
    assert left_out is not None
    assert left_out.reason == "left out by .persistignore: \\x1b]0;*\\u202e"
    assert (_fate(Rules(b"*.h5"), b"a.h5") or LeftOut("")).reason == "left out by .persistignore: *.h5"
    assert len((_fate(Rules(b"*" + b"x" * 5000 + b"\n*"), b"a") or LeftOut("")).reason) < 200


@pytest.mark.parametrize(
    "broken",
    [b"[z", b"[z-a]", b"x\\", b"a//b", b"/", b"!", b"!/", b"//", b"[[:digit:]]", b"[a\\]b]", b"[a/b]", b"a\\/b"],
)
def test_a_broken_line_is_named_and_the_others_count(broken: bytes) -> None:
    rules = Rules(b"*.h5\n" + broken + b"\n*.ckpt\n")
    assert rules.problem is not None
    assert rules.problem.startswith("line 2, ")
    assert _fate(rules, b"a.h5") is not None
    assert _fate(rules, b"a.ckpt") is not None
    assert _fate(rules, b"a.ipynb") is None


def test_of_many_broken_lines_some_are_named() -> None:
    rules = Rules(b"[z\n" + b"".join(b"[y%d\n" % number for number in range(400)))
    assert (rules.problem or "").endswith("398 more")
    assert len(rules.problem or "") < 500


@pytest.mark.parametrize(
    "text",
    [
        b"".join(b"%d\n" % number for number in range(MAX_PARTS + 1)),
        b"a/" * MAX_PARTS + b"b\n",
        b"x" * MAX_PATTERN_BYTES + b"x\n",
    ],
)
def test_too_much_is_refused_as_a_whole(text: bytes) -> None:
    rules = Rules(b"a.ipynb\n" + text)
    assert "the defaults count alone" in (rules.problem or "")
    assert _fate(rules, b"a.ipynb") is None
    assert _fate(rules, b".cache/x") is not None


def test_a_line_that_was_written_again_and_again_counts_once() -> None:
    rules = Rules(b"data/\n!data/small/\n" * 30_000)
    assert rules.problem is None
    assert _fate(rules, b"data/small/x") is None


@pytest.mark.parametrize(
    "pattern",
    [b"**/a*a*a*a*a*b", b"a*" * 100 + b"b", b"*a*?*a*?*[a]*a*b", b"**/a/" * 50 + b"b", b"*" * 500 + b"b"],
)
def test_a_pattern_cannot_make_us_slow(pattern: bytes) -> None:
    rules = Rules(pattern)
    assert rules.problem is None
    started_s = time.process_time()
    for _ in range(100):
        assert _fate(rules, b"a/" * 20 + b"a" * 255) is None
    assert time.process_time() - started_s < 2, "a backtracking match of one such name takes minutes"


# The law: Git says the same.

_NAMES = [
    b"a",
    b"b",
    b"ab",
    b"x.txt",
    b"a b",
    b"n\nl",
    b"[z]",
    b"b\\s",
    b"\xc3\xa9",
    b"\xff",
    b"#h",
    b"!n",
    b"a ",
    b"a\n",
]


@pytest.fixture(scope="module")
def ignored_by_git(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], set[bytes]]:
    root = tmp_path_factory.mktemp("git")
    environment = {**os.environ, "HOME": str(root), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", "init", "-q", str(root)], check=True, env=environment)
    for path in _DIRECTORIES:
        os.mkdir(os.path.join(os.fsencode(root), path))
    for path in _FILES:
        with open(os.path.join(os.fsencode(root), path), "wb"):
            pass

    def ask(text: bytes) -> set[bytes]:
        (root / ".git" / "info" / "exclude").write_bytes(text)
        asked = subprocess.run(
            ["git", "check-ignore", "--no-index", "--stdin", "-z"],
            input=b"\0".join([*_DIRECTORIES, *_FILES]),
            capture_output=True,
            cwd=root,
            env=environment,
        )
        assert asked.returncode in (0, 1), asked.stderr
        return {path for path in asked.stdout.split(b"\0") if path}

    return ask


_DIRECTORIES = [b"a", b"b", b"a b", b"a/a", b"a/b", b"a/ab", b"b/a", b"a/b/a", b"a/b/b", b"b/a/n\nl"]
_FILES = [
    above + b"/" + name if above else name
    for above in (b"", *_DIRECTORIES)
    for name in _NAMES
    if (above + b"/" + name if above else name) not in _DIRECTORIES
]

_PARTS = st.sampled_from(
    (
        b"a|b|ab|*|**|***|?|??|a*|*b|*a*b*|*?*|a**b|[ab]|[!a]|[^b]*|[a-b]?|[]-a]*|[[]z]|\\[z]|*.txt|x.*|a b|a\\ b|a?b"
        b"|n*l|n?l|b\\\\s|\\a|\\#h|#h|!n|\\!n|a\\ |a\\  |\xff|[\xfe-\xff]"
    ).split(b"|")
)
_PATTERNS = st.builds(
    lambda negated, rooted, parts, end: negated + rooted + b"/".join(parts) + end,
    st.sampled_from([b"", b"", b"!"]),
    st.sampled_from([b"", b"", b"/"]),
    st.lists(_PARTS, min_size=1, max_size=4),
    st.sampled_from([b"", b"", b"/", b"/ ", b"  "]),
)
_TEXTS = st.lists(_PATTERNS, max_size=5).map(b"\n".join)


def _left_out(text: bytes) -> set[bytes]:
    rules = Rules(text)
    directories = {path for path in _DIRECTORIES if _fate(rules, path, is_directory=True) is not None}
    return directories | {path for path in _FILES if _fate(rules, path) is not None}


def _names_a_place(line: bytes) -> bool:
    return line.startswith(b"!") and b"/" in line.rstrip(b" ").rstrip(b"/")[1:] and not line.startswith(b"!**")


@given(text=_TEXTS)
@example(text=b"a/**/b\n")
@example(text=b"a/**\n")
@example(text=b"**/a/b\n!**/ab\n")
def test_without_a_line_that_brings_back_a_place_git_says_the_same(
    ignored_by_git: Callable[[bytes], set[bytes]], text: bytes
) -> None:
    text = b"\n".join(line for line in text.split(b"\n") if not _names_a_place(line))
    assert _left_out(text) == ignored_by_git(text)


@given(text=_TEXTS)
@example(text=b"a\n!a/b/\n")
def test_more_than_git_keeps_is_kept_only_below_what_git_leaves_out(
    ignored_by_git: Callable[[bytes], set[bytes]], text: bytes
) -> None:
    ours, gits = _left_out(text), ignored_by_git(text)
    assert ours <= gits
    assert all(path.rpartition(b"/")[0] in gits for path in gits - ours)


@given(
    st.binary(max_size=200), st.lists(st.binary(min_size=1, max_size=10).filter(lambda n: b"/" not in n), min_size=1)
)
def test_any_bytes_are_a_rule_or_a_problem_and_never_a_crash(text: bytes, names: list[bytes]) -> None:
    rules = Rules(text)
    _fate(rules, b"/".join(names))


@given(_TEXTS, st.sets(st.sampled_from(_NAMES)))
def test_sifting_a_directory_is_asking_for_each_name(text: bytes, names: set[bytes]) -> None:
    rules = Rules(text, _MOUNTS)
    for here in (rules.home, rules.home.enter(b"a"), rules.home.enter(b"a").enter(b"b")):
        one_by_one = {name: why for name in names if (why := here.leaves_out(name)) is not None}
        assert here.sift(names) == one_by_one
