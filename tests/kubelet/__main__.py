"""Plays every end and writes docs/ends.md: ``python -m tests.kubelet``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.kubelet.ends import ENDS, Fate, fate
from tests.kubelet.table import PAGE, page, row
from tests.kubelet.test_ends import SHORT_GRACE_S


def main() -> None:
    """The page is written; each row is shown when it is known."""
    fates: dict[str, Fate] = {}
    for end in ENDS:
        with tempfile.TemporaryDirectory() as top:
            fates[end.name] = fate(end, Path(top), SHORT_GRACE_S)
        print(row(end, fates[end.name]), flush=True)
    PAGE.write_text(page(fates))


if __name__ == "__main__":
    main()
