"""Times and entries survive being written down."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.clock import iso, parse_stamp, parse_time, stamp
from sidecar.entry import Entry, Kind, ancestors, join, legible, name_of, parent, shown
from sidecar.errors import UsageError

_now_and_then = st.integers(min_value=0, max_value=9_000_000_000 * 10**9)
_micro = 1000


@given(_now_and_then)
def test_a_stamp_reads_back_to_the_microsecond(at_ns: int) -> None:
    assert parse_stamp(stamp(at_ns)) == at_ns - at_ns % _micro
    assert parse_time(iso(at_ns)) == at_ns - at_ns % _micro


@given(_now_and_then, _now_and_then)
def test_stamps_sort_like_time(one: int, other: int) -> None:
    if one // _micro < other // _micro:
        assert stamp(one) < stamp(other)


@pytest.mark.parametrize(
    ("text", "at_s"),
    [
        ("1970-01-01T00:01:00Z", 60),
        ("1970-01-01T00:01:00", 60),
        ("1970-01-01 00:01:00", 60),
        ("1970-01-01T01:01:00+01:00", 60),
        ("1970-01-02", 86400),
    ],
)
def test_a_time_is_utc_unless_it_says_otherwise(text: str, at_s: int) -> None:
    assert parse_time(text) == at_s * 10**9


@pytest.mark.parametrize("text", ["", "yesterday", "12", "2026-13-01", "2026-05-04T25:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_time(text)


@given(
    st.builds(
        Entry,
        st.sampled_from(Kind),
        st.integers(0, 0o7777),
        st.integers(0, 2**63),
        st.integers(-(2**63), 2**63 - 1),
        st.integers(-(2**63), 2**63 - 1),
        st.integers(0, 2**64 - 1),
        st.integers(-(2**63), 2**63 - 1),
    )
)
def test_an_entry_unpacks_to_what_was_packed(entry: Entry) -> None:
    assert Entry.unpack(entry.pack()) == entry


@pytest.mark.parametrize("mtime_s", [0, -1, 2**33, 2**34 - 1, -(2**31)])
def test_every_time_a_file_can_have_can_be_packed(tmp_path: Path, mtime_s: int) -> None:
    path = tmp_path / "f"
    path.touch()
    os.utime(path, ns=(mtime_s * 10**9, mtime_s * 10**9))
    entry = Entry.of(path.lstat())
    assert entry is not None
    assert Entry.unpack(entry.pack()) == entry


def test_only_files_links_and_directories_have_entries(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("x")
    assert Entry.of((tmp_path / "fifo").lstat()) is None
    link, directory = Entry.of((tmp_path / "link").lstat()), Entry.of(tmp_path.lstat())
    assert link is not None
    assert directory is not None
    assert (link.kind, directory.kind, directory.size) == (Kind.LINK, Kind.DIRECTORY, 0)


@pytest.mark.parametrize(
    ("path", "above", "name", "all_above"),
    [
        (b"a", b"", b"a", []),
        (b"a/b", b"a", b"b", [b"a"]),
        (b"a/b/c", b"a/b", b"c", [b"a", b"a/b"]),
    ],
)
def test_paths_come_apart_and_together(path: bytes, above: bytes, name: bytes, all_above: list[bytes]) -> None:
    assert (parent(path), name_of(path), ancestors(path)) == (above, name, all_above)
    assert join(above, name) == path


def test_a_name_that_is_not_utf8_is_shown_by_its_bytes() -> None:
    assert shown(b"caf\xc3\xa9-\xff") == "café-\\xff"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("Übung.ipynb".encode(), "Übung.ipynb"),
        (b"two\nlines", "two\\nlines"),
        (b"\x1b[31mred", "\\x1b[31mred"),
        (b"not utf-8 \xff", "not utf-8 \\xff"),
        ("right\u202eleft".encode(), "right\\u202eleft"),
    ],
)
def test_a_name_is_one_harmless_line_for_people(path: bytes, text: str) -> None:
    assert legible(path) == text
