"""YAML of which nothing but a policy is expected: whatever cannot be read is one error with its line."""

from __future__ import annotations

from typing import Any

import yaml

_MOST_KEYS = 200_000
"""In all mappings together. Merge keys can ask for any number of them in a few lines."""


class PolicyLoader(yaml.SafeLoader):
    """PyYAML's safe one. Raises ``yaml.MarkedYAMLError`` also where PyYAML fails over what it reads."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._keys = 0

    def root(self) -> yaml.Node | None:
        """The document's node, ``None`` for no document."""
        try:
            root: yaml.Node | None = self.get_single_node()
        except (OverflowError, ValueError) as error:  # an escape that stands for no character
            raise yaml.MarkedYAMLError(problem="a character that is none", problem_mark=self.get_mark()) from error
        return root

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            kind = node.tag.rpartition(":")[2]
            raise yaml.MarkedYAMLError(problem=f"the value is no {kind}", problem_mark=node.start_mark) from error

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        self._keys += len(node.value)
        if self._keys > _MOST_KEYS:
            raise yaml.MarkedYAMLError(problem=f"more than {_MOST_KEYS} keys", problem_mark=node.start_mark)
