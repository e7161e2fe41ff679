"""On which GPUs a build's kernels run: pure."""

from __future__ import annotations

import re


def covers(built_for: tuple[str, ...], capability: str) -> bool | None:
    """Whether one of these binaries (sm_80) or intermediate codes (compute_90) runs on a GPU of this compute
    capability; None where that cannot be told.

    A binary runs on later minor versions of its major version, intermediate code on everything later; with an ``a``
    both run on exactly that one, with an ``f`` on its family (CUDA C++ programming guide, compute capabilities).
    """
    number = re.fullmatch(r"([0-9]+)\.([0-9])", capability)
    parsed = [re.fullmatch("(sm|compute)_([0-9]+)([0-9])([af]?)", name) for name in built_for]
    if number is None or not any(parsed):
        return None
    gpu = (int(number[1]), int(number[2]))
    return any(_runs(each[1], (int(each[2]), int(each[3])), each[4], gpu) for each in parsed if each is not None)


def _runs(kind: str, built: tuple[int, int], suffix: str, gpu: tuple[int, int]) -> bool:
    if suffix == "a":
        return built == gpu
    if suffix == "f" or kind == "sm":
        return built[0] == gpu[0] and built[1] <= gpu[1]
    return built <= gpu
