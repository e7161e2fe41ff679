"""What the API server refuses in a pod, and what a kubelet would get wrong, as far as plain data shows it.

From k8s.io/kubernetes/pkg/apis/core/validation; each rule is one that a manifest of ours could break.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import Any

from kubernetes_asyncio import client

Document = dict[str, Any]

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_ENVIRONMENT = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_PRIMITIVES = {"str": str, "int": int, "bool": bool, "float": float, "object": object}


def broken_rules(pod: Document) -> list[str]:
    """A line for each rule that ``pod`` breaks."""
    return [*_unknown(pod, "V1Pod", "pod"), *_names(pod), *_volumes(pod["spec"]), *_containers(pod["spec"])]


def every_container(pod: Document) -> list[Document]:
    spec = pod["spec"]
    return [*(spec.get("initContainers") or []), *spec["containers"]]


def container(pod: Document, name: str) -> Document:
    return next(each for each in every_container(pod) if each["name"] == name)


def mounts(pod: Document, name: str) -> dict[str, tuple[str, str, bool]]:
    """Of the container ``name``, by path: volume, subPath and whether it is read-only."""
    return {
        each["mountPath"]: (each["name"], each.get("subPath", ""), each.get("readOnly", False))
        for each in container(pod, name).get("volumeMounts") or []
    }


def _unknown(value: Any, kind: str, place: str) -> Iterator[str]:
    """Fields and kinds that Kubernetes' own models do not have."""
    if kind.startswith(("list[", "dict[")):
        inner = kind.rstrip("]").partition("[")[2].rpartition(", ")[2].rpartition("str,")[2].strip()
        items = value.items() if kind.startswith("dict") else enumerate(value)
        for key, item in items:
            yield from _unknown(item, inner, f"{place}[{key}]")
    elif kind in _PRIMITIVES:
        # A quantity is a string that may be written as a number.
        is_quantity = kind == "str" and ".resources." in place
        if not isinstance(value, _PRIMITIVES[kind]) and not (is_quantity and isinstance(value, int | float)):
            yield f"{place} is {type(value).__name__} and not {kind}"
    elif hasattr(client.models, kind):
        model = getattr(client.models, kind)
        names = {json_name: name for name, json_name in model.attribute_map.items()}
        if not isinstance(value, dict):
            yield f"{place} is no {kind}"
            return
        for key, item in value.items():
            if key in names:
                yield from _unknown(item, model.openapi_types[names[key]], f"{place}.{key}")
            else:
                yield f"{place} has no field {key}"


def _names(pod: Document) -> Iterator[str]:
    spec, metadata = pod["spec"], pod["metadata"]
    names = [each["name"] for each in [*every_container(pod), *spec["volumes"]]] + [metadata["name"]]
    yield from (f"{name} is no label" for name in names if not _LABEL.fullmatch(name))
    for what, parts in (("containers", every_container(pod)), ("volumes", spec["volumes"])):
        named = [each["name"] for each in parts]
        yield from (f"{what}: {name} is there twice" for name in named if named.count(name) > 1)
    for key, value in (metadata.get("labels") or {}).items():
        if not _LABEL_VALUE.fullmatch(value):
            yield f"label {key}={value}"


def _volumes(spec: Document) -> Iterator[str]:
    for volume in spec["volumes"]:
        if len(set(volume) - {"name"}) != 1:
            yield f"volume {volume['name']} has not exactly one source"


def _containers(spec: Document) -> Iterator[str]:
    volumes = {each["name"] for each in spec["volumes"]}
    inits = spec.get("initContainers") or []
    for one in [*inits, *spec["containers"]]:
        name = one["name"]
        seen: set[str] = set()
        for mount in one.get("volumeMounts") or []:
            path, sub = mount["mountPath"], mount.get("subPath", "")
            if mount["name"] not in volumes:
                yield f"{name}: no volume {mount['name']}"
            if path in seen:
                yield f"{name}: {path} is there twice"
            if ":" in path or path != posixpath.normpath(path) or not path.startswith("/"):
                yield f"{name}: {path} is no path"
            if sub.startswith("/") or ".." in sub.split("/"):
                yield f"{name}: {sub} is no subPath"
            if any(other.startswith(f"{path}/") for other in seen):
                yield f"{name}: {path} would cover what is mounted in it"
            seen.add(path)
        yield from _environment(one)
        yield from _life(one, is_init=one in inits)


def _environment(one: Document) -> Iterator[str]:
    names = [each["name"] for each in one.get("env") or []]
    yield from (f"{one['name']}: the variable {name} is there twice" for name in names if names.count(name) > 1)
    yield from (f"{one['name']}: {name} is no variable" for name in names if not _ENVIRONMENT.fullmatch(name))


def _life(one: Document, *, is_init: bool) -> Iterator[str]:
    lasting = one.get("restartPolicy") == "Always"
    if one.get("restartPolicy") and not (is_init and lasting):
        yield f"{one['name']}: only an init container has a restart policy, and it is Always"
    for field in ("startupProbe", "livenessProbe", "readinessProbe", "lifecycle"):
        if is_init and not lasting and one.get(field):
            yield f"{one['name']}: an init container that ends has no {field}"
