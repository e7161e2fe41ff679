"""What is owed comes out in the order of what matters, and stays owed until it is safe."""

from sidecar.backup.moves import Move
from sidecar.entry import Entry, Kind
from sidecar.saving.jobs import APART_BYTES, Jobs, Wanted


def wanted(size: int = 100) -> Wanted:
    return Wanted(Entry(Kind.FILE, 0o644, size, 0, 0, 1, 0))


def taken(jobs: Jobs, most: int = 100, most_bytes: int = 1 << 40) -> list[bytes]:
    return [path for path, _ in jobs.take_batch(most, most_bytes)]


def test_what_is_fresh_goes_before_a_mass_and_what_matters_before_the_rest() -> None:
    jobs = Jobs()
    for path, bulk in [(b"mass.ipynb", True), (b"data.bin", False), (b"notes.md", False), (b"work.ipynb", False)]:
        jobs.add(path, wanted(), bulk=bulk)
    assert taken(jobs) == [b"work.ipynb", b"notes.md", b"data.bin"]
    assert jobs.waiting_in_mass() == 1
    assert taken(jobs) == [b"mass.ipynb"]


def test_a_batch_ends_at_its_number_or_its_bytes_and_is_never_empty() -> None:
    jobs = Jobs()
    for number in range(5):
        jobs.add(b"%d.bin" % number, wanted(1000), bulk=False)
    assert len(taken(jobs, most=2)) == 2
    assert len(taken(jobs, most_bytes=2500)) == 2
    assert len(taken(jobs, most_bytes=10)) == 1


def test_a_path_is_owed_once_however_often_it_changes_and_again_when_it_changes_while_it_is_copied() -> None:
    jobs = Jobs()
    for _ in range(3):
        jobs.add(b"a.py", wanted(), bulk=False)
    assert len(jobs) == 1
    assert jobs.paths() == [b"a.py"]
    assert taken(jobs) == [b"a.py"]
    assert not jobs.ready()
    jobs.add(b"a.py", wanted(), bulk=False)
    assert jobs.ready()
    assert taken(jobs) == [b"a.py"]


def test_what_could_not_be_saved_waits_again_as_it_is_now() -> None:
    jobs = Jobs()
    jobs.add(b"a.py", wanted(1), bulk=True)
    batch = jobs.take_batch(10, 1 << 40)
    jobs.add(b"a.py", wanted(2), bulk=False)  # it changed meanwhile
    jobs.put_back(batch)
    ((path, again),) = jobs.take_batch(10, 1 << 40)
    assert (path, again.entry.size) == (b"a.py", 2)
    assert taken(jobs) == []


def test_a_file_of_a_mass_that_changes_again_is_fresh() -> None:
    jobs = Jobs()
    for number in range(3):
        jobs.add(b"%d.bin" % number, wanted(), bulk=True)
    jobs.add(b"2.bin", wanted(7), bulk=False)
    assert taken(jobs, most_bytes=200) == [b"2.bin"]
    assert taken(jobs) == [b"0.bin", b"1.bin"]
    assert not jobs.ready()
    assert len(jobs) == 0


def test_a_file_that_grows_large_while_it_waits_is_one_large_file_and_no_small_one() -> None:
    jobs = Jobs()
    jobs.add(b"big.h5", wanted(10), bulk=True)
    jobs.add(b"big.h5", wanted(APART_BYTES + 1), bulk=True)
    assert taken(jobs) == []
    taken_large = jobs.take_large(())
    assert taken_large is not None
    assert taken_large[1].entry.size == APART_BYTES + 1
    assert not jobs.large_ready(())
    jobs.add(b"big.h5", wanted(APART_BYTES + 1), bulk=True)
    jobs.add(b"big.h5", wanted(10), bulk=True)
    assert not jobs.large_ready(())
    assert jobs.take_large(()) is None
    assert taken(jobs) == [b"big.h5"]


def test_what_is_dropped_is_not_owed() -> None:
    jobs = Jobs()
    jobs.add(b"a.py", wanted(), bulk=False)
    jobs.drop(b"a.py")
    jobs.drop(b"never.py")
    assert (len(jobs), jobs.paths(), taken(jobs)) == (0, [], [])


def test_a_large_file_is_in_nobodys_way_and_is_not_begun_twice() -> None:
    jobs = Jobs()
    jobs.add(b"big.h5", wanted(APART_BYTES + 1), bulk=False)
    jobs.add(b"small.h5", wanted(), bulk=False)
    assert taken(jobs) == [b"small.h5"]
    assert not jobs.large_ready({b"big.h5"})
    assert jobs.take_large({b"big.h5"}) is None
    first = jobs.take_large(())
    assert first is not None
    assert first[0] == b"big.h5"
    assert jobs.take_large(()) is None


def test_the_most_important_large_file_comes_first() -> None:
    jobs = Jobs()
    for path, size in [(b"b.bin", 300 << 20), (b"a.bin", 200 << 20), (b"huge.ipynb", 90 << 20)]:
        jobs.add(path, wanted(size), bulk=False)
    order = [jobs.take_large(()) for _ in range(3)]
    assert [each[0] for each in order if each] == [b"huge.ipynb", b"a.bin", b"b.bin"]


def test_a_directory_that_is_moved_on_was_moved_once() -> None:
    jobs = Jobs()
    jobs.add_move(Move(1, b"a", b"b"))
    jobs.add_move(Move(2, b"x", b"y"))
    jobs.add_move(Move(3, b"b", b"c"))
    assert jobs.moves == [Move(2, b"x", b"y"), Move(3, b"a", b"c")]
    assert len(jobs) == 2
    jobs.add_move(Move(4, b"c", b"a"))
    assert jobs.moves == [Move(2, b"x", b"y")]


def test_a_mass_is_one_only_where_nothing_is_fresh() -> None:
    jobs = Jobs()
    for number in range(10):
        jobs.add(b"%d" % number, wanted(), bulk=True)
    assert jobs.waiting_in_mass() == 10
    jobs.add(b"fresh", wanted(), bulk=False)
    assert jobs.waiting_in_mass() == 0


def test_a_batch_of_what_matters_much_does_not_wait_for_what_matters_less() -> None:
    jobs = Jobs()
    for number in range(100):
        jobs.add(b"%d.ipynb" % number, wanted(), bulk=False)
        jobs.add(b"%d.bin" % number, wanted(), bulk=False)
    assert {path.rpartition(b".")[2] for path in taken(jobs, most=1000)} == {b"ipynb"}
    assert {path.rpartition(b".")[2] for path in taken(jobs, most=1000)} == {b"bin"}
