"""Every call of a life in turn, and all the ways in which one can fail."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

from sidecar.errors import EXIT_SAFE
from tests.faults.faulty import Fault, FaultyFileSystem
from tests.faults.scene import Life, Scene

FAULTS = {
    "EIO": Fault(number=errno.EIO),
    "ENOSPC": Fault(number=errno.ENOSPC),
    "EDQUOT": Fault(number=errno.EDQUOT),
    "ESTALE": Fault(number=errno.ESTALE),
    "EIO from then on": Fault(number=errno.EIO, lasting=True),
    "ENOSPC from then on": Fault(number=errno.ENOSPC, lasting=True),
    "short write": Fault(short=True),
    "killed before": Fault(killed="before"),
    "killed after": Fault(killed="after"),
}


def every_call(
    begin: Callable[[], Scene], life: Life, *, step: int, offset: int = 0, armed: bool = True, thread: str = ""
) -> Iterator[tuple[Scene, int | None, FaultyFileSystem]]:
    """A scene, the exit code of a life in it, and what it lived with.

    For every ``step``-th pair of a call of the life and a fault, in turn, from the one at ``offset``. With a ``step``
    that the number of faults does not divide, every fault has its turn. ``armed`` and ``thread`` say which calls.
    """
    faults = list(FAULTS.values())
    for turn in itertools.count(len(faults) + offset % step, step):
        at, which = divmod(turn, len(faults))
        scene = begin()
        fs = FaultyFileSystem(replace(faults[which], at=at), kind=scene.kind, armed=armed, thread=thread)
        code = scene.live(life, fs)
        if not fs.happened:
            assert code == EXIT_SAFE
            return
        yield scene, code, fs
