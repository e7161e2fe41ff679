"""PyTorch's part of the smoke test."""

from __future__ import annotations

import dataclasses
from typing import Any

from .framework_facts import Product, Run, described
from .smoke import SEED, SIZE, TOLERANCE_FP32, TOLERANCE_TF32


class Torch:
    """PyTorch, once it is imported."""

    name = "torch"

    def __init__(self) -> None:
        self._torch: Any = None

    def load(self) -> Run:
        """It is imported, with one thread, and without TF32 as far as it lets itself be told."""
        import torch

        self._torch = torch
        torch.set_num_threads(1)  # what it checks runs beside the user's own work
        torch.backends.cuda.matmul.allow_tf32 = False
        return Run(version=str(torch.__version__), cuda=str(torch.version.cuda or ""))

    def count(self, known: Run) -> Run:
        """``device_count`` can be asked without a GPU; ``init`` then says why there is none."""
        count, reason = int(self._torch.cuda.device_count()), ""
        if not count:
            try:
                self._torch.cuda.init()
            except (RuntimeError, AssertionError) as error:
                reason = described(error)
        architectures = tuple(str(name) for name in self._torch.cuda.get_arch_list()) if count else ()
        return dataclasses.replace(known, count=count, reason=reason, architectures=architectures)

    def product(self, index: int | None) -> Product:
        """Other numbers on each GPU, so that no result can be another's."""
        torch = self._torch
        device = torch.device("cpu") if index is None else torch.device("cuda", index)
        generator = torch.Generator().manual_seed(SEED + (0 if index is None else index))
        left = torch.rand(SIZE, SIZE, generator=generator)
        right = torch.rand(SIZE, SIZE, generator=generator)
        answer = (left.to(device) @ right.to(device)) * 0.5  # the product is cuBLAS's, halving it PyTorch's own kernel
        truth = (left.double() @ right.double()) * 0.5
        errors = (answer.cpu().double() - truth).abs() / truth
        known = Product(
            index,
            placed=str(answer.device),
            error=float(torch.nan_to_num(errors, nan=float("inf")).max()),
            tolerance=TOLERANCE_TF32 if self._tf32(index) else TOLERANCE_FP32,
        )
        return known if index is None else self._named(known, index)

    def _named(self, known: Product, index: int) -> Product:
        properties = self._torch.cuda.get_device_properties(index)
        return dataclasses.replace(
            known,
            name=str(properties.name),
            uuid=str(getattr(properties, "uuid", "")),  # since PyTorch 2.4
            capability=f"{properties.major}.{properties.minor}",
        )

    def _tf32(self, index: int | None) -> bool:
        return index is not None and bool(self._torch.backends.cuda.matmul.allow_tf32)
