"""A policy read from YAML, or every reason why it cannot be, each with its line and key."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from hub import policy_rules
from hub.policy import Policy
from hub.policy_rules import Key
from hub.policy_yaml import PolicyLoader
from hub.text import quoted, visible

SHIPPED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "policy.yaml")
_LONGEST_BYTES = 4 << 20

# What pydantic says of a type, in the words of YAML.
_WORDS = {
    "extra_forbidden": "is not a key of the policy",
    "missing": "is missing",
    "string_type": "must be text; put it in quotes",
    "string_unicode": "has characters that are none",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "tuple_type": "must be a list, such as [a, b]",
    "dict_type": "must be a mapping, such as {key: value}",
    "model_type": "must be a mapping, such as {key: value}",
    "model_attributes_type": "must be a mapping, such as {key: value}",
    "too_short": "must not be empty",
}


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
        super().__init__("\n".join(f"{visible(path, limit=1000)}: {problem}" for problem in self.problems))


@dataclass(frozen=True)
class Checked:
    """A policy, and what in it is probably a mistake."""

    policy: Policy
    warnings: tuple[Problem, ...]


@functools.lru_cache(maxsize=4)
def load_policy(path: str = SHIPPED) -> Policy:
    """The policy in the file at ``path``, read once. Raises ``PolicyError``."""
    return check_file(path).policy


def check_file(path: str) -> Checked:
    """The policy in the file at ``path``. Raises ``PolicyError``."""
    return _check(_read(path), path)


def parse_policy(text: str, path: str = "policy") -> Policy:
    """The policy in ``text``. Raises ``PolicyError`` with all problems at once."""
    return _check(text, path).policy


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(_LONGEST_BYTES + 1)
        if len(content) > _LONGEST_BYTES:
            raise PolicyError(path, [Problem(0, "", "is larger than 4 MiB")])
        return content.decode("utf-8")
    except OSError as error:
        raise PolicyError(path, [Problem(0, "", f"cannot be read: {error.strerror}")]) from error
    except ValueError as error:
        wrong = f"is not UTF-8 at byte {error.start}" if isinstance(error, UnicodeDecodeError) else "is no file's name"
        raise PolicyError(path, [Problem(0, "", wrong)]) from error


def _check(text: str, path: str) -> Checked:
    try:
        loader = PolicyLoader(text)
        root = loader.root()
        problems = list(_as_written(root))  # before merge keys are replaced by what they stand for
        document = loader.construct_document(root) if root is not None else None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise PolicyError(path, [Problem(line, "", visible(f"is not YAML: {error.problem}"))]) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PolicyError(path, [Problem(0, "", visible(f"is not YAML: {error}"))]) from error
    if not isinstance(document, dict):
        raise PolicyError(path, [Problem(1, "", "must have groups, everyone and profiles")])
    problems += _unknown_profiles(document, root)
    try:
        policy = Policy.model_validate(document)
    except ValidationError as error:
        # Of an empty value has been said already that it is empty.
        said = {problem.key for problem in problems}
        problems += [problem for problem in _explain(error, root) if problem.key not in said]
        raise PolicyError(path, problems) from error
    problems += _problems(policy_rules.errors(policy), root)
    if problems:
        raise PolicyError(path, problems)
    return Checked(policy, tuple(_problems(policy_rules.warnings(policy), root)))


def _problems(findings: Iterable[tuple[Key, str]], root: yaml.Node | None) -> list[Problem]:
    return [Problem(_line(root, key), _dotted(key), visible(message, limit=300)) for key, message in findings]


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


def _explain(error: ValidationError, root: yaml.Node | None) -> Iterator[Problem]:
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        key = tuple(part for part in detail["loc"] if part != "[key]")
        message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        message = _WORDS.get(detail["type"], message)
        yield Problem(_line(root, key), _dotted(key), visible(message, limit=300))


def _as_written(root: yaml.Node | None) -> Iterator[Problem]:
    """A problem for each key that is written twice, of which YAML takes the last, and for each without a value."""
    waiting: list[tuple[Key, yaml.Node | None, int]] = [((), root, 1)]
    visited = set()  # an alias can lead back to where it stands
    while waiting:
        key, node, line = waiting.pop()
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null":
            yield Problem(line, _dotted(key), "has no value")
        if id(node) in visited:
            continue
        visited.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [((*key, index), item, item.start_mark.line + 1) for index, item in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for name, value in node.value:
                if not isinstance(name, yaml.ScalarNode):
                    raise yaml.MarkedYAMLError(problem="a key must be text", problem_mark=name.start_mark)
                written, line = str(name.value), name.start_mark.line + 1
                if written in seen:
                    yield Problem(line, _dotted((*key, written)), f"is there twice: first on line {seen[written]}")
                seen.setdefault(written, line)
                waiting.append(((*key, written), value, line))


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
