"""Remembers how each pod was when it was last seen: its end is told in its status, and then it is gone."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from kubespawner.spawner import PodReflector

_REMEMBERED = 500
"""Pods; each is some 20 kB."""


class _Noticing(dict[str, dict[str, Any]]):
    """What a reflector keeps, by namespace and name; what is taken out of it goes to ``last``."""

    def __init__(self, resources: dict[str, dict[str, Any]], last: OrderedDict[str, dict[str, Any]]) -> None:
        super().__init__(resources)
        self._last = last

    def pop(self, key: str, *default: Any) -> Any:
        if key in self:
            _remember(self._last, key, self[key])
        return super().pop(key, *default)


class RememberingPodReflector(PodReflector):  # type: ignore[misc]  # kubespawner has no type information
    """A ``PodReflector`` that can still say how a deleted pod was."""

    resources: dict[str, dict[str, Any]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._last: OrderedDict[str, dict[str, Any]] = OrderedDict()
        super().__init__(*args, **kwargs)

    def last(self, key: str) -> dict[str, Any] | None:
        """The pod of ``namespace/name`` that was deleted last, as it was last seen; once."""
        return self._last.pop(key, None)

    async def _list_and_update(self, resource_version: str | None = None) -> Any:
        before = dict(self.resources)
        version = await super()._list_and_update(resource_version)
        for key, pod in before.items():
            now = self.resources.get(key)
            if now is None or now["metadata"]["uid"] != pod["metadata"]["uid"]:
                _remember(self._last, key, pod)
        # KubeSpawner takes a deleted pod out of this dictionary, and is told no other way.
        self.resources = _Noticing(self.resources, self._last)
        return version


def _remember(last: OrderedDict[str, dict[str, Any]], key: str, pod: dict[str, Any]) -> None:
    last[key] = pod
    last.move_to_end(key)
    while len(last) > _REMEMBERED:
        last.popitem(last=False)
