"""When vanishing is too much to believe, and when it only looks like that."""

from __future__ import annotations

import pytest

from sidecar.saving.brake import SMALL, WINDOW_S, Brake


def _files(count: int, first: int = 0) -> list[bytes]:
    return [b"f%d" % number for number in range(first, first + count)]


@pytest.mark.parametrize(
    ("vanishing", "held", "allowed"),
    [
        (0, 0, True),
        (1, 1, True),
        (SMALL - 1, SMALL - 1, True),
        (SMALL, SMALL, False),
        (5, 10, True),
        (6, 10, False),
        (500, 1000, True),
        (501, 1000, False),
    ],
)
def test_over_half_of_the_files_at_once_is_too_much(vanishing: int, held: int, allowed: bool) -> None:
    assert Brake().allows(_files(vanishing), held, 0.0) is allowed


def test_deletions_close_together_count_as_one() -> None:
    brake = Brake()
    assert brake.allows(_files(40), 100, 0.0)
    brake.note(_files(40), 0.0)
    assert not brake.allows(_files(20, 40), 60, 1.0), "60 of 100 within a minute"
    assert brake.allows(_files(20, 40), 60, WINDOW_S + 1.1), "20 of 60 a minute later"


def test_a_file_that_is_made_and_deleted_over_and_over_is_one_file() -> None:
    brake = Brake()
    for second in range(50):
        assert brake.allows([b"temporary"], 11, float(second))
        brake.note([b"temporary"], float(second))
    assert brake.allows(_files(4), 10, 50.0)
    assert not brake.allows(_files(6), 10, 50.0), "the temporary one and six others, of eleven"
