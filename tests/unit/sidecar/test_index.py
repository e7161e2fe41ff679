"""The index says what a plain dictionary would say, in less memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.entry import Entry, Kind, parent
from sidecar.index import Index
from tests.unit.sidecar.models import entries, paths

_operations = st.lists(
    st.tuples(st.just("put"), paths, entries, st.booleans())
    | st.tuples(st.just("remove"), paths)
    | st.tuples(st.just("release")),
    max_size=30,
)


@given(_operations)
def test_the_index_is_a_dictionary(operations: list[tuple[object, ...]]) -> None:
    index, model = Index(), dict[bytes, tuple[Entry, bool]]()
    for operation in operations:
        match operation:
            case ("put", bytes(path), Entry() as entry, bool(held)):
                index.put(path, entry, held=held)
                model[path] = (entry, held)
            case ("remove", bytes(path)):
                index.remove(path)
                model.pop(path, None)
            case _:
                index.release_all()
                model = {path: (entry, False) for path, (entry, _) in model.items()}
    assert {path: (entry, held) for path, entry, held in index.items()} == model
    assert len(index) == len(model)
    files = [(entry, held) for entry, held in model.values() if entry.kind is not Kind.DIRECTORY]
    assert (index.files, index.file_bytes) == (len(files), sum(entry.size for entry, _ in files))
    assert index.held_files == sum(held for _, held in files)
    for path, (entry, held) in model.items():
        assert (index.get(path), index.is_held(path)) == (entry, held)
    for directory in {parent(path) for path in model}:
        assert sorted(index.names(directory)) == sorted(p.rpartition(b"/")[2] for p in model if parent(p) == directory)


def test_below_names_children_before_their_directory_and_nothing_beside_it() -> None:
    index = Index()
    directory = Entry(Kind.DIRECTORY, 0o755, 0, 0, 0, 0, 0)
    for path in (b"d", b"d/e", b"d/e/f", b"d/g", b"dx", b"other"):
        index.put(path, directory, held=True)
    found = list(index.below(b"d"))
    assert sorted(found) == [b"d/e", b"d/e/f", b"d/g"]
    assert found.index(b"d/e/f") < found.index(b"d/e")


def test_a_tree_deeper_than_pythons_stack_has_something_below() -> None:
    index = Index()
    directory = Entry(Kind.DIRECTORY, 0o755, 0, 0, 0, 0, 0)
    path = b"d"
    for _ in range(3000):
        index.put(path, directory, held=True)
        path += b"/d"
    assert len(list(index.below(b"d"))) == 2999
