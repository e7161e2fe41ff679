"""What happens when very many files appear at once, and how it is afterwards."""

from __future__ import annotations

import os
import time

from tests.bench import targets
from tests.bench.figures import Figure, goal, rounded
from tests.bench.idle import idle_cpu_percent
from tests.bench.peers import Peers
from tests.bench.progress import Progress
from tests.bench.scratch import Scratch
from tests.bench.sidecars import Sidecar
from tests.bench.sizes import Sizes
from tests.bench.trees import check_copy, make_tree

WHAT = (
    "many files are created at once in a running sidecar; then, while it saves them, one more, and the seconds until "
    "that one is safe; when all is safe, the idle processor time in percent of one core"
)
_BEFORE_FILES = 1_000


def measure_burst(scratch: Scratch, peers: Peers, sizes: Sizes, progress: Progress) -> Figure:
    """Seconds and percent. Raises ``IncompleteCopyError`` where one of the files was lost."""
    files = sizes.burst_files
    home = scratch.directory("home")
    make_tree(home, _BEFORE_FILES)
    with Sidecar(home, scratch.directory("persist")) as sidecar:
        sidecar.wait_until_safe(_BEFORE_FILES)
        progress.say(f"burst: {files} files at once")
        burst = home / "burst"
        started_s = time.monotonic()
        tree = make_tree(burst, files)
        created_s = time.monotonic()
        content = os.urandom(512).hex().encode()
        (home / "after.txt").write_bytes(content)
        new_file_s = sidecar.wait_for("after.txt", content)
        sidecar.wait_until_safe(_BEFORE_FILES + files + 1)
        safe_s = time.monotonic()
        check_copy(tree, sidecar.mirror / "burst")
        progress.say("burst: idle again")
        time.sleep(min(10.0, sizes.idle_s))
        percent, window_s = idle_cpu_percent(sidecar, sizes)
        status = sidecar.status()
    promised = files == targets.BURST_FILES
    return {
        "what": WHAT,
        "files": files,
        "created_in_s": rounded(created_s - started_s),
        "new_file_safe_s": goal(new_file_s, targets.BURST_NEW_FILE_S if promised else None),
        "all_safe_after_creation_s": rounded(safe_s - created_s),
        "overflows": status["watch"]["overflows"],
        "idle_window_s": window_s,
        "idle_cpu_percent": goal(percent, targets.BURST_IDLE_CPU_PERCENT if promised else None),
    }
