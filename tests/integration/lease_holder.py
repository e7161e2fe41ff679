"""A process that wants the lease in a directory, and says on its standard output what becomes of it.

``python -m tests.integration.lease_holder DIRECTORY POD_UID ROUNDS``: looks until it is there, then beats and checks,
``ROUNDS`` times (0: for ever), and gives it back.
"""

from __future__ import annotations

import os
import sys
import time

from sidecar.backup.holder import this_process
from sidecar.backup.lease import Lease, Newcomer, Taken
from sidecar.clock import Clock
from sidecar.errors import Fenced
from sidecar.fsops import FileSystem

INTERVAL_S = 1.0
_LOOK_S = 0.1


def main(directory: str, pod_uid: str, rounds: int) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    lease = Lease(Newcomer(FileSystem(), Clock(), fd, this_process(pod_uid)))
    print("looking", flush=True)
    while not isinstance(found := lease.look(), Taken):
        time.sleep(_LOOK_S)
    lease.beat(INTERVAL_S)
    print(f"taken {found.record.generation} {found.reason.name}", flush=True)
    done = 0
    try:
        while not rounds or done < rounds:
            lease.check()
            if done % 5 == 0:
                lease.beat(INTERVAL_S)
            time.sleep(_LOOK_S)
            done += 1
        lease.release()
    except Fenced as fenced:
        print(f"fenced {fenced}", flush=True)
        sys.exit(fenced.exit_code)
    print("released", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
