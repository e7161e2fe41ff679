"""The smoke test of a framework: it is imported, counts its GPUs, and computes on each of them what the CPU verifies.

Runs in the notebook's own Python, in a process of its own: it can crash, hang, or fill the memory.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

from .channel import Channel
from .framework_facts import Product, Run, described

SIZE = 1000  # of the square matrices, as in the deployment's guide
SEED = 20240624

# Elements are uniform in [0, 1), so nothing cancels, and the relative error of a sum of n products is at most about
# n·u (Higham, Accuracy and Stability of Numerical Algorithms, 3.1): 1000 · 2⁻²⁴ = 6·10⁻⁵ in single precision.
TOLERANCE_FP32 = 1e-4
# TF32 keeps 10 bits of each factor's mantissa; where a tensor core cuts the rest off, each is wrong by up to 2⁻¹⁰.
TOLERANCE_TF32 = 2.2e-3


class Smoke(Protocol):
    """What a framework does in the test. Each call may raise whatever the framework raises."""

    name: str

    def load(self) -> Run:
        """It is imported; what it says about itself."""

    def count(self, known: Run) -> Run:
        """How many GPUs it sees, and if none, why."""

    def product(self, index: int | None) -> Product:
        """A verified product on this GPU, or on the CPU."""


def framework(name: str) -> Smoke:
    """The part of this framework. Raises ValueError."""
    if name == "torch":
        from .torch_smoke import Torch

        return Torch()
    if name == "tensorflow":
        from .tensorflow_smoke import TensorFlow

        return TensorFlow()
    raise ValueError(f"no such framework: {name}")


def carry_out(channel: Channel, framework: Smoke, *, on_gpus: bool) -> None:
    """Told: how far the framework came, again after every step, so that a crash loses nothing."""
    known = Run()
    try:
        channel.begin(f"import {framework.name}")
        known = framework.load()
        channel.tell(known)
        if on_gpus:
            channel.begin("counting the GPUs")
            known = framework.count(known)
    except Exception as error:  # noqa: BLE001  a framework raises anything; what it raised is the result
        known = dataclasses.replace(known, failure=described(error))
    channel.tell(known)
    if not known.failure:
        for index in range(known.count or 0) if on_gpus else (None,):
            channel.begin("the product on " + ("the CPU" if index is None else f"GPU {index}"))
            channel.add("products", _product(framework, index))


def _product(framework: Smoke, index: int | None) -> Product:
    try:
        return framework.product(index)
    except Exception as error:  # noqa: BLE001  as above: one GPU that fails says nothing about the next
        return Product(index, failure=described(error))
