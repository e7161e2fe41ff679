"""How far a pod has come, and why it goes no further: for the page that its user looks at meanwhile.

All of it is read from the pod's status and its events, which KubeSpawner watches anyway. The texts of both come from
everywhere: they are made visible, and the page escapes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hub.pod import NOTEBOOK, PREFLIGHT, PREPARE, STORAGE
from hub.pod_plan import PodPlan
from hub.pod_reports import Pod, container_status, container_statuses, gpu_verdict, last_line, preparation, terminated
from hub.pod_words import is_wrong_image, no_container, no_image, no_mount, no_place
from hub.text import visible

Event = Mapping[str, Any]

_PROBE = "Startup probe failed: "
_PULL_ERRORS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
_NO_ERRORS = ("", "PodInitializing", "ContainerCreating", "CrashLoopBackOff")
_NOT_FOUND = (126, 127)
_NO_START = ("StartError", "ContainerCannotRun", "RunContainerError", "CreateContainerError")
_REFUSED_CODES = (2, 4)
"""Of the sidecar: a configuration, and a Persist, that no second try makes right."""
_TRIES = 3
_MOUNT_EVENTS = ("FailedMount", "FailedAttachVolume", "FailedMapVolume")
_TOLD_OTHERWISE = frozenset({"Unhealthy", "FailedScheduling", "BackOff", "Failed", *_MOUNT_EVENTS})


@dataclass(frozen=True)
class Step:
    """One line of the page; ``progress`` is out of 100."""

    progress: int
    text: str


def steps(pod: Pod | None, events: Sequence[Event], plan: PodPlan) -> list[Step]:
    """Everything there is to tell of ``pod``, in order; ``events`` are those of its name, oldest first."""
    if pod is None or "deletionTimestamp" in pod["metadata"]:
        return []
    own = [event for event in events if (event.get("involvedObject") or {}).get("uid") == pod["metadata"].get("uid")]
    return [
        *_placement(pod, own, plan),
        *_images(own),
        *_warnings(own),
        *_troubles(pod),
        *_storage_prepared(pod),
        *_gpus(pod, plan),
        *_storage(pod, own),
        *_notebook(pod),
    ]


def hopeless(pod: Pod | None, plan: PodPlan) -> str:
    """Why the start of ``pod`` is given up, as one sentence for its user; empty while there is hope."""
    if pod is None or "deletionTimestamp" in pod["metadata"]:
        return ""
    for why in (_refused_by_node(pod), _no_directory(pod), _blocked(pod, plan), _no_storage(pod), _no_image(pod)):
        if why:
            return f"Your server was not started: {why}"
    why = notebook_end(pod)
    return f"Your server was not started: {why}" if why else ""


def notebook_end(pod: Pod) -> str:
    """Why the notebook does not stay, once it is plain that it will not; empty otherwise."""
    status = container_status(pod, NOTEBOOK)
    ended = terminated(status, last=True) or {}
    waiting = (status.get("state") or {}).get("waiting") or {}
    code, text = ended.get("exitCode"), last_line(str(ended.get("message") or ""))
    reason = str(ended.get("reason") or waiting.get("reason") or "")
    told = text or last_line(str(waiting.get("message") or ""))
    missing = "executable file not found" in told or "no such file" in told
    if code in _NOT_FOUND or (reason in _NO_START and missing):
        image = visible(str(status.get("image") or "the image"), limit=200)
        return f"there is no jupyterhub-singleuser in {image}; choose an image with JupyterHub in it. {told}".strip()
    if not ended or (status.get("restartCount") or 0) < _TRIES - 1:
        return ""
    if ended.get("reason") == "OOMKilled":
        return "JupyterLab needs more memory than the profile has"
    return f"JupyterLab ends as soon as it is started (exit code {code}): {text}".rstrip(": ")


def _placement(pod: Pod, events: Iterable[Event], plan: PodPlan) -> Iterator[Step]:
    conditions = (pod.get("status") or {}).get("conditions") or []
    scheduled: Mapping[str, Any] = next((each for each in conditions if each.get("type") == "PodScheduled"), {})
    if any(event.get("reason") == "TriggeredScaleUp" for event in events):
        yield Step(8, "The cluster is adding a node")
    if scheduled.get("status") == "False":
        yield Step(5, f"Waiting: {no_place(str(scheduled.get('message') or ''), plan)}")
    if scheduled.get("status") == "True":
        yield Step(15, "A node was found")


def _images(events: Iterable[Event]) -> Iterator[Step]:
    for event in events:
        if event.get("reason") == "Pulling":
            pulling = visible(str(event.get("message")), limit=300)
            yield Step(20, f"{pulling}; this takes minutes on a node that has never had it")


def _warnings(events: Iterable[Event]) -> Iterator[Step]:
    for event in events:
        message, reason = str(event.get("message") or ""), event.get("reason")
        if reason in _MOUNT_EVENTS:
            yield Step(20, f"Waiting: {no_mount(message)}")
        elif event.get("type") == "Warning" and reason not in _TOLD_OTHERWISE:
            yield Step(20, f"{visible(str(reason))}: {visible(message, limit=500)}")


def _troubles(pod: Pod) -> Iterator[Step]:
    for status in container_statuses(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        reason = str(waiting.get("reason") or "")
        if reason in _PULL_ERRORS:
            yield Step(20, f"Waiting: {no_image(str(status.get('image')), str(waiting.get('message') or ''))}")
        elif reason not in _NO_ERRORS:
            yield Step(20, f"Waiting: {no_container(str(status.get('name')), waiting)}")


def _storage_prepared(pod: Pod) -> Iterator[Step]:
    done = preparation(pod)
    if done is None:
        if "running" in (container_status(pod, PREPARE).get("state") or {}):
            yield Step(30, "Storage: looking for your directory on Persist")
    elif done.tools:
        yield Step(32, f"The notebook has not all of its tools: {done.tools}")


def _gpus(pod: Pod, plan: PodPlan) -> Iterator[Step]:
    verdict = gpu_verdict(pod, plan.size.gpus)
    if verdict is not None:
        yield Step(45, verdict.line)
    elif "running" in (container_status(pod, PREFLIGHT).get("state") or {}):
        yield Step(35, f"GPU check: testing {plan.size.gpus} GPU{'s' if plan.size.gpus > 1 else ''}")


def _storage(pod: Pod, events: Iterable[Event]) -> Iterator[Step]:
    status = container_status(pod, STORAGE)
    ended = terminated(status, last=True)
    if ended is not None:
        text = last_line(str(ended.get("message") or ""))
        yield Step(50, f"Storage: the sidecar ended (exit code {ended.get('exitCode')}), and is started again. {text}")
    if not status.get("started") and "running" not in (status.get("state") or {}):
        return
    yield Step(50, "Storage: bringing your work back")
    for event in events:
        message = str(event.get("message") or "")
        if event.get("reason") == "Unhealthy" and _PROBE in message:
            yield Step(60, f"Storage: {last_line(message.partition(_PROBE)[2])}")
    if status.get("started"):
        yield Step(75, "Storage: your home is ready, and is being saved")


def _notebook(pod: Pod) -> Iterator[Step]:
    status = container_status(pod, NOTEBOOK)
    ended = terminated(status, last=True)
    if ended is not None:
        text = last_line(str(ended.get("message") or ""))
        yield Step(80, f"JupyterLab ended (exit code {ended.get('exitCode')}), and is started again. {text}".rstrip())
    elif "running" in (status.get("state") or {}):
        yield Step(90, "JupyterLab is starting")


def _refused_by_node(pod: Pod) -> str:
    status = pod.get("status") or {}
    if status.get("phase") != "Failed":
        return ""
    reason, message = str(status.get("reason") or ""), str(status.get("message") or "")
    told = ": ".join(part for part in (visible(reason), visible(message, limit=500)) if part)
    return f"its pod has failed ({told or 'no reason is given'})"


def _no_directory(pod: Pod) -> str:
    done = preparation(pod)
    return f"you have no directory on Persist: {done.problem}" if done is not None and done.problem else ""


def _blocked(pod: Pod, plan: PodPlan) -> str:
    verdict = gpu_verdict(pod, plan.size.gpus) if plan.check_gpus and plan.block_on_gpu else None
    if verdict is None or verdict.verdict not in ("fail", "unknown"):
        return ""
    return f"its GPUs need attention. {verdict.line}"


def _no_storage(pod: Pod) -> str:
    status = container_status(pod, STORAGE)
    ended = terminated(status, last=True)
    if ended is None or status.get("started"):
        return ""
    if ended.get("exitCode") not in _REFUSED_CODES and (status.get("restartCount") or 0) < _TRIES:
        return ""
    text = last_line(str(ended.get("message") or ""))
    return f"its storage cannot be used (exit code {ended.get('exitCode')}): {text}".rstrip(": ")


def _no_image(pod: Pod) -> str:
    for status in container_statuses(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
        if reason in _PULL_ERRORS and is_wrong_image(reason, message):
            return no_image(str(status.get("image")), message)
    return ""
