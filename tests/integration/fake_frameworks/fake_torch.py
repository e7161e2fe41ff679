"""A PyTorch without a GPU: the few calls of the smoke test, on three numbers, with faults by environment.

FAKE_TORCH_COUNT=2              how many GPUs it sees (1)
FAKE_TORCH_WHY=text             the error of ``cuda.init`` where it sees none
FAKE_TORCH_ARCHITECTURES=a,b    what ``get_arch_list`` says
FAKE_TORCH_WRONG=1              products on this GPU are wrong by one part in a thousand; nan: no number
FAKE_TORCH_RAISE=1:text         products on this GPU raise that
FAKE_TORCH_ELSEWHERE=1          products are computed on the CPU, whatever was asked for
FAKE_TORCH_AT=import,count,product   where FAKE_TORCH_DO (hang, crash, exit, kill, raise) happens
FAKE_TORCH_REMEMBER=file        the process's niceness is written there
"""

from __future__ import annotations

import operator
import os
import random
import signal
import sys
import time
from types import SimpleNamespace

_ENVIRON = os.environ


def _happen(place: str) -> None:
    if place not in _ENVIRON.get("FAKE_TORCH_AT", "").split(","):
        return
    deed = _ENVIRON["FAKE_TORCH_DO"]
    sys.stderr.write("the last words\n")
    sys.stderr.flush()
    if deed == "hang":
        time.sleep(600)
    elif deed == "exit":
        sys.exit(3)
    elif deed == "raise":
        raise ImportError("libcudnn.so.9: cannot open shared object file")
    else:
        os.kill(os.getpid(), {"crash": signal.SIGSEGV, "kill": signal.SIGKILL}[deed])


_happen("import")
if "FAKE_TORCH_REMEMBER" in _ENVIRON:
    with open(_ENVIRON["FAKE_TORCH_REMEMBER"], "w") as _file:
        _file.write(str(os.nice(0)))


class _Tensor:
    def __init__(self, values: list[float], device: str = "cpu") -> None:
        self.values, self.device = values, device

    def to(self, device: str) -> _Tensor:
        return _Tensor(self.values, device)

    def cpu(self) -> _Tensor:
        return self.to("cpu")

    def double(self) -> _Tensor:
        return self.to("double")

    def __matmul__(self, other: _Tensor) -> _Tensor:
        if self.device == "double":
            return _Tensor(list(map(operator.mul, self.values, other.values)))
        _happen("product")
        device = self.device
        index = device.partition(":")[2] or "cpu"
        which, _, text = _ENVIRON.get("FAKE_TORCH_RAISE", "").partition(":")
        if text and which == index:
            raise RuntimeError(text)
        wrong = _ENVIRON.get("FAKE_TORCH_WRONG", "").split(":")
        factor = (float("nan") if "nan" in wrong else 1.001) if index in wrong else 1.0
        if "FAKE_TORCH_ELSEWHERE" in _ENVIRON and index != "cpu":
            device = "cpu"
        return _Tensor([product * factor for product in map(operator.mul, self.values, other.values)], device)

    def __mul__(self, factor: float) -> _Tensor:
        return _Tensor([value * factor for value in self.values], self.device)

    def __sub__(self, other: _Tensor) -> _Tensor:
        return _Tensor(list(map(operator.sub, self.values, other.values)))

    def __truediv__(self, other: _Tensor) -> _Tensor:
        return _Tensor(list(map(operator.truediv, self.values, other.values)))

    def abs(self) -> _Tensor:
        return _Tensor([abs(value) for value in self.values])

    def max(self) -> float:
        return max(self.values)


class Generator:
    def manual_seed(self, seed: int) -> random.Random:
        return random.Random(seed)


def rand(rows: int, columns: int, generator: random.Random) -> _Tensor:
    assert rows == columns
    return _Tensor([generator.uniform(0.1, 1) for _ in range(3)])


def nan_to_num(tensor: _Tensor, nan: float) -> _Tensor:
    return _Tensor([nan if value != value else value for value in tensor.values])


def device(kind: str, index: int | None = None) -> str:
    return kind if index is None else f"{kind}:{index}"


def set_num_threads(number: int) -> None:
    assert number == 1


def _count() -> int:
    _happen("count")
    hidden = _ENVIRON.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return 0 if hidden else int(_ENVIRON.get("FAKE_TORCH_COUNT", "1"))


def _init() -> None:
    raise RuntimeError(_ENVIRON.get("FAKE_TORCH_WHY", "No CUDA GPUs are available"))


def _properties(index: int) -> SimpleNamespace:
    return SimpleNamespace(name="Fake A100", uuid=f"00000000-1111-2222-3333-4444444444{index:02x}", major=8, minor=0)


__version__ = "2.13.0"
version = SimpleNamespace(cuda=_ENVIRON.get("FAKE_TORCH_CUDA", "12.4"))
backends = SimpleNamespace(cuda=SimpleNamespace(matmul=SimpleNamespace(allow_tf32=True)))
cuda = SimpleNamespace(
    device_count=_count,
    init=_init,
    get_arch_list=lambda: _ENVIRON.get("FAKE_TORCH_ARCHITECTURES", "sm_80,compute_90").split(","),
    get_device_properties=_properties,
)
