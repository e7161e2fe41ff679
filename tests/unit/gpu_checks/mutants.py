"""Mutants of a module of ``gpu_checks``: each has one decision turned round, and the tests are run against it.

    python -m tests.unit.gpu_checks.mutants verdict 'tests/unit/gpu_checks/test_verdict.py'

prints a JSON list of the mutants that the tests did not notice. Each mutant lives in a forked process that has loaded
pytest already; it is imported in the place of the module.
"""

from __future__ import annotations

import ast
import copy
import importlib.util
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

LONGEST_S = 120  # a mutant that makes the tests hang is noticed, too

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.BitXor: ast.BitOr, ast.BitAnd: ast.BitOr,
}  # fmt: skip


VERDICTS = ("FAIL", "UNKNOWN", "WARN")

Change = Callable[[Any], None]


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """Each mutant of the source: what was done in which line, and its source."""
    tree = ast.parse(source)
    unchanged = ast.unparse(tree)
    hints = {id(inner) for node in ast.walk(tree) for hint in _hints(node) for inner in ast.walk(hint)}
    for number, node in enumerate(ast.walk(tree)):
        if id(node) in hints:
            continue
        for words, change in _changes(node):
            mutated = copy.deepcopy(tree)
            change(next(itertools.islice(ast.walk(mutated), number, None)))
            code = ast.unparse(ast.fix_missing_locations(mutated))
            if code != unchanged:
                yield f"line {getattr(node, 'lineno', 0)}: {words}: {ast.unparse(node).splitlines()[0]}", code


def _hints(node: ast.AST) -> list[ast.expr]:
    """Annotations: they are not evaluated, so a mutant of one is none."""
    return [hint for name in ("annotation", "returns") if isinstance(hint := getattr(node, name, None), ast.expr)]


def _changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    if isinstance(node, ast.Compare):
        for position, operator in enumerate(node.ops):
            for other in COMPARISONS[type(operator)]:
                yield f"{type(operator).__name__} to {other.__name__}", _operator(position, other)
    elif isinstance(node, ast.BoolOp):
        yield "and for or", lambda found: setattr(found, "op", ast.Or() if isinstance(found.op, ast.And) else ast.And())
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield "operator", lambda found: setattr(found, "op", OPERATORS[type(found.op)]())
    elif isinstance(node, ast.IfExp):
        yield "turned round", _turned
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not twice", lambda found: setattr(found, "operand", ast.UnaryOp(ast.Not(), found.operand))
    elif isinstance(node, ast.If):
        yield "never", lambda found: setattr(found, "test", ast.Constant(value=False))
    elif isinstance(node, ast.Attribute) and node.attr in VERDICTS:
        yield "a pass", lambda found: setattr(found, "attr", "PASS")


def _operator(position: int, other: type[ast.cmpop]) -> Change:
    def change(found: Any) -> None:
        found.ops[position] = other()

    return change


def _turned(found: Any) -> None:
    found.body, found.orelse = found.orelse, found.body


class _InItsPlace:
    """An importer that gives the mutant for the module of this name."""

    def __init__(self, name: str, code: str) -> None:
        self._name, self._code = name, code

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name == self._name else None  # type: ignore[arg-type]  # it is a loader

    def create_module(self, spec: ModuleSpec) -> None:
        """The usual empty module."""

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._code, f"<mutant of {self._name}>", "exec"), module.__dict__)


def noticed(name: str, code: str, tests: list[str]) -> bool:
    """Whether the tests fail, crash or hang with this code in the place of the module."""
    child = os.fork()
    if child == 0:
        signal.alarm(LONGEST_S)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        sys.meta_path.insert(0, _InItsPlace(name, code))
        os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *tests]))
    _, status = os.waitpid(child, 0)
    return status != 0


def main() -> None:
    """Prints the number of mutants and those that were not noticed, as JSON."""
    module, *tests = sys.argv[1:]
    settings.register_profile("mutants", database=None, derandomize=True, deadline=None)
    settings.load_profile("mutants")
    spec = importlib.util.find_spec("gpu_checks")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    with open(os.path.join(spec.submodule_search_locations[0], f"{module}.py"), encoding="utf-8") as file:
        source = file.read()
    name = f"gpu_checks.{module}"
    sys.modules.pop("gpu_checks", None)
    if noticed(name, source, tests):
        sys.exit("the tests fail without any mutation")
    all_mutants = list(mutants(source))
    survivors = [words for words, code in all_mutants if not noticed(name, code, tests)]
    json.dump({"mutants": len(all_mutants), "survivors": survivors}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
