"""A TensorFlow without a GPU: the few calls of the smoke test, on one number, with faults by environment.

FAKE_TF_COUNT=2       how many GPUs it sees (1)
FAKE_TF_LOG=text      what it prints on standard error while it counts them
FAKE_TF_WRONG=1       products on this GPU are wrong
"""

from __future__ import annotations

import builtins
import contextlib
import math as arithmetic
import os
import random as dice
import sys
from collections.abc import Iterator
from types import SimpleNamespace

_PLACE = ["/CPU:0"]
_GROWING: set[str] = set()
__version__ = "2.21.0"
float64 = "float64"
abs = builtins.abs


class _Tensor(float):
    device = ""

    def __mul__(self, factor: float) -> _Tensor:
        return _Tensor.placed(float(self) * factor)

    @classmethod
    def placed(cls, value: float) -> _Tensor:
        made = cls(value)
        made.device = f"/job:localhost/replica:0/task:0/device:{_PLACE[-1].lstrip('/')}"
        return made


@contextlib.contextmanager
def device(place: str) -> Iterator[None]:
    _PLACE.append(place)
    yield
    _PLACE.pop()


def matmul(left: float, right: float) -> _Tensor:
    gpu = _PLACE[-1].startswith("/GPU:")
    if gpu and f"GPU{_PLACE[-1][5:]}" not in _GROWING:
        raise RuntimeError("all memory of the GPU would be taken")
    wrong = gpu and _PLACE[-1].endswith(f":{os.environ.get('FAKE_TF_WRONG')}")
    return _Tensor.placed(left * right * (1.01 if wrong else 1.0))


def _list(kind: str) -> list[str]:
    assert kind == "GPU"
    if "FAKE_TF_LOG" in os.environ:
        sys.stderr.write(os.environ["FAKE_TF_LOG"] + "\n")
        sys.stderr.flush()
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return [] if hidden else [f"GPU{index}" for index in range(int(os.environ.get("FAKE_TF_COUNT", "1")))]


def _grow(gpu: str, on: bool) -> None:
    assert on
    _GROWING.add(gpu)


def _ignored(_: object) -> None:
    return None


math = SimpleNamespace(is_finite=arithmetic.isfinite)
random = SimpleNamespace(
    stateless_uniform=lambda shape, seed: dice.Random(sum(seed)).uniform(0.1, 1) if shape[0] == shape[1] else 0.0
)
config = SimpleNamespace(
    list_physical_devices=_list,
    set_soft_device_placement=_ignored,
    threading=SimpleNamespace(set_intra_op_parallelism_threads=_ignored, set_inter_op_parallelism_threads=_ignored),
    experimental=SimpleNamespace(
        enable_tensor_float_32_execution=_ignored,
        tensor_float_32_execution_enabled=lambda: False,
        set_memory_growth=_grow,
        get_device_details=lambda _: {"device_name": "Fake A100", "compute_capability": (8, 0)},
    ),
)
sysconfig = SimpleNamespace(get_build_info=lambda: {"cuda_version": "12.5.1", "cuda_compute_capabilities": ["sm_80"]})


def cast(tensor: float, kind: str) -> float:
    assert kind == float64
    return tensor


def identity(tensor: float) -> float:
    return tensor


def constant(value: float, _kind: str) -> float:
    return value


def where(condition: bool, yes: float, no: float) -> float:
    return yes if condition else no


def reduce_max(value: float) -> float:
    return value
