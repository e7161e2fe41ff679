"""A model of what a kubelet does to a pod with our native sidecar, in the times that were measured on a real one.

The sidecar and the notebook are real processes; only who tells them what, and when, is played. Seconds throughout.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from tests.kubelet.notebook import LAST, content
from tests.processes import Place, wait_until

NOTICE_S = 0.04
"""From the SIGTERM of the notebook to the end of the sidecar's preStop hook."""
ORDER_S = 0.03
"""From the end of the notebook to the SIGTERM of the sidecar, at least: the less, the less time there is."""
FLOOR_S = 2.0
"""Every container has so long, however short the grace."""
LEAST_GRACE_S = 1.0
"""What a kubelet makes of a grace of 0."""
SELF_S = 0.9
"""From the end of a notebook that was told by nobody to the notice; SIGTERM follows 10 ms later."""
RESTART_S = 1.0
"""Until a container that died for the first time is started again."""
_LOOK_S = 0.005


class Pod:
    """One pod of one server: a home, a sidecar and a notebook, until a kubelet ends it."""

    def __init__(
        self, place: Place, successor: Place, grace_s: float, *, stays: bool = False, native: bool = True
    ) -> None:
        """``place`` has this pod's home, ``successor`` the next one's; the notebook ``stays`` if it ignores SIGTERM."""
        self.place, self.grace_s, self._stays = place, grace_s, stays
        self._successor = successor
        self._next: subprocess.Popen[bytes] | None = None
        successor.settings = {"SIDECAR_POD_UID": str(uuid.uuid4())}
        self.message = place.top / "termination-log"
        place.settings = {
            "SIDECAR_POD_UID": str(uuid.uuid4()),
            "SIDECAR_TERMINATION_LOG": str(self.message),
            "SIDECAR_NATIVE": "1" if native else "0",
        }
        self._native = native

    # The beginning.

    def start(self) -> None:
        """The sidecar is ready, and then the notebook is started."""
        self.start_sidecar()
        self.start_notebook()

    def start_sidecar(self) -> None:
        """It is ready, and all that was there before is safe."""
        self.sidecar = self.place.start("--grace", str(self.grace_s))
        self.place.flush()

    def start_notebook(self) -> None:
        """Somebody works."""
        self.notebook = self.place.spawn(
            [sys.executable, "-m", "tests.kubelet.notebook", str(self.place.home), "stays" if self._stays else "ends"]
        )

    def work_for(self, seconds: float) -> None:
        """Some of the work has been safe for a while."""
        time.sleep(seconds)
        wait_until(lambda: list(self.place.mirror.glob("work-*.py")), "some of the work is safe")

    def start_successor(self) -> subprocess.Popen[bytes]:
        """The sidecar of the next pod of the same server, which has been started, now or before."""
        if self._next is None:
            self._next = self._successor.spawn(self._successor.command("run", "--grace", str(self.grace_s)))
        return self._next

    # The end.

    def delete(
        self, grace_s: float, *, cut_s: float = float("inf"), at_sigterm: Callable[[], None] | None = None
    ) -> None:
        """The pod has ended as if deleted with ``grace_s``; its node is gone after ``cut_s``.

        The notebook first, then the sidecar; both have at least ``FLOOR_S``, and when the grace is over nobody waits
        for the notebook any more. ``at_sigterm`` is called when the sidecar has been told.
        """
        grace_s = max(grace_s, LEAST_GRACE_S)
        began = time.monotonic()
        self.notebook.terminate()
        told_s = notebook_ended_s = float("inf")
        noticed = False
        while self._is_alive():
            now_s = time.monotonic() - began
            if self.notebook.poll() is not None:
                notebook_ended_s = min(notebook_ended_s, now_s)
            elif now_s >= max(grace_s, FLOOR_S):
                self.notebook.kill()
            if not noticed and now_s >= NOTICE_S:
                self._tell(signal.SIGUSR1)
                noticed = True
            is_due = noticed and (now_s >= min(notebook_ended_s + ORDER_S, grace_s) or not self._native)
            if told_s == float("inf") and is_due:
                self._tell(signal.SIGTERM)
                told_s = now_s
                if at_sigterm is not None:
                    at_sigterm()
            if now_s >= min(told_s + max(grace_s - told_s, FLOOR_S), cut_s):
                self.kill_sidecar()
            if now_s >= cut_s:
                self.notebook.kill()
            time.sleep(_LOOK_S)  # the kubelet's own pace

    def shut_down(self) -> None:
        """The notebook has ended by itself, and the kubelet has ended the pod after it."""
        self.notebook.send_signal(signal.SIGUSR2)
        self.notebook.wait()
        time.sleep(SELF_S)
        self._tell(signal.SIGUSR1)
        time.sleep(0.01)
        self._tell(signal.SIGTERM)
        self._wait(self.grace_s)

    def restart_sidecar(self) -> None:
        """A sidecar that has ended is there again."""
        time.sleep(RESTART_S)
        self.start_sidecar()

    def fail_start_up_probe(self) -> None:
        """A sidecar was started, was stopped because it did not get ready, and is there again."""
        self.sidecar = self.place.spawn(self.place.command("run", "--grace", str(self.grace_s)))
        wait_until(lambda: self.place.status()["state"] not in ("stopped", "starting"), "it restores the home")
        self._tell(signal.SIGUSR1)
        self._tell(signal.SIGTERM)
        self._wait(self.grace_s)
        self.restart_sidecar()

    def burn(self) -> None:
        """Nobody was told anything, and nothing runs any more."""
        self.kill_sidecar()
        self.kill_notebook()

    def notice(self) -> None:
        """The preStop hook has run."""
        self._tell(signal.SIGUSR1)

    def kill_notebook(self) -> None:
        """As when it uses more memory than it may."""
        self.notebook.kill()
        self.notebook.wait()

    def kill_sidecar(self) -> None:
        """All of its processes, as a runtime does."""
        if self.sidecar.poll() is None:
            os.killpg(self.sidecar.pid, signal.SIGKILL)
            self.sidecar.wait()

    def _is_alive(self) -> bool:
        return self.sidecar.poll() is None or self.notebook.poll() is None

    def _tell(self, number: signal.Signals) -> None:
        if self.sidecar.poll() is None:
            self.sidecar.send_signal(number)

    def _wait(self, most_s: float) -> None:
        try:
            self.sidecar.wait(most_s)
        except subprocess.TimeoutExpired:
            self.kill_sidecar()


def is_whole(path: Path) -> bool:
    """Whether ``path`` has all that the notebook writes into a file of its name."""
    return path.read_text() == content(path.name)


def works(home: Path) -> dict[str, float]:
    """Everything the notebook wrote and finished in ``home``, with when, in seconds since 1970."""
    found = [*home.glob("work-*.py"), *home.glob(LAST)]
    return {path.name: path.stat().st_mtime for path in found if is_whole(path)}
