"""The index says what a plain dictionary would say, in less memory."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.backup.index import Index
from sidecar.entry import Entry, Kind, join, name_of, parent
from tests.unit.sidecar.models import entries, paths

_FILE = Entry(Kind.FILE, 0o644, 5, 1, 2, 3, 4)
_DIRECTORY = Entry(Kind.DIRECTORY, 0o755, 0, 0, 0, 0, 0)
_Model = dict[bytes, tuple[Entry, bool]]

# Names that are parts of each other, that look like what the index packs, that are as long as a name can be.
_names = st.one_of(
    st.sampled_from([b"a", b"aa", b"a" * 254, b"a" * 255, b"\1", b"\1\1", b"\xff" * 255, b"-rf", b".", b"n\n", b"46"]),
    st.binary(min_size=1, max_size=3).map(lambda name: name.translate(bytes(each or 1 for each in range(256)))),
    entries.map(lambda entry: entry.pack().replace(b"\0", b"\1")),
).map(lambda name: name.replace(b"/", b"|"))
_ugly_paths = st.lists(_names, min_size=1, max_size=2).map(b"/".join)
_any_path = paths | _ugly_paths

_operations = st.lists(
    st.tuples(st.just("put"), _any_path, entries, st.booleans())
    | st.tuples(st.just("remove"), _any_path)
    | st.tuples(st.just("move"), _any_path, _any_path)
    | st.tuples(st.just("release"))
    | st.tuples(st.just("put all"), _any_path, st.dictionaries(_names, entries, max_size=9), st.booleans())
    | st.tuples(st.just("fill"), paths, st.integers(1, 300), entries)
    | st.tuples(st.just("empty"), paths, st.integers(1, 300)),
    max_size=30,
)


def _is_below(path: bytes, directory: bytes) -> bool:
    return path != directory and (not directory or path.startswith(directory + b"/"))


def _move(model: _Model, old: bytes, new: bytes) -> _Model | None:
    """The model after the move; None where that cannot be."""
    moved = {path: value for path, value in model.items() if path == old or _is_below(path, old)}
    if not moved or old == new:
        return model
    if _is_below(new, old) or any(path == new or _is_below(path, new) for path in model):
        return None
    stayed = {path: value for path, value in model.items() if path not in moved}
    return stayed | {new + path[len(old) :]: value for path, value in moved.items()}


def _apply(index: Index, model: _Model, operation: tuple[object, ...]) -> _Model:
    match operation:
        case ("put", bytes(path), Entry() as entry, bool(held)):
            index.put(path, entry, held=held)
            return model | {path: (entry, held)}
        case ("put all", bytes(directory), dict(named), bool(held)):
            index.put_all(directory, {name: entry.pack() for name, entry in named.items()}, held=held)
            return model | {join(directory, name): (entry, held) for name, entry in named.items()}
        case ("fill", bytes(directory), int(count), Entry() as entry):
            filled = [b"%b/%d" % (directory, number) for number in range(count)]
            for path in filled:
                index.put(path, entry, held=True)
            return model | dict.fromkeys(filled, (entry, True))
        case ("empty", bytes(directory), int(count)):
            emptied = {b"%b/%d" % (directory, number) for number in range(count)}
            for path in emptied:
                index.remove(path)
            return {path: value for path, value in model.items() if path not in emptied}
        case ("remove", bytes(path)):
            index.remove(path)
            return {other: value for other, value in model.items() if other != path}
        case ("move", bytes(old), bytes(new)):
            after = _move(model, old, new)
            if after is None:
                with pytest.raises(ValueError):
                    index.move(old, new)
                return model
            index.move(old, new)
            return after
    index.release_all()
    return {path: (entry, False) for path, (entry, _) in model.items()}


def _assert_same(index: Index, model: _Model) -> None:
    assert {path: (entry, held) for path, entry, held in index.items()} == model
    assert len(list(index.items())) == len(index) == len(model)
    files = [(entry, held) for entry, held in model.values() if entry.kind is not Kind.DIRECTORY]
    assert (index.files, index.file_bytes) == (len(files), sum(entry.size for entry, _ in files))
    assert index.held_files == sum(held for _, held in files)
    for path, (entry, held) in model.items():
        assert (index.get(path), index.is_held(path)) == (entry, held)
    for directory in {b"", *model, *map(parent, model)}:
        names = [name_of(path) for path in model if parent(path) == directory]
        assert sorted(index.names(directory)) == sorted(names)
        below = list(index.below(directory))
        assert sorted(below) == sorted(path for path in model if _is_below(path, directory))
        place = {path: number for number, path in enumerate(below)}
        assert all(place[path] < place.get(parent(path), len(below)) for path in below)


@given(_operations)
def test_the_index_is_a_dictionary(operations: list[tuple[object, ...]]) -> None:
    index, model = Index(), _Model()
    for operation in operations:
        model = _apply(index, model, operation)
    _assert_same(index, model)
    for path in list(model):
        index.remove(path)
    _assert_same(index, {})


@given(
    st.dictionaries(_names, entries, max_size=40),
    st.lists(_any_path | st.binary(max_size=9).map(lambda path: path.lstrip(b"/"))),
)
def test_what_was_not_put_is_not_there(known: dict[bytes, Entry], asked: list[bytes]) -> None:
    index = Index()
    for name, entry in known.items():
        index.put(name, entry, held=True)
    pairs = [one + b"\0" + other for one in known for other in known]
    for path in {*asked, *pairs, *(name[:-1] for name in known), *(name[1:] for name in known)} - known.keys():
        assert index.get(path) is None
        assert not index.is_held(path)
        index.remove(path)
    assert len(index) == len(known)


_states = st.dictionaries(_names, st.tuples(entries, st.booleans()), max_size=20)


@given(_states, st.dictionaries(_names, entries, max_size=20), st.integers(0, 300), paths)
def test_compare_finds_what_differs(
    known: dict[bytes, tuple[Entry, bool]], others: dict[bytes, Entry], more: int, directory: bytes
) -> None:
    index = Index()
    index.put(join(directory, b"holds/something"), _FILE, held=True)
    numbered = {b"%d" % number: _FILE for number in range(more)}
    for name, (entry, held) in [*known.items(), *((name, (entry, True)) for name, entry in numbered.items())]:
        index.put(join(directory, name), entry, held=held)
    newer = {name: entry._replace(since_ns=entry.since_ns + 1) for name, (entry, _) in list(known.items())[::2]}
    found = numbered | newer | others | {b"holds": _DIRECTORY}
    found.pop(b"7", None)
    changed, missing = index.compare(directory, found)
    paths_of = {name: join(directory, name) for name in found}
    assert sorted(changed) == sorted(
        name
        for name, entry in found.items()
        if (old := index.get(paths_of[name])) is None or not old.same_as(entry) or not index.is_held(paths_of[name])
    )
    of_this_home = {name for name in index.names(directory) if index.is_held(join(directory, name))}
    assert sorted(missing) == sorted(of_this_home - found.keys())


def test_a_directory_that_nobody_knows_differs_in_all_it_has() -> None:
    assert Index().compare(b"new", {b"file": _FILE}) == ([b"file"], [])


def test_below_names_children_before_their_directory_and_nothing_beside_it() -> None:
    index = Index()
    for path in (b"d", b"d/e", b"d/e/f", b"d/g", b"dx", b"other"):
        index.put(path, _DIRECTORY, held=True)
    found = list(index.below(b"d"))
    assert sorted(found) == [b"d/e", b"d/e/f", b"d/g"]
    assert found.index(b"d/e/f") < found.index(b"d/e")


def test_what_is_in_a_directory_without_an_entry_is_below_the_directory_above() -> None:
    index = Index()
    index.put(b"a/b/c/file", _FILE, held=True)
    assert list(index.below(b"a")) == [b"a/b/c/file"]
    assert index.names(b"a") == []
    index.put(b"a/b", _DIRECTORY, held=False)
    index.remove(b"a/b/c/file")
    assert list(index.below(b"")) == [b"a/b"]


def test_a_tree_can_be_removed_while_it_is_listed() -> None:
    index = Index()
    for number in range(1000):
        index.put(b"top/%d/%d" % (number % 7, number), _FILE, held=True)
        index.put(b"top/%d" % (number % 7), _DIRECTORY, held=True)
    for path in index.below(b"top"):
        index.remove(path)
    assert len(index) == 0


def test_a_tree_deeper_than_pythons_stack_has_something_below_and_moves() -> None:
    index = Index()
    path = b"/".join([b"d"] * 3000)
    index.put(path, _FILE, held=True)
    for depth in range(1, 3000):
        index.put(b"/".join([b"d"] * depth), _DIRECTORY, held=True)
    assert len(list(index.below(b"d"))) == 2999
    index.move(b"d", b"e")
    assert index.get(b"e" + path[1:]) == _FILE
    index.remove(b"e" + path[1:])
    assert len(index) == 2999


@pytest.mark.parametrize("path", [b"", b"/", b"a/", b"a//b", b"a\0b", b"a\0/b"])
def test_what_is_no_path_cannot_be_put(path: bytes) -> None:
    index = Index()
    with pytest.raises(ValueError):
        index.put(path, _FILE, held=True)
    index.put(b"file", _FILE, held=True)
    with pytest.raises(ValueError):
        index.move(b"file", path)
    assert [*index.items()] == [(b"file", _FILE, True)]


def test_another_index_replaces_this_one() -> None:
    index, other = Index(), Index()
    index.put(b"old", _FILE, held=True)
    other.put(b"d/new", _FILE, held=False)
    index.replace(other)
    _assert_same(index, {b"d/new": (_FILE, False)})


@pytest.mark.parametrize("per_directory", [100, 5_000])
def test_a_file_costs_little_more_than_its_name_and_one_record(per_directory: int) -> None:
    tracemalloc.start()
    try:
        index = Index()
        for number in range(5_000):
            index.put(b"directory-%05d/%013d" % (number // per_directory, number), _FILE, held=True)
        assert tracemalloc.get_traced_memory()[0] / 5_000 < 70
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("at_once", [True, False])
def test_what_is_done_to_one_of_many_files_touches_few(at_once: bool) -> None:
    index = Index()
    numbered = {b"%d" % number: _FILE.pack() for number in range(4_000)}
    if at_once:
        index.put_all(b"flat", numbered, held=True)
    else:
        for name, packed in numbered.items():
            index.put_packed(b"flat/" + name, packed, held=True)
    tracemalloc.start()
    try:
        for number in (7, 2_007, 50_007):
            index.put(b"flat/%d" % number, _FILE, held=False)
            index.remove(b"flat/%d" % number)
            assert index.get(b"flat/%d" % number) is None
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


def test_what_was_emptied_costs_nothing_and_its_place_is_free() -> None:
    tracemalloc.start()
    try:
        index = Index()
        index.put(b"top", _DIRECTORY, held=True)
        for number in range(1_000):
            index.put(b"top/flat/%d" % number, _FILE, held=True)
            index.put(b"top/deep/%d/%d" % (number % 50, number), _FILE, held=True)
        for path in index.below(b"top"):
            index.remove(path)
        assert tracemalloc.get_traced_memory()[0] < 20_000
    finally:
        tracemalloc.stop()
    index.remove(b"top")
    index.put(b"other/file", _FILE, held=True)
    index.move(b"other", b"top")
    _assert_same(index, {b"top/file": (_FILE, True)})


def test_directories_put_at_once_keep_what_they_hold() -> None:
    index = Index()
    named = [b"%d" % number for number in range(10)]
    for name in named:
        index.put(name + b"/file", _FILE, held=True)
    index.put_all(b"", {name: _DIRECTORY.pack() for name in named}, held=False)
    index.move(b"7", b"moved")
    model: _Model = {(b"moved" if name == b"7" else name): (_DIRECTORY, False) for name in named}
    _assert_same(index, model | {name + b"/file": (_FILE, True) for name in model})


def test_files_put_at_once_a_second_time_count_once() -> None:
    index = Index()
    named = [b"%d" % number for number in range(10)]
    for held in (True, False):
        index.put_all(b"d", {name: _FILE.pack() for name in named}, held=held)
    _assert_same(index, dict.fromkeys((b"d/" + name for name in named), (_FILE, False)))


@pytest.mark.parametrize("new", [b"old/below", b"taken", b"half"])
def test_a_directory_moves_only_to_a_free_place(new: bytes) -> None:
    index = Index()
    model: _Model = dict.fromkeys((b"old/file", b"taken", b"half/file"), (_FILE, True))
    for path in model:
        index.put(path, _FILE, held=True)
    with pytest.raises(ValueError):
        index.move(b"old", new)
    index.move(b"unknown", new)
    index.move(b"old", b"old")
    _assert_same(index, model)


def test_what_is_not_held_is_found_among_much_that_is() -> None:
    index = Index()
    for number in range(300):
        index.put(b"d%d/held" % (number % 7), Entry(Kind.FILE, 0o600, 1, 2, 3, 4, 5), held=True)
    lost = Entry(Kind.FILE, 0o600, 6, 7, 0, 0, 8)
    index.put(b"d3/lost", lost, held=False)
    index.put(b"elsewhere/lost", lost, held=False)
    assert dict(index.packed_items(held=False)) == {b"d3/lost": lost.pack(), b"elsewhere/lost": lost.pack()}
    assert len(dict(index.packed_items(held=True))) == 7
