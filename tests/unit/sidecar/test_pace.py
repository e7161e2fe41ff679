"""A large file that changes all the time costs a bounded share of the time."""

from sidecar.saving.pace import Pace


def test_a_file_that_was_never_copied_waits_for_nothing() -> None:
    assert not Pace().holds_back(b"big", 5.0)


def test_a_copy_of_a_second_is_not_repeated_for_twenty() -> None:
    pace = Pace()
    pace.copied(b"big", 10.0, 11.0)
    assert pace.holds_back(b"big", 11.5)
    assert not pace.holds_back(b"other", 11.5)
    assert pace.next_due_s() == 31.0
    assert pace.take_due(30.9) == []
    assert pace.take_due(31.0) == [b"big"]
    assert not pace.holds_back(b"big", 31.0)
    assert pace.next_due_s() is None


def test_even_a_very_slow_copy_is_repeated_within_ten_minutes() -> None:
    pace = Pace()
    pace.copied(b"big", 0.0, 3600.0)
    assert pace.holds_back(b"big", 3601.0)
    assert pace.next_due_s() == 3600.0 + 600.0


def test_at_the_end_nothing_is_held_back() -> None:
    pace = Pace()
    pace.copied(b"big", 0.0, 100.0)
    assert pace.holds_back(b"big", 101.0)
    assert pace.waiting() == {b"big": 700.0}
    assert pace.take_all() == [b"big"]
    pace.is_off = True
    assert not pace.holds_back(b"big", 102.0)
    assert len(pace) == 0
    pace.is_off = False
    assert pace.holds_back(b"big", 103.0)


def test_what_it_remembers_is_bounded() -> None:
    pace = Pace()
    for number in range(5000):
        pace.copied(b"%d" % number, 0.0, 1000.0)
    assert not pace.holds_back(b"0", 1.0)
    assert pace.holds_back(b"4999", 1.0)
