"""What the watch told: one entry a path, and what is lost is known to be lost."""

from sidecar.backup.moves import Move
from sidecar.home.changes import Changes
from sidecar.home.watch import What


def test_only_the_first_change_wakes() -> None:
    changes = Changes()
    assert changes.add(b"a", What.CHANGED)
    assert not changes.add(b"a", What.CHANGED)
    assert not changes.add(b"b", What.APPEARED)
    assert changes.take() == ({b"a": What.CHANGED, b"b": What.APPEARED}, [], False)
    assert changes.take() == ({}, [], False)
    assert changes.add(b"c", What.CHANGED)


def test_a_file_counts_as_open_until_it_is_closed() -> None:
    changes = Changes()
    for what in (What.CHANGED, What.WRITTEN, What.CLOSED):
        changes.add(b"closed", what)
    for what in (What.WRITTEN, What.CLOSED, What.WRITTEN):
        changes.add(b"open", what)
    paths, _, _ = changes.take()
    assert What.CLOSED in paths[b"closed"]
    assert What.WRITTEN not in paths[b"closed"]
    assert What.WRITTEN in paths[b"open"]
    assert What.CLOSED not in paths[b"open"]


def test_more_than_can_be_remembered_is_lost_and_says_so() -> None:
    changes = Changes()
    for number in range(60_000):
        changes.add(b"%d" % number, What.CHANGED)
    paths, _, lost = changes.take()
    assert len(paths) == 50_000
    assert lost
    assert changes.take() == ({}, [], False)


def test_moves_keep_their_order() -> None:
    changes = Changes()
    changes.add_move(Move(1, b"a", b"b"))
    changes.add_move(Move(2, b"b", b"c"))
    changes.lose()
    assert changes.take() == ({}, [Move(1, b"a", b"b"), Move(2, b"b", b"c")], True)
