"""How long one large file takes, beside ``cp``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tests.bench import targets
from tests.bench.commands import in_turn, rest
from tests.bench.figures import Figure, Series, beside, ratio
from tests.bench.ours import Ours, timed
from tests.bench.peers import Peer, Peers
from tests.bench.progress import Progress
from tests.bench.scratch import Scratch
from tests.bench.sizes import Sizes
from tests.bench.trees import IncompleteCopyError

WHAT = "seconds to copy one large file of random data onto an empty place; max_file_bytes is raised for it"
_NAME = "model.bin"
_BLOCK_BYTES = 16 << 20


def measure_large_file(scratch: Scratch, peers: Peers, sizes: Sizes, progress: Progress) -> Figure:
    """Medians of ours, ``cp``, and ``cp`` with an fsync. Raises ``IncompleteCopyError``."""
    count = sizes.large_file_bytes
    progress.say(f"large_file: making {count} bytes")
    home = scratch.directory("home")
    _make(home / _NAME, count)
    competitors = (peers.cp_file, peers.cp_file_fsync)
    series = {"ours": Series(durable=True), **{peer.name: Series(peer.durable) for peer in competitors}}
    for round_ in range(sizes.large_file_rounds):
        place = scratch.directory(f"large-{round_}")
        turns = [partial(_ours, series["ours"], home, place / "persist")]
        turns += [partial(_peer, peer, series[peer.name], home, place / peer.name) for peer in competitors]
        for turn in in_turn(turns, round_):
            progress.say(f"large_file: round {round_ + 1}")
            rest(sizes.rest_s)
            turn()
    target = targets.LARGE_FILE_TO_CP if count == targets.LARGE_FILE_BYTES else None
    return {
        "what": WHAT,
        "bytes": count,
        **beside(series),
        "ours_to_cp_ratio": ratio(series, "cp_file", target),
        "ours_to_cp_fsync_ratio": ratio(series, "cp_file_fsync"),
    }


def _make(path: Path, count: int) -> None:
    with path.open("wb") as file, open("/dev/urandom", "rb") as random:
        for at in range(0, count, _BLOCK_BYTES):
            file.write(random.read(min(_BLOCK_BYTES, count - at)))


def _ours(series: Series, home: Path, persist: Path) -> None:
    persist.mkdir()
    source = home / _NAME
    ours = Ours(home, persist, max_file_bytes=source.stat().st_size + 1)
    try:
        series.seconds.append(timed(ours.first_copy))
    finally:
        ours.close()
    _check_and_remove(source, ours.mirror / _NAME)


def _peer(peer: Peer, series: Series, home: Path, copy: Path) -> None:
    if peer.measure(series, home / _NAME, copy):
        _check_and_remove(home / _NAME, copy)


def _check_and_remove(source: Path, copied: Path) -> None:
    """The copy is whole. It makes room for the next: one file is no mass deletion."""
    with source.open("rb") as expected, copied.open("rb") as found:
        while block := expected.read(_BLOCK_BYTES):
            if found.read(_BLOCK_BYTES) != block:
                raise IncompleteCopyError(f"{copied} is not what {source} is")
    copied.unlink()
