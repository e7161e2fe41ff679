"""The JSON Schema that editors check a policy with says what the policy's own reader says, as far as it can."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # published without type information

from hub.images import ImageError, parse_image
from hub.policy import json_schema
from hub.policy_file import SHIPPED, PolicyError, parse_policy
from tests.unit.hub.policies import SMALL

SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def test_it_is_a_schema_and_accepts_the_shipped_policy() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert VALIDATOR.is_valid(yaml.safe_load(Path(SHIPPED).read_text(encoding="utf-8")))
    assert VALIDATOR.is_valid(yaml.safe_load(SMALL))


def _fields(node: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        for name, field in node.get("properties", {}).items():
            if "additionalProperties" in node:  # a model, and not a condition on one
                yield f"{where}.{name}", field
        for key, value in node.items():
            yield from _fields(value, f"{where}.{key}")
    elif isinstance(node, list):
        for item in node:
            yield from _fields(item, where)


def test_every_field_has_a_description() -> None:
    fields = dict(_fields(SCHEMA))
    assert len(fields) > 50
    assert [where for where, field in fields.items() if not field.get("description")] == []


def test_every_mapping_is_closed() -> None:
    objects = [SCHEMA, *SCHEMA["$defs"].values()]
    assert [each.get("title") for each in objects if each.get("additionalProperties") is not False] == []


def _with(key: str, value: Any) -> dict[str, Any]:
    """The small policy with ``value`` at the dotted ``key``, or without it for ``...``."""
    document: dict[str, Any] = yaml.safe_load(SMALL)
    node = document
    *path, last = key.split("/")
    for part in path:
        node = node.setdefault(part, {})
    node[last] = value
    if value is ...:
        del node[last]
    return document


GROUP = {"profiles": ["one"], "limits": {"gpus": 0, "cpus": 2, "memory": "2G"}}
IMAGES = {"values": {"a": {"display_name": "A", "image": "a:1"}}, "default": "a"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("groups/staff", GROUP),
        ("groups/staff", {"admin": True}),
        ("groups/staff", {"profiles": [], "note": "👩‍💻 می‌خواهم"}),
        ("everyone/profiles", []),
        ("groups/staff", {"limits": {"gpus": 0, "cpus": 0, "memory": 0}}),
        ("everyone/limits/cpus", "1500m"),
        ("everyone/limits/memory", 2 << 30),
        ("profiles/one/cpus", 0.5),
        ("profiles/one/memory", "1.5Gi"),
        ("profiles/one/memory", 1 << 30),
        ("profiles/one/gpu_resource", "nvidia.com/mig-1g.10gb"),
        ("profiles/one/node_selector", {"accelerator": "a100", "nvidia.com/gpu.product": ""}),
        ("profiles/one/tolerations", [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]),
        ("profiles/one/tolerations", [{"operator": "Exists"}, {"key": "a", "value": "b"}]),
        ("images/allow", ["quay.io/jupyter/*", "host:5000/a/**", "[::1]:5000/x"]),
        ("storage/shared", [{"name": "a", "groups": ["x y"], "access": "ro"}, {"name": "a"}]),
        ("storage/restore", False),  # what YAML 1.1 makes of off
        ("storage/retention", {"days": 30}),
        ("storage/persist", {"claim": "a.b-c", "directory": "raw"}),
        ("gpu_check", {"at_spawn": "off", "frameworks": False, "on_failure": "block"}),
        ("login", ["staff"]),
        ("login", "everyone"),
    ],
)
def test_what_the_policy_accepts_it_accepts(key: str, value: Any) -> None:
    document = _with(key, value)
    parse_policy(yaml.safe_dump(document, allow_unicode=True))
    assert VALIDATOR.is_valid(document)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("everyone", ...),
        ("profiles", {}),
        ("unknown", 1),
        ("groups/staff", {"profiles": ["one"]}),
        ("groups/staff", {"admin": "yes"}),
        ("groups/staff", None),
        ("groups/", {"admin": True}),
        ("everyone/profiles", "one"),
        ("everyone/note", None),
        ("everyone/note", ""),
        ("everyone/note", "two\nlines"),
        ("everyone/note", "\u202eyltnaig"),
        ("everyone/limits/gpus", -1),
        ("everyone/limits/gpus", True),
        ("everyone/limits/gpus", ...),
        ("everyone/limits/cpus", "many"),
        ("everyone/limits/memory", "4Q"),
        ("profiles/Upper", {"display_name": "x", "image": "a:1", "cpus": 1, "memory": "1G", "gpus": 0}),
        ("profiles/a--b", {"display_name": "x", "image": "a:1", "cpus": 1, "memory": "1G", "gpus": 0}),
        ("profiles/one/image", "host:5000/img"),
        ("profiles/one/image", "quay.io/a/b:1 "),
        ("profiles/one/image", "http://quay.io/a:1"),
        ("profiles/one/image", ...),
        ("profiles/one/image", None),
        ("profiles/one/cpus", 0),
        ("profiles/one/cpus", "0.0"),
        ("profiles/one/cpus", "0m"),
        ("profiles/one/memory", 4),
        ("profiles/one/gpus", ...),
        ("profiles/one/choices", {"gpus": {"values": [0], "default": 0}}),
        ("profiles/one/choices", {"colour": 1}),
        ("profiles/one/display_name", ...),
        ("profiles/one/display_name", 7),
        ("profiles/one/gpu_resource", "gpu"),
        ("profiles/one/node_selector", {"accelerator": True}),
        ("profiles/one/node_selector", {"a b": "c"}),
        ("profiles/one/node_selector", {"a": "-b"}),
        ("profiles/one/tolerations", [{"key": "a", "effect": "Never"}]),
        ("profiles/one/tolerations", [{"key": "a", "operator": "In"}]),
        ("profiles/one/tolerations", {"key": "a"}),
        ("images/allow", ["*"]),
        ("images/allow", ["quay.io/a:1"]),
        ("images/allow", "quay.io/*"),
        ("storage/shared", [{"name": "a/b"}]),
        ("storage/shared", [{"name": "a", "access": "rwx"}]),
        ("storage/shared", [{"groups": ["a"]}]),
        ("storage/restore", "on"),
        ("storage/grace_s", 0),
        ("storage/retention", {"days": 0}),
        ("storage/retention", {"days": 4000}),
        ("storage/persist", {"claim": "Big Claim"}),
        ("storage/persist", {"directory": "name"}),
        ("gpu_check/on_failure", "stop"),
        ("cull/timeout_s", 1.5),
        ("login", []),
        ("login", "staff"),
        ("login", [""]),
    ],
)
def test_what_the_policy_refuses_it_refuses(key: str, value: Any) -> None:
    document = _with(key, value)
    with pytest.raises(PolicyError):
        parse_policy(yaml.safe_dump(document, allow_unicode=True))
    assert not VALIDATOR.is_valid(document)


@given(st.from_regex(r"\A[a-zA-Z0-9./:@_-]{1,40}\Z") | st.text(max_size=20))
def test_every_image_that_the_policy_accepts_matches_the_schemas_expression(text: str) -> None:
    try:
        parse_image(text)
    except ImageError:
        return
    document = _with("profiles/one/image", text)
    assert VALIDATOR.is_valid(document)
