"""The times of a pod's start and end, which must fit into one another."""

from __future__ import annotations

START_TIMEOUT_S = 600
"""JupyterHub's own default of 60 s does not bring an image to a node."""


def times_problem(*, grace_s: int, start_timeout_s: float, restore_wait_s: float) -> str:
    """Why the settings contradict one another, as one sentence; empty if they do not.

    KubeSpawner waits for the end of a pod as long as for a start (``start_timeout``): with a longer grace it calls an
    end failed while files are still being saved. And a start waits for the predecessor's end and for the restore.
    """
    if start_timeout_s > grace_s + restore_wait_s:
        return ""
    return (
        f"start_timeout ({start_timeout_s:g} s) must be more than storage.grace_s of the policy ({grace_s} s) and "
        f"restore_wait_s ({restore_wait_s:g} s) together: a server's start can wait for the end of the last one, and "
        "for its work to come back"
    )
