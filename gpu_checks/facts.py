"""What the probes saw, before anybody judges it: the values that cross from a child process to its parent.

A child sends them as JSON and the parent decodes them here, strictly: what a crashing driver may have mangled is
``Malformed``, not a surprise later on. Annotations are evaluated at run time on Python 3.9, hence ``Optional``.
"""

import dataclasses
import enum
from dataclasses import dataclass, field
from typing import Any, Generic, Optional, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

NO_SYMBOL = -1  # in CallError.code: the library has no such function
NVML_NO_PERMISSION = 4


@dataclass(frozen=True)
class CallError:
    """A call of the driver that did not succeed."""

    call: str
    code: int
    name: str


@dataclass(frozen=True)
class CudaDevice:
    """A device as CUDA counts it. With ``error``, asking for it failed and the rest is as far as it came."""

    index: int
    uuid: str = ""
    name: str = ""
    total_bytes: int = 0
    capability: str = ""
    multiprocessors: int = 0
    error: Optional[CallError] = None


@dataclass(frozen=True)
class CudaFacts:
    """What ``libcuda.so.1`` says. ``count`` is None where it could not be asked."""

    library: bool
    load_error: str = ""
    driver_version: int = 0  # 1000 × major + 10 × minor, as cuDriverGetVersion has it
    error: Optional[CallError] = None
    count: Optional[int] = None
    devices: tuple[CudaDevice, ...] = ()


@dataclass(frozen=True)
class Health:
    """What NVML says about the board. ``None``: not reported here, which is neither good nor bad."""

    ecc_uncorrected: Optional[int] = None  # since the driver was loaded
    ecc_uncorrected_lifetime: Optional[int] = None
    ecc_corrected_lifetime: Optional[int] = None
    remapped_rows_uncorrected: Optional[int] = None
    remapped_rows_corrected: Optional[int] = None
    remap_pending: Optional[bool] = None
    remap_failed: Optional[bool] = None
    retired_pages: Optional[int] = None
    retired_pages_pending: Optional[bool] = None
    pcie_replays: Optional[int] = None
    clock_event_reasons: Optional[int] = None  # bits of nvmlClocksEventReasons
    temperature_c: Optional[int] = None


@dataclass(frozen=True)
class NvmlDevice:
    """A GPU or a MIG instance as NVML lists it; ``parent`` is the GPU's UUID for an instance."""

    index: int
    uuid: str = ""
    name: str = ""
    parent: str = ""
    mig_enabled: bool = False
    health: Health = field(default_factory=Health)
    error: Optional[CallError] = None

    @property
    def forbidden(self) -> bool:
        """Whether this container may not ask it: NVML counts the GPUs of the whole node."""
        return self.error is not None and self.error.code == NVML_NO_PERMISSION


@dataclass(frozen=True)
class NvmlFacts:
    """What ``libnvidia-ml.so.1`` says."""

    library: bool
    driver_version: str = ""
    error: Optional[CallError] = None
    devices: tuple[NvmlDevice, ...] = ()

    @property
    def usable(self) -> tuple[NvmlDevice, ...]:
        """What a program could compute on: instances, and GPUs that are not divided and not somebody else's."""
        return tuple(device for device in self.devices if not device.mig_enabled and not device.forbidden)


@dataclass(frozen=True)
class Mismatch:
    """Data that came back different: where first, and how much of it."""

    step: str
    offset: int
    expected: str  # the 8 bytes at the offset, in hexadecimal
    actual: str
    wrong_bytes: int
    wrong_bits: int


@dataclass(frozen=True)
class Trial:
    """A test that was carried out, or stopped at ``error``. It passed if it has neither error nor mismatch."""

    tested_bytes: int = 0
    error: Optional[CallError] = None
    mismatch: Optional[Mismatch] = None


