"""A policy read from YAML, or every reason why it cannot be, each with its line and key."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from hub.policy import Policy
from hub.text import quoted, visible

SHIPPED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "policy.yaml")
_LONGEST_BYTES = 4 << 20
Key = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One thing wrong in the file; ``line`` counts from 1, and is 0 where there is none."""

    line: int
    key: str
    message: str

    def __str__(self) -> str:
        where = f"line {self.line}" if self.line else "file"
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


class PolicyError(Exception):
    """The file is no policy. ``problems`` has all of them, in the order of the file."""

    exit_code = 2

    def __init__(self, path: str, problems: list[Problem]) -> None:
        self.path = path
        self.problems = sorted(problems, key=lambda problem: problem.line)
        super().__init__("\n".join(f"{path}: {problem}" for problem in self.problems))


@functools.lru_cache(maxsize=4)
def load_policy(path: str = SHIPPED) -> Policy:
    """The policy in the file at ``path``, read once. Raises ``PolicyError``."""
    return parse_policy(_read(path), path)


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(_LONGEST_BYTES + 1)
        if len(content) > _LONGEST_BYTES:
            raise PolicyError(path, [Problem(0, "", "is larger than 4 MiB")])
        return content.decode("utf-8")
    except OSError as error:
        raise PolicyError(path, [Problem(0, "", f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise PolicyError(path, [Problem(0, "", f"is not UTF-8 at byte {error.start}")]) from error


def parse_policy(text: str, path: str = "policy") -> Policy:
    """The policy in ``text``. Raises ``PolicyError`` with all problems at once."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise PolicyError(path, [Problem(line, "", visible(f"is not YAML: {error.problem}"))]) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PolicyError(path, [Problem(0, "", visible(f"is not YAML: {error}"))]) from error
    if not isinstance(document, dict):
        raise PolicyError(path, [Problem(1, "", "must have groups, everyone and profiles")])
    problems = [*_duplicates(root), *_unknown_profiles(document, root)]
    try:
        policy = Policy.model_validate(document)
    except ValidationError as error:
        raise PolicyError(path, problems + _explain(error, root)) from error
    if problems:
        raise PolicyError(path, problems)
    return policy


def _unknown_profiles(document: dict[Any, Any], root: yaml.Node | None) -> Iterator[Problem]:
    """A problem for each profile that is offered but not there; what has another shape is not looked at."""
    profiles, groups = document.get("profiles"), document.get("groups")
    members: list[tuple[Key, object]] = [(("everyone",), document.get("everyone"))]
    members += [(("groups", str(name)), group) for name, group in (groups if isinstance(groups, dict) else {}).items()]
    for place, member in members:
        named = member.get("profiles") if isinstance(member, dict) else None
        for index, slug in enumerate(named if isinstance(named, list) else []):
            if isinstance(profiles, dict) and isinstance(slug, str) and slug not in profiles:
                key = (*place, "profiles", index)
                yield Problem(_line(root, key), _dotted(key), f"there is no profile {quoted(slug)} under profiles")


def _explain(error: ValidationError, root: yaml.Node | None) -> list[Problem]:
    found = []
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        key = tuple(part for part in detail["loc"] if part != "[key]")
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            message = "is not a key of the policy"
        elif detail["type"] == "missing":
            message = "is missing"
        found.append(Problem(_line(root, key), _dotted(key), visible(message, limit=300)))
    return found


def _duplicates(root: yaml.Node | None) -> Iterator[Problem]:
    """A problem for each key that is written twice: YAML lets the last one win silently."""
    waiting: list[tuple[Key, yaml.Node | None]] = [((), root)]
    visited = set()  # an alias can lead back to where it stands
    while waiting:
        key, node = waiting.pop()
        if id(node) in visited:
            continue
        visited.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [((*key, index), item) for index, item in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for name, value in node.value:
                written, line = str(name.value), name.start_mark.line + 1
                if written in seen:
                    yield Problem(line, _dotted((*key, written)), f"is there twice: first on line {seen[written]}")
                seen.setdefault(written, line)
                waiting.append(((*key, written), value))


def _line(root: yaml.Node | None, key: Key) -> int:
    """The line of ``key``, or of the deepest part of it that the file has."""
    node, line = root, 1
    for part in key:
        following = None
        if isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                if name.value == str(part):
                    following, line = value, name.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            following = node.value[part]
            line = following.start_mark.line + 1
        if following is None:
            break
        node = following
    return line


def _dotted(key: Key) -> str:
    return visible(".".join(str(part) for part in key), limit=200)
