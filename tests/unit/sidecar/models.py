"""Entries, paths and operations as hypothesis makes them, for every test that needs a history."""

from __future__ import annotations

from hypothesis import strategies as st

from sidecar.entry import Entry, Kind

paths = st.lists(st.sampled_from([b"a", b"b", b"\xff", b"n\n"]), min_size=1, max_size=3).map(b"/".join)
entries = st.builds(
    Entry,
    st.sampled_from(Kind),
    st.just(0o644),
    st.integers(0, 1000),
    st.integers(0, 10**18),
    st.integers(0, 10**18),
    st.integers(0, 2**40),
    st.integers(0, 10**18),
)
