"""How long k changed files among N take to be safe, beside tools that look at the whole tree."""

from __future__ import annotations

from pathlib import Path

from tests.bench import targets
from tests.bench.commands import in_turn, rest
from tests.bench.figures import Figure, Series, beside, goal, ratio
from tests.bench.ours import Ours, timed
from tests.bench.peers import Peer, Peers
from tests.bench.progress import Progress
from tests.bench.scratch import Scratch
from tests.bench.sizes import Sizes
from tests.bench.trees import change, check_copy, make_tree

WHAT = (
    "seconds to bring a copy up to date. Ours: the engine of a running sidecar, from the last change until it is safe "
    "(fsync, old contents kept as versions, journal), without the quiet period that events wait for. Peers: the whole "
    "process, started when ours is done. All see the same changes."
)


def measure_flush(
    scratch: Scratch, peers: Peers, sizes: Sizes, progress: Progress, *, ours: type[Ours] = Ours
) -> Figure:
    """Medians for each number of files and of changed files. Raises ``IncompleteCopyError`` where ours is not."""
    first, runs = [], []
    for files in sizes.flush_files:
        progress.say(f"flush: making {files} files")
        place = scratch.directory(f"flush-{files}")
        contest = _Contest(place, peers, sizes, progress, files=files, ours=ours)
        try:
            first.append(contest.first_copies())
            runs += [contest.flushes(changed) for changed in sizes.flush_changed if changed <= files]
        finally:
            contest.close()
        for peer in peers.backups:
            if peer.plain:
                scratch.donate(contest.copy(peer), files)
    return {"what": WHAT, "first_copies": first, "runs": runs, "growth": _growth(runs)}


class _Contest:
    """One home, and everybody's copy of it."""

    def __init__(
        self, place: Path, peers: Peers, sizes: Sizes, progress: Progress, *, files: int, ours: type[Ours]
    ) -> None:
        self._place, self._peers, self._sizes, self._progress = place, peers, sizes, progress
        home, persist = place / "home", place / "persist"
        home.mkdir()
        persist.mkdir()
        self._tree = make_tree(home, files)
        self._ours = ours(home, persist)

    def copy(self, peer: Peer) -> Path:
        return self._place / peer.name

    def first_copies(self) -> Figure:
        """One round: ``first_copy`` is the benchmark for it, and this shows how it grows."""
        tree = self._tree
        self._progress.say(f"flush: first copies of {tree.files} files")
        series = self._series()
        rest(self._sizes.rest_s)
        series["ours"].seconds.append(timed(self._ours.first_copy))
        check_copy(tree, self._ours.mirror)
        for peer in self._peers.backups:
            peer.ready(self.copy(peer))
            rest(self._sizes.rest_s)
            peer.measure_tree(series[peer.name], tree, self.copy(peer))
        return {"files": tree.files, **beside(series)}

    def flushes(self, changed: int) -> Figure:
        """``changed`` files have new contents in each round, and everybody saves them."""
        tree, series = self._tree, self._series()
        for round_ in range(self._sizes.flush_rounds):
            self._progress.say(f"flush: {changed} of {tree.files} files changed, round {round_ + 1}")
            # Ours is timed first: its clock starts with the change. The others find caches that are all the warmer.
            rest(max(1.0, self._sizes.rest_s))  # rsync compares whole seconds: a change needs one of its own
            chosen = change(tree, changed, seed=changed * 1000 + round_)
            series["ours"].seconds.append(timed(self._ours.flush))
            check_copy(tree, self._ours.mirror, chosen)
            for peer in in_turn(self._peers.backups, round_):
                rest(self._sizes.rest_s)
                peer.measure_tree(series[peer.name], tree, self.copy(peer), chosen)
        target = targets.FLUSH_TO_RSYNC.get((tree.files, changed))
        return {
            "files": tree.files,
            "changed": changed,
            **beside(series, targets.FLUSH_S.get(changed)),
            "ours_to_rsync_ratio": ratio(series, "rsync", target),
            "ours_to_rclone_ratio": ratio(series, "rclone"),
            "ours_to_restic_ratio": ratio(series, "restic"),
        }

    def _series(self) -> dict[str, Series]:
        return {"ours": Series(durable=True), **{peer.name: Series(peer.durable) for peer in self._peers.backups}}

    def close(self) -> None:
        self._ours.close()


def _growth(runs: list[Figure]) -> list[Figure]:
    """For each number of changed files: our seconds among the most files over those among the fewest."""
    found = []
    for changed in dict.fromkeys(run["changed"] for run in runs if run["changed"]):
        same = [run for run in runs if run["changed"] == changed]
        few, many = same[0], same[-1]
        if few is not many:
            value = many["ours"]["median_s"] / few["ours"]["median_s"]
            between = {"changed": changed, "from_files": few["files"], "to_files": many["files"]}
            found.append({**between, "ours_ratio": goal(value, targets.FLUSH_GROWTH)})
    return found
