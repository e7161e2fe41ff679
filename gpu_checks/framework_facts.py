"""What is known about the frameworks of a notebook's Python, before anybody judges it.

The values cross from a child process as JSON, like those of ``facts``; annotations are evaluated at run time on Python
3.9, hence ``Optional``.
"""

import dataclasses
from dataclasses import dataclass
from typing import Optional

NAMES = ("torch", "tensorflow")  # as they are imported


@dataclass(frozen=True)
class Wheel:
    """A framework as it is installed: told by its files, without importing it."""

    name: str
    version: str = ""  # empty with an empty ``build``: not installed
    distribution: str = ""  # the package that brought it: tensorflow or tensorflow-cpu
    build: str = ""  # "cuda", "rocm" or "cpu"; empty where the files do not say
    cuda: str = ""  # the CUDA version that it was built for
    capabilities: tuple[str, ...] = ()  # sm_80, compute_90 …, where the files say it
    missing: tuple[str, ...] = ()  # nvidia-* packages that it names and that are not installed
    installed: bool = False


@dataclass(frozen=True)
class Installed:
    """What a Python has."""

    python: str  # its version
    wheels: tuple[Wheel, ...] = ()


@dataclass(frozen=True)
class Product:
    """A matrix product on one device, compared with the CPU's in double precision."""

    index: Optional[int]  # CUDA's; None for the CPU
    name: str = ""
    uuid: str = ""
    capability: str = ""
    placed: str = ""  # where the framework says that it computed
    error: Optional[float] = None  # the largest relative one of all elements; infinite for what is no number
    tolerance: float = 0.0
    failure: str = ""  # the exception


@dataclass(frozen=True)
class Run:
    """How far a framework came. ``count`` is None where it could not be asked for its GPUs."""

    version: str = ""
    cuda: str = ""
    architectures: tuple[str, ...] = ()  # the kernels it holds: sm_80 …, and compute_90 … for the driver's compiler
    failure: str = ""  # the exception that ended it
    count: Optional[int] = None
    reason: str = ""  # why there is no GPU, in the framework's words
    products: tuple[Product, ...] = ()


@dataclass(frozen=True)
class SeenGpu:
    """A GPU that the driver shows to a process here."""

    index: int
    uuid: str
    capability: str = ""


@dataclass(frozen=True)
class Situation:
    """What the driver-level checks found, for somebody who expects so many GPUs; None: nobody said."""

    expected: Optional[int]
    visible: int
    gpus: tuple[SeenGpu, ...] = ()
    driver_cuda: str = ""  # the newest CUDA that the driver can run: "12.4"
    hidden: bool = False  # CUDA_VISIBLE_DEVICES is set where the frameworks run

    @property
    def on_gpus(self) -> bool:
        """Whether the frameworks are to compute on GPUs. Those that nobody asked for are not touched."""
        return self.expected != 0 and self.visible > 0

    @property
    def without(self) -> bool:
        """Whether GPUs were asked for, and none can be used: then nothing can be said about a framework."""
        return bool(self.expected) and self.visible == 0


def described(error: BaseException) -> str:
    """An exception on one line, not too long for a report."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]


def with_products(run: Run, products: tuple[Product, ...]) -> Run:
    """The same run with these products."""
    return dataclasses.replace(run, products=products)
