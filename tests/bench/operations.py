"""What an idle sidecar does on Persist: system calls of the real process, counted by strace.

strace prints the path behind every descriptor (``-y``), so that a call counts whether it names Persist or holds it.
Only calls that touch neither are missed: none reaches a file server.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.bench import targets
from tests.bench.figures import Figure, goal
from tests.bench.peers import Peers
from tests.bench.progress import Progress
from tests.bench.scratch import Scratch
from tests.bench.sidecars import Sidecar
from tests.bench.sizes import Sizes
from tests.bench.trees import change, make_tree

WHAT = (
    "system calls of the idle sidecar and its helpers that name something on Persist or hold it open, by strace; the "
    "control is one changed file, which must show"
)
_CALL = re.compile(rb"^\d+ +(\d+\.\d+) (\w+)\(")
_LEASE = re.compile(rb'[/"][^/"<> ]*lease')
_WRITES = {"write", "writev", "pwrite64", "pwritev", "pwritev2", "rename", "renameat", "renameat2"}
_SETTLE_S = 5.0


class BlindTraceError(Exception):
    """The tracer did not see what certainly happened: that it saw nothing else proves nothing."""


def measure_persist_operations(scratch: Scratch, peers: Peers, sizes: Sizes, progress: Progress) -> Figure:
    """Calls by name while idle, but for the lease and of the lease. Raises ``BlindTraceError``."""
    figure: Figure = {"what": WHAT, "method": "strace", "files": sizes.operations_files, "idle_s": sizes.operations_s}
    reason = _why_no_trace()
    if reason is not None:
        nothing = dict.fromkeys(("operations_but_lease", "lease_writes_per_minute", "operations_by_name"))
        return {**figure, **nothing, "reasons": {"strace": reason}}
    tree = make_tree(scratch.directory("home"), sizes.operations_files)
    persist, trace = scratch.directory("persist"), scratch.directory("trace") / "calls"
    # -D: the tracer is the grandchild, so that signals reach the sidecar. -s 0: no content, whatever it contains.
    tracer = ["strace", "-D", "-f", "-ttt", "-y", "-s", "0", "-e", "trace=%file,%desc,sync", "-o", str(trace)]
    progress.say(f"persist_operations: first copy of {tree.files} files, traced")
    with Sidecar(tree.root, persist, tracer=tracer) as sidecar:
        sidecar.wait_until_safe(tree.files)
        time.sleep(min(_SETTLE_S, sizes.operations_s))
        progress.say(f"persist_operations: idle for {sizes.operations_s} s")
        idle_from = time.time()
        time.sleep(sizes.operations_s)
        idle_to = time.time()
        name = tree.name(change(tree, 1, seed=1)[0])
        sidecar.wait_for(name, (tree.root / name).read_bytes())
        control_to = time.time()
    with trace.open("rb") as lines:
        calls = [call for call in calls_below(persist, lines) if idle_from <= call[0] < control_to]
    if all(at < idle_to for at, _, _ in calls):
        raise BlindTraceError("strace saw no call on Persist while a file was saved")
    idle = [(name, is_lease) for at, name, is_lease in calls if at < idle_to]
    lease_writes = sum(1 for name, is_lease in idle if is_lease and name in _WRITES)
    return {
        **figure,
        "operations_but_lease": goal(sum(1 for _, is_lease in idle if not is_lease), targets.OPERATIONS_BUT_LEASE),
        "lease_writes_per_minute": goal(lease_writes * 60 / sizes.operations_s, targets.LEASE_WRITES_PER_MINUTE),
        "operations_by_name": dict(Counter(name for name, _ in idle).most_common()),
        "control_operations_of_one_changed_file": len(calls) - len(idle),
        "reasons": {},
    }


def calls_below(persist: Path, lines: Iterable[bytes]) -> list[tuple[float, str, bool]]:
    """When (seconds since 1970) which call touched ``persist`` or what is in it, and whether it was the lease."""
    path = os.fsencode(persist)
    found = []
    for line in lines:
        call = _CALL.match(line)
        _, below, rest = line.partition(path)
        if call and below:
            found.append((float(call[1]), call[2].decode(), _LEASE.search(rest) is not None))
    return found


def _why_no_trace() -> str | None:
    """Why strace cannot be used; None where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-D", "-f", "-o", os.devnull, "true"], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"strace cannot trace here: {tried.stderr.strip()[-200:]}"