@dataclass(frozen=True)
class GpuFacts:
    """What one GPU did. A test that was not reached is None."""

    uuid: str = ""
    free_bytes: Optional[int] = None
    total_bytes: Optional[int] = None
    setup: Optional[CallError] = None
    memory: Optional[Trial] = None
    kernel: Optional[Trial] = None


@dataclass(frozen=True)
class Silence:
    """Why a probe gave no whole answer.

    ``reason`` is one of ``hung``, ``unkillable`` (hung, and SIGKILL did not end it), ``crashed`` (the driver ended the
    process), ``killed`` (somebody else did), ``garbled``, ``defect`` (of ours) and ``not started``. ``call`` is the
    last call of the driver that was begun.
    """

    reason: str
    call: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Heard(Generic[T]):
    """An answer. With a ``silence`` the facts, if any, are those from before it."""

    facts: Optional[T] = None
    silence: Optional[Silence] = None


@dataclass(frozen=True)
class Target:
    """A device to be tested: CUDA's index, and the UUID it must have."""

    index: int
    uuid: str
    mig_only: bool = False  # CUDA shows a process one instance at a time: this one must be asked for by its UUID


@dataclass(frozen=True)
class Surroundings:
    """What a container allows. None: no limit, or it cannot be read."""

    shm_bytes: Optional[int] = None  # the size of /dev/shm
    memory_limit_bytes: Optional[int] = None
    cpu_limit: Optional[float] = None  # cores
    pids_left: Optional[int] = None
    visible_devices: Optional[str] = None  # CUDA_VISIBLE_DEVICES
    library_directories: tuple[str, ...] = ()  # those of LD_LIBRARY_PATH that hold a libcuda.so.1
    image_cuda: str = ""  # the version of CUDA that the image was built for, where it says so
    mps: bool = False  # CUDA talks to an MPS server


@dataclass(frozen=True)
class Facts:
    """Everything a verdict is made of."""

    cuda: Heard[CudaFacts]
    nvml: Heard[NvmlFacts]
    gpus: tuple[tuple[Target, Heard[GpuFacts]], ...] = ()
    hidden: bool = False  # CUDA_VISIBLE_DEVICES is set
    device_files: tuple[str, ...] = ()  # of GPUs, in /dev
    surroundings: Surroundings = field(default_factory=Surroundings)
    before: tuple[tuple[str, Health], ...] = ()  # what the last report here said of each GPU, by UUID
    before_at: str = ""  # when that was


class Malformed(ValueError):
    """The data are not what this type is made of."""


def encode(facts: Any) -> Any:
    """Plain data for ``json.dumps`` from a dataclass of this module."""
    return dataclasses.asdict(facts)


def decode(kind: type[T], data: object) -> T:
    """The dataclass ``kind`` from plain data. Raises Malformed."""
    value: T = _decode(kind, data)
    return value


def _decode(kind: Any, data: Any) -> Any:
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        if not isinstance(data, dict) or set(data) != set(hints):
            raise Malformed(f"not a {getattr(kind, '__name__', kind)}")
        return kind(**{name: _decode(hint, data[name]) for name, hint in hints.items()})  # type: ignore[operator]
    if get_origin(kind) is Union:
        return None if data is None else _decode(get_args(kind)[0], data)
    if get_origin(kind) is tuple:
        if not isinstance(data, (list, tuple)):
            raise Malformed("not a list")
        return tuple(_decode(get_args(kind)[0], item) for item in data)
    if issubclass(kind, enum.Enum):
        try:
            return kind(data)
        except ValueError:
            raise Malformed(f"{data!r:.40} is no {kind.__name__}") from None
    if type(data) is not kind:
        raise Malformed(f"{data!r:.40} is no {kind.__name__}")
    return data


def short_uuid(uuid: str) -> str:
    """What is common to CUDA's and NVML's spelling of one device: the 32 digits, without ``GPU-`` or ``MIG-``."""
    return uuid.lower().replace("gpu-", "").replace("mig-", "").replace("-", "")
