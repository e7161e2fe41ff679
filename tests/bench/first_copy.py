"""How long the first copy of a tree of small files takes, durable and not."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tests.bench import targets
from tests.bench.commands import in_turn, rest
from tests.bench.figures import Figure, Series, beside, ratio
from tests.bench.ours import Ours, timed
from tests.bench.peers import Peers
from tests.bench.progress import Progress
from tests.bench.scratch import Scratch
from tests.bench.sidecars import back_up
from tests.bench.sizes import Sizes
from tests.bench.trees import Tree, check_copy, make_tree

WHAT = (
    "seconds for a first copy onto an empty place. ours: the engine, from its start until all is safe; ours_process: "
    "`sidecar backup` as a process, from its start to its end; peers: the whole process."
)


def measure_first_copy(scratch: Scratch, peers: Peers, sizes: Sizes, progress: Progress) -> Figure:
    """Medians of everybody's first copies, each onto a new place. Raises ``IncompleteCopyError``."""
    files = sizes.first_copy_files
    progress.say(f"first_copy: making {files} files")
    tree = make_tree(scratch.directory("home"), files)
    series = {name: Series(durable=True) for name in ("ours", "ours_process")}
    series |= {peer.name: Series(peer.durable) for peer in peers.copies}
    for round_ in range(sizes.first_copy_rounds):
        place = scratch.directory(f"first-copy-{round_}")
        turns = [
            partial(_ours, series["ours"], tree, place / "ours"),
            partial(_ours_process, series["ours_process"], tree, place / "ours-process"),
        ]
        for peer in peers.copies:
            peer.ready(place / peer.name)
            turns.append(partial(peer.measure_tree, series[peer.name], tree, place / peer.name))
        for turn in in_turn(turns, round_):
            progress.say(f"first_copy: {files} files, round {round_ + 1}")
            rest(sizes.rest_s)
            turn()
        for peer in peers.copies:
            if peer.plain:
                scratch.donate(place / peer.name, files)
    target = targets.FIRST_COPY_TO_RSYNC_FSYNC if files == targets.FIRST_COPY_FILES else None
    return {
        "what": WHAT,
        "files": files,
        **beside(series),
        "ours_to_rsync_fsync_ratio": ratio(series, "rsync_fsync", target),
        "ours_process_to_rsync_fsync_ratio": ratio(series, "rsync_fsync", target, ours="ours_process"),
    }


def _ours(series: Series, tree: Tree, persist: Path) -> None:
    persist.mkdir()
    started: list[Ours] = []

    def copy() -> None:
        started.append(Ours(tree.root, persist))
        started[0].first_copy()

    try:
        series.seconds.append(timed(copy))
    finally:
        for each in started:
            each.close()
    check_copy(tree, persist / "Backup" / "default")


def _ours_process(series: Series, tree: Tree, persist: Path) -> None:
    persist.mkdir()
    ran = back_up(tree.root, persist)
    series.seconds.append(ran.seconds)
    series.peak_rss_bytes.append(ran.peak_rss_bytes)
    check_copy(tree, persist / "Backup" / "default")
