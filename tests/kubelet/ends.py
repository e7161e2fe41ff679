"""Every way in which a pod ends, played on a real sidecar; and what its user finds in the next pod."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar import errors
from tests.kubelet.kubelet import Pod, works
from tests.processes import Place, wait_until

GRACE_S = 120.0
"""The grace of the shipped policy."""
CUT_S = 15.0
"""How long a node that shuts down lets a pod live, measured with a grace of 120 s."""
PROMISE_S = 3.0
"""What an end that nobody announces may cost."""
WORK_S = 1.2
EARLIER = 300
"""Files that were there long before the end."""


@dataclass(frozen=True)
class Fate:
    """What became of the work, and what the hub is told of it."""

    lost_s: float
    """From the oldest change that is lost to the last moment of work."""

    message: dict[str, Any] | None
    """The last words of the sidecar, where the hub gets them."""

    @property
    def lost(self) -> str:
        if not self.lost_s:
            return "nothing"
        return "the last seconds, at most 3" if self.lost_s <= PROMISE_S else f"**the last {self.lost_s:.1f} s**"

    @property
    def told(self) -> str:
        if self.message is None:
            return "nothing: unknown"
        if self.message["exit_code"] == errors.EXIT_SAFE:
            return "all is safe"
        return "what was left behind"


@dataclass(frozen=True)
class End:
    """One way to end. ``play`` starts the pod's containers, and returns when they have ended."""

    name: str
    title: str
    happens: str
    play: Callable[[Pod], None]
    stays: bool = False
    """Whether the notebook ignores SIGTERM."""

    native: bool = True
    has_message: bool = True
    """Whether the pod's status lives long enough for the hub to read the message."""

    slow: bool = False


def _scale(pod: Pod) -> float:
    return pod.grace_s / GRACE_S


def _working(pod: Pod) -> None:
    pod.start()
    pod.work_for(WORK_S)


def stop(pod: Pod) -> None:
    _working(pod)
    pod.delete(pod.grace_s)


def shut_down(pod: Pod) -> None:
    _working(pod)
    pod.shut_down()


def grace_of_one(pod: Pod) -> None:
    _working(pod)
    pod.delete(1)


def grace_of_none(pod: Pod) -> None:
    _working(pod)
    pod.delete(0)


def node_shutdown(pod: Pod) -> None:
    _working(pod)
    pod.delete(pod.grace_s, cut_s=CUT_S * _scale(pod))


def killed_while_draining(pod: Pod) -> None:
    _working(pod)
    pod.delete(pod.grace_s, at_sigterm=pod.kill_sidecar)


def killed_while_working(pod: Pod) -> None:
    _working(pod)
    pod.kill_sidecar()
    pod.restart_sidecar()
    pod.delete(pod.grace_s)


def out_of_memory(pod: Pod) -> None:
    _working(pod)
    pod.kill_notebook()
    pod.start_notebook()
    pod.work_for(WORK_S)
    pod.delete(pod.grace_s)


def burnt(pod: Pod) -> None:
    _working(pod)
    pod.burn()


def start_up_probe(pod: Pod) -> None:
    pod.start_sidecar()
    pod.kill_sidecar()
    pod.place.new_home()
    pod.fail_start_up_probe()
    pod.start_notebook()
    pod.work_for(WORK_S)
    pod.delete(pod.grace_s)


def void_notice(pod: Pod) -> None:
    _working(pod)
    pod.notice()
    pod.work_for(WORK_S)
    pod.delete(pod.grace_s)


def overtaken(pod: Pod) -> None:
    _working(pod)
    pod.start_successor()
    pod.delete(0)


