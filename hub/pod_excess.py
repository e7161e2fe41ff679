"""What a finished pod has beyond its decision: the last look before it is made.

Everything before it can be undone by a setting that an administrator knows for other reasons: a hook, or
``extra_container_config``. Containers beside the notebook may be added; GPUs may not, in whatever container.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from hub.quantity import Size, format_cpus, format_memory

_ASKED = ("limits", "requests")
_GPU = re.compile(r"nvidia\.com/(gpu|mig-).*|amd\.com/gpu.*|gpu\.intel\.com/.*")
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
_QUANTITY = re.compile(r"([0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE]([+-]?[0-9]{1,2})|([a-zA-Z]{0,2}))")
_FACTORS = {
    "": Fraction(1),
    **{unit: Fraction(1, 1000**power) for power, unit in enumerate("mun", 1)},
    **{unit: Fraction(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Fraction(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}


def pod_excess(manifest: Mapping[str, Any], granted: Size, *, gpu_resource: str = "nvidia.com/gpu") -> list[str]:
    """For each kind of which the pod has more than ``granted``, one phrase; empty if it has not.

    ``manifest`` is plain data; in it ``gpu_resource`` is a GPU, and so is what makers of GPUs call one. A notebook
    without a limit has all of its node. What cannot be read is more.
    """
    spec = manifest["spec"]
    containers = spec["containers"] or [{}]
    notebook = next((one for one in containers if one.get("name") == "notebook"), containers[0])
    found = []
    cores, memory = format_cpus(granted.millicpu), format_memory(granted.memory_bytes)
    for kind, allowed, words in (
        ("cpu", Fraction(granted.millicpu, 1000), f"cores where {cores} were granted"),
        ("memory", Fraction(granted.memory_bytes), f"bytes of memory where {memory} was granted"),
    ):
        if _amount(notebook, "limits", kind) is None:
            found.append(f"no limit on {kind}")
        elif _most(notebook, kind) > allowed:
            found.append(f"{_shown(_most(notebook, kind))} {words}")
    gpus = _gpus(spec, gpu_resource)
    if gpus > granted.gpus:
        found.append(f"{_shown(gpus)} GPUs where {granted.gpus} were granted")
    return found


def _gpus(spec: Mapping[str, Any], gpu_resource: str) -> Fraction:
    """As Kubernetes counts: what runs together is added; an init container has the devices before the others do."""
    inits = spec.get("initContainers") or []
    lasting = [one for one in inits if one.get("restartPolicy") == "Always"]
    together = sum((_gpus_of(one, gpu_resource) for one in [*spec["containers"], *lasting]), Fraction(0))
    return max([together, *(_gpus_of(one, gpu_resource) for one in inits)])


def _gpus_of(container: Mapping[str, Any], gpu_resource: str) -> Fraction:
    resources = container.get("resources") or {}
    kinds = {kind for which in _ASKED for kind in resources.get(which) or {}}
    gpus = (kind for kind in kinds if kind == gpu_resource or _GPU.fullmatch(kind))
    return sum((_most(container, kind) for kind in gpus), Fraction(0))


def _most(container: Mapping[str, Any], kind: str) -> Fraction:
    return max(_amount(container, which, kind) or Fraction(0) for which in _ASKED)


_UNREADABLE = Fraction(10**30)


def _amount(container: Mapping[str, Any], which: str, kind: str) -> Fraction | None:
    """The quantity in Kubernetes' notation, where ``G`` is 1000³; ``None`` if there is none."""
    value = ((container.get("resources") or {}).get(which) or {}).get(kind)
    if value is None:
        return None
    matched = _QUANTITY.fullmatch(str(value))
    if matched is None or (matched[3] or "") not in _FACTORS:
        return _UNREADABLE
    exponent = Fraction(10) ** int(matched[2]) if matched[2] else Fraction(1)
    return Fraction(matched[1]) * exponent * _FACTORS[matched[3] or ""]


def _shown(amount: Fraction) -> str:
    if amount >= _UNREADABLE:
        return "an unreadable number of"
    return str(amount.numerator) if amount.denominator == 1 else f"{float(amount):g}"
