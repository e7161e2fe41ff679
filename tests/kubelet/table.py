"""docs/ends.md: what is safe after each end, as it was played."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.kubelet.ends import ENDS, End, Fate
from tests.processes import CHECKOUT

PAGE: Path = CHECKOUT / "docs" / "ends.md"

_ABOVE = """\
# How a pod ends, and what is safe then

Made by `python -m tests.kubelet`: a model of a kubelet, with the times that were measured on a real one (1.36), plays
each end on a real sidecar and a notebook that writes a file every 50 ms. Then the user comes back to a new, empty home.
`tests/kubelet/test_ends.py` plays them again and compares every row.

| The end | What the kubelet does | Work that is lost | What the hub is told |
|---|---|---|---|
"""

_BELOW = """
In none of them is a file torn, and nothing is lost that was older than 3 seconds: saving goes on all the time, so that
an end that nobody announces finds little left to save. What is unknown to the hub is shown as unknown, never as safe.

The sidecar's preStop hook is the *notice*: it fires together with the notebook's SIGTERM, and makes what has changed so
far safe at once. A pod has the grace of the policy (`storage.grace_s`, 120 s) only where whoever ends it lets it: a
full disk, a forced delete and a node that shuts down do not.
"""


def row(end: End, fate: Fate) -> str:
    """The line of ``end``."""
    return f"| {end.title} | {end.happens} | {fate.lost} | {fate.told} |"


def page(fates: Mapping[str, Fate]) -> str:
    """The whole page, for the fate of every end by its name."""
    return _ABOVE + "".join(row(end, fates[end.name]) + "\n" for end in ENDS) + _BELOW


def rows() -> list[str]:
    """The lines of the page as it is."""
    return [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
