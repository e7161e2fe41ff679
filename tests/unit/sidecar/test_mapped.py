"""Which files may be written without any event."""

from __future__ import annotations

from sidecar.home.mapped import Mapped

_INTERVAL_S = 60.0


def test_a_file_that_was_closed_before_anybody_saw_it_open_is_not_one() -> None:
    mapped = Mapped()
    mapped.closed(b"f", 0.0)
    assert b"f" not in mapped
    assert mapped.paths() == []


def test_whoever_closes_a_file_may_not_be_the_only_one_who_has_it_open() -> None:
    mapped = Mapped()
    mapped.opened(b"f")
    mapped.closed(b"f", 0.0)
    mapped.walked(119.0, _INTERVAL_S)
    assert b"f" in mapped
    mapped.closed(b"f", 119.0)
    mapped.walked(180.0, _INTERVAL_S)
    assert mapped.paths() == [b"f"]
    mapped.walked(240.0, _INTERVAL_S)
    assert b"f" not in mapped


def test_what_nobody_closed_is_never_forgotten_for_its_age() -> None:
    mapped = Mapped()
    mapped.closed(b"f", 0.0)
    mapped.opened(b"f")
    mapped.walked(1e9, _INTERVAL_S)
    assert b"f" in mapped


def test_a_mass_of_closed_files_costs_little_and_displaces_none_that_is_open() -> None:
    mapped = Mapped()
    mapped.opened(b"array.npy")
    for number in range(1000):
        mapped.opened(b"%d" % number)
        mapped.closed(b"%d" % number, float(number))
    assert b"array.npy" in mapped
    assert b"999" in mapped
    assert len(mapped.paths()) < 500


def test_what_is_open_is_bounded_too() -> None:
    mapped = Mapped()
    for number in range(20_000):
        mapped.opened(b"%d" % number)
    assert b"0" not in mapped
    assert b"19999" in mapped
    assert len(mapped.paths()) == 10_000