ENDS = (
    End(
        "stop",
        "Stop, cull, node drain with the pod's grace",
        "notice and the notebook's SIGTERM at once; the sidecar's SIGTERM when the notebook has ended",
        stop,
    ),
    End("eviction", "Eviction by the API, a NoExecute taint", "the same: the pod's own grace counts", stop, slow=True),
    End(
        "shut-down",
        "File → Shut Down, or the notebook ends by itself",
        "0.9 s later notice and SIGTERM, 10 ms apart, with the pod's whole grace",
        shut_down,
    ),
    End(
        "stays",
        "Stop, and the notebook ignores SIGTERM",
        "the notebook is killed when the grace is over; the sidecar then has 2 s",
        stop,
        stays=True,
        slow=True,
    ),
    End(
        "grace-1",
        "Grace 1: an emptyDir over its limit, a node out of disk, KubeSpawner's default",
        "the notebook ends within 1 s; the sidecar is killed 2 s after its SIGTERM",
        grace_of_one,
    ),
    End(
        "grace-1-stays",
        "Grace 1, and the notebook needs longer",
        "the order is lost: the sidecar's SIGTERM after 1 s, and the notebook writes on until it is killed at 2 s",
        grace_of_one,
        stays=True,
        slow=True,
    ),
    End(
        "grace-0",
        "Grace 0: a forced delete",
        "the pod's object is gone at once; its containers end as with grace 1",
        grace_of_none,
        has_message=False,
        slow=True,
    ),
    End(
        "overtaken",
        "Grace 0, and the next server starts at once",
        "both pods run for seconds; the next one waits for the lease, and then has what the old one saved last",
        overtaken,
        has_message=False,
        slow=True,
    ),
    End(
        "node-shutdown",
        "Node shutdown: a grace of 120 s that is cut at 15 s",
        "the notebook ignores SIGTERM; after the notice nothing more is said, and all is killed",
        node_shutdown,
        stays=True,
        has_message=False,
        slow=True,
    ),
    End(
        "killed-draining",
        "The sidecar is killed while it saves what changed last",
        "it is not started again",
        killed_while_draining,
        slow=True,
    ),
    End(
        "killed-working",
        "The sidecar is killed while the user works",
        "it is started again after 1 s; later the pod is stopped",
        killed_while_working,
        slow=True,
    ),
    End(
        "out-of-memory",
        "The notebook is killed for its memory",
        "it is started again in the same pod, with the same home; later the pod is stopped",
        out_of_memory,
        slow=True,
    ),
    End(
        "start-up-probe",
        "The start-up probe fails",
        "notice and SIGTERM, and the sidecar is started again; then the notebook starts, and later the pod is stopped",
        start_up_probe,
        slow=True,
    ),
    End(
        "void-notice",
        "A notice that no end follows",
        "the work goes on; later the pod is stopped",
        void_notice,
        slow=True,
    ),
    End(
        "before-1.29",
        "Stop on a cluster before 1.29",
        "notebook and sidecar get SIGTERM together; the sidecar waits until the home is quiet",
        stop,
        native=False,
        slow=True,
    ),
    End("burnt", "The node burns", "nobody is told anything", burnt, has_message=False),
)


def fate(end: End, top: Path, grace_s: float) -> Fate:
    """What became of the work of a pod that ended so, with ``grace_s`` in the place of 120 s.

    The user comes back to a new, empty home, and finds in it what is safe.
    """
    (top / "old").mkdir()
    (top / "new").mkdir()
    with Place(top / "old") as old, Place(top / "new") as new:
        new.persist = new.persist_inside = old.persist
        for number in range(EARLIER):
            (old.home / _earlier(number)).write_text(f"{number}\n" * 100)
        pod = Pod(old, new, grace_s, stays=end.stays, native=end.native)
        end.play(pod)
        process = pod.start_successor()
        wait_until(lambda: new.status()["state"] == "watching", "the next pod is ready")
        new.flush()
        lost_s = _lost_s(old.home, new.home)
        assert new.end(process) == errors.EXIT_SAFE
        message = json.loads(pod.message.read_text()) if end.has_message and pod.message.exists() else None
        return Fate(lost_s, message)


def _earlier(number: int) -> str:
    return f"earlier-{number}.py"


def _lost_s(old: Path, new: Path) -> float:
    """How much of the work in ``old`` is not in ``new``. Nothing there is torn, and all that is older is there."""
    written, there = works(old), works(new)
    for path in new.iterdir():
        is_what_it_was = path.is_symlink() or path.read_bytes() == (old / path.name).read_bytes()
        assert is_what_it_was or path.name in there, f"{path.name} is torn"
    assert {_earlier(number) for number in range(EARLIER)} <= set(os.listdir(new))
    lost = [when for name, when in written.items() if name not in there]
    return max(written.values()) - min(lost) if lost else 0.0
