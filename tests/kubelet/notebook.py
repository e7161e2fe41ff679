"""A stand-in for the notebook's container: somebody works in the home until the process ends, as it is told to.

    python -m tests.kubelet.notebook HOME ends | stays

A new file every 50 ms. SIGTERM makes it write ``last.ipynb`` and end within half a second, or, where it ``stays``,
nothing at all; SIGUSR2 is the user's own File → Shut Down.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

EVERY_S = 0.05
ENDS_AFTER_S = 0.4
LAST = "last.ipynb"


def content(name: str) -> str:
    """The whole content of the file ``name``: what is less is torn."""
    return f"{name}\n" * 400


def work(home: Path, *, stays: bool) -> None:
    """Returns when the notebook has ended; a killed one never does."""
    told: list[int] = []
    signal.signal(signal.SIGUSR2, lambda number, _frame: told.append(number))
    signal.signal(signal.SIGTERM, signal.SIG_IGN if stays else lambda number, _frame: told.append(number))
    until_s = float("inf")
    while time.monotonic() < until_s:
        name = f"work-{time.time_ns()}.py"
        (home / name).write_text(content(name))
        if told and until_s == float("inf"):
            until_s = time.monotonic() + ENDS_AFTER_S
        time.sleep(EVERY_S)  # the pace of the work
    (home / LAST).write_text(content(LAST))


if __name__ == "__main__":
    work(Path(sys.argv[1]), stays=sys.argv[2] == "stays")
