"""When the process must be gone, for everything that it may have been told."""

from __future__ import annotations

import pytest

from sidecar.signals import Signals

INF = float("inf")


@pytest.mark.parametrize(
    ("noticed_at", "ended_at", "cut_at", "grace_s", "deadline_s"),
    [
        (None, None, None, 120, INF),
        (5.0, None, None, 120, INF),
        (None, 100.0, None, 120, 219.0),
        (99.0, 100.0, None, 120, 218.0),
        (99.0, 100.0, None, 1, 99.5 + 1.0),
        (None, 100.0, None, 1, 100.5),
        # A notebook that ignores its SIGTERM: the notice's deadline is over, and the kubelet gives two seconds more.
        (100.0, 219.9, None, 120, 220.9),
        (100.0, 218.5, None, 120, 219.5),
        (100.0, 217.0, None, 120, 219.0),
        # The notice was void.
        (100.0, 220.0, None, 120, 339.0),
        (100.0, 150.0, 151.0, 120, 152.0),
    ],
)
def test_the_deadline_counts_from_the_first_word_and_leaves_what_a_kubelet_always_gives(
    noticed_at: float | None, ended_at: float | None, cut_at: float | None, grace_s: float, deadline_s: float
) -> None:
    signals = Signals()
    signals.noticed_at, signals.ended_at, signals.cut_at = noticed_at, ended_at, cut_at
    assert signals.deadline_s(grace_s) == pytest.approx(deadline_s)
