"""What Kubernetes says about a pod that does not start, in the words of those who wait for it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from hub.pod_plan import PodPlan
from hub.quantity import cores_text, memory_text
from hub.text import visible

_LIMIT = 500
# "0/3 nodes are available: 2 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint {dedicated: gpu}. preemption:
# …", which is about other pods: k8s.io/kubernetes/pkg/scheduler/framework, FitError.Error.
_TOTAL = re.compile(r"0/(\d+) nodes are available: ")
_EXCLUDED = re.compile(r"(\d+) node\(s\) ")
_GPU_MODEL = re.compile(r"\b(?:RTX )?[A-Z]{0,2}\d{1,4}[A-Z]{0,2}\b")
_TAINT = re.compile(r"\{[^}]*\}")
_FOR_EVER = (
    "manifest unknown",
    "not found",
    "no such manifest",
    "repository does not exist",
    "denied",
    "unauthorized",
    "invalid reference",
    "couldn't parse image",
    "no match for platform",
)
_VOLUMES = {"persist": "Persist", "shared": "Shared"}
_MOUNT = re.compile(r'for volume "([^"]+)"|unmounted volumes=\[([^\]]*)\]')


def no_place(message: str, plan: PodPlan) -> str:
    """Why no node takes the pod, from the scheduler's ``message``: the reason that will pass first comes first."""
    blockers = message.split("preemption:")[0]
    text = _scarce(blockers, plan) or _excluded(blockers, plan) or _claims(blockers)
    said = f"Kubernetes says: {visible(message, limit=_LIMIT)}"
    return f"{text}. {said}" if text else f"no node takes your server. {said}"


def _scarce(message: str, plan: PodPlan) -> str:
    without_gpu = _lacking(plan.gpu_resource, message) if plan.size.gpus else 0
    cores, memory = cores_text(plan.size.millicpu), memory_text(plan.size.memory_bytes)
    if without_gpu:
        gpus = f"{gpu_model(plan.profile)} GPUs".strip()
        wanted = gpus.removesuffix("s") if plan.size.gpus == 1 else gpus
        # A node that is short of something else as well is counted for each.
        others = sum(int(count) for count in _EXCLUDED.findall(message))
        total = _TOTAL.search(message)
        if total is not None and without_gpu + others < int(total[1]):
            return f"no node has {plan.size.gpus} free {wanted} together with {cores} and {memory}"
        if plan.size.gpus == 1:
            return f"all {gpus} are in use; your server starts as soon as one is free"
        return f"no node has {plan.size.gpus} free {wanted}; your server starts as soon as one has"
    short = [amount for resource, amount in (("cpu", cores), ("memory", memory)) if _lacking(resource, message)]
    if short:
        return f"no node has {' and '.join(short)} free; your server starts as soon as one has"
    return "every node is full; your server starts as soon as one is not" if "Too many pods" in message else ""


def _lacking(resource: str, message: str) -> int:
    """How many nodes have too little of ``resource`` left."""
    found = re.search(rf"(\d+) Insufficient {re.escape(resource)}(?=\.?(?:,|\s|$))", message)
    return int(found[1]) if found else 0


def _excluded(message: str, plan: PodPlan) -> str:
    if "untolerated taint" in message:
        found = _TAINT.search(message)
        return f"the nodes that are free are reserved for others ({visible(found[0]) if found else 'a taint'})"
    if "node affinity" in message or "node selector" in message:
        labels = ", ".join(f"{key}={value}" for key, value in plan.node_selector.items())
        return f"no node has the labels that this profile asks for ({visible(labels) or 'see its pod'})"
    return ""


def _claims(message: str) -> str:
    if "persistentvolumeclaim" not in message.lower():
        return ""
    if "not found" in message:
        return "a volume claim that the policy names does not exist"
    return "a volume claim that the policy names has no volume yet"


def gpu_model(display_name: str) -> str:
    """What users call the GPUs of a profile, such as A100; empty where its name does not say."""
    found = [text for text in _GPU_MODEL.findall(display_name) if re.search("[A-Z]", text)]
    return found[0] if found else ""


def is_wrong_image(reason: str, message: str) -> bool:
    """Whether an image that could not be had will not be had later either."""
    told = message.lower()
    return reason in ("InvalidImageName", "ErrImageNeverPull") or any(sign in told for sign in _FOR_EVER)


def no_image(image: str, message: str) -> str:
    """An image that could not be fetched."""
    told = f": {visible(message, limit=_LIMIT)}" if message else ""
    return f"the image {visible(image, limit=200)} cannot be fetched{told}"


def no_mount(message: str) -> str:
    """A volume that the node could not mount."""
    names = [name for pair in _MOUNT.findall(message) for part in pair for name in part.replace(",", " ").split()]
    known = dict.fromkeys(_VOLUMES[name] for name in names if name in _VOLUMES)
    which = " and ".join(known) or "a volume"
    return f"{which} cannot be mounted on the node; it is tried again. {visible(message, limit=_LIMIT)}"


def no_pod(status: object, body: object) -> str:
    """A pod that the API server did not take; ``body`` is its answer."""
    try:
        answer = json.loads(str(body))
    except (ValueError, RecursionError):
        answer = None
    message = answer.get("message") if isinstance(answer, dict) else None
    told = f"Kubernetes says: {visible(str(message), limit=_LIMIT)}" if message else f"Kubernetes answers {status}"
    if message and "exceeded quota" in str(message):
        return f"the hub's share of the cluster is used up. {told}"
    return f"the cluster does not take its pod. {told}"


def no_container(name: str, waiting: Mapping[str, Any]) -> str:
    """A container that the node could not create."""
    reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    return f"the container {visible(name)} cannot be started ({visible(reason)}): {visible(message, limit=_LIMIT)}"
