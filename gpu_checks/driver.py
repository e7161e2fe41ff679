"""The CUDA driver, ``libcuda.so.1``, by ctypes: no framework, no runtime library, any image.

Signatures: ``cuda.h`` of CUDA 12. The names without ``_v2`` that have a ``_v2`` beside them are the ABI of CUDA 3,
with 32-bit addresses. Only a probe's child process comes here: each of these calls can crash or never return.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_ubyte, c_uint, c_ulonglong, c_void_p
from typing import Any

from .channel import Channel
from .facts import NO_SYMBOL, CallError, CudaDevice, CudaFacts

LIBRARY = "libcuda.so.1"

MULTIPROCESSOR_COUNT = 16  # CUdevice_attribute
COMPUTE_CAPABILITY_MAJOR = 75
COMPUTE_CAPABILITY_MINOR = 76

NAME_BYTES = 256
UUID_BYTES = 16
NOT_FOUND_CODES = (34, 100)  # a stub library, no device: the driver says plainly that there is nothing to use

Address = int  # CUdeviceptr

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetUuid": (POINTER(c_ubyte * UUID_BYTES), c_int),
    "cuDeviceGetUuid_v2": (POINTER(c_ubyte * UUID_BYTES), c_int),
    "cuDeviceTotalMem_v2": (POINTER(c_size_t), c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxPushCurrent_v2": (c_void_p,),
    "cuCtxPopCurrent_v2": (POINTER(c_void_p),),
    "cuCtxSynchronize": (),
    "cuMemGetInfo_v2": (POINTER(c_size_t), POINTER(c_size_t)),
    "cuMemAlloc_v2": (POINTER(c_ulonglong), c_size_t),
    "cuMemFree_v2": (c_ulonglong,),
    "cuMemsetD32_v2": (c_ulonglong, c_uint, c_size_t),
    "cuMemcpyHtoD_v2": (c_ulonglong, c_void_p, c_size_t),
    "cuMemcpyDtoH_v2": (c_void_p, c_ulonglong, c_size_t),
    "cuMemcpyDtoD_v2": (c_ulonglong, c_ulonglong, c_size_t),
    "cuModuleLoadData": (POINTER(c_void_p), c_char_p),
    "cuModuleUnload": (c_void_p,),
    "cuModuleGetFunction": (POINTER(c_void_p), c_void_p, c_char_p),
    "cuLaunchKernel": (c_void_p, *[c_uint] * 7, c_void_p, POINTER(c_void_p), POINTER(c_void_p)),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
}


class LibraryMissing(Exception):
    """There is no ``libcuda.so.1`` that can be loaded; the text is the loader's."""


class CallFailed(Exception):
    """A call returned something else than CUDA_SUCCESS."""

    def __init__(self, error: CallError) -> None:
        super().__init__(f"{error.call}: {error.code} {error.name}")
        self.error = error


class Driver:
    """The loaded library. The channel is told the name of every call before it is made."""

    def __init__(self, channel: Channel) -> None:
        self._begin = channel.begin
        channel.begin("dlopen " + LIBRARY)
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise LibraryMissing(str(error)) from error

    def has(self, name: str) -> bool:
        """Whether this library knows the function."""
        return hasattr(self._library, name)

    def call(self, name: str, *arguments: Any) -> None:
        """The call succeeded. Raises CallFailed."""
        if not self.has(name):
            raise CallFailed(CallError(name, NO_SYMBOL, "not in this driver"))
        function = getattr(self._library, name)
        function.argtypes = _SIGNATURES[name]
        function.restype = c_int
        self._begin(name)
        code = function(*arguments)
        if code != 0:
            raise CallFailed(CallError(name, code, self._error_name(code)))

    @contextmanager
    def afterwards(self, name: str, *arguments: Any) -> Iterator[None]:
        """The call is made in any case; where the body failed, it is that failure which is raised."""
        try:
            yield
        except CallFailed:
            with suppress(CallFailed):
                self.call(name, *arguments)
            raise
        self.call(name, *arguments)

    def integer(self, name: str, *arguments: Any) -> int:
        """What a call with an ``int *`` as its first parameter writes there."""
        value = c_int()
        self.call(name, byref(value), *arguments)
        return value.value

    def _error_name(self, code: int) -> str:
        if not self.has("cuGetErrorName"):
            return ""
        name = c_char_p()
        function = self._library.cuGetErrorName
        function.argtypes = _SIGNATURES["cuGetErrorName"]
        function.restype = c_int
        return (name.value or b"").decode("utf-8", "replace") if function(code, byref(name)) == 0 else ""

    # Devices

    def uuid(self, device: int) -> str:
        """The device's UUID; for a MIG instance the instance's, where the driver is new enough (470) to say."""
        raw = (c_ubyte * UUID_BYTES)()
        self.call("cuDeviceGetUuid_v2" if self.has("cuDeviceGetUuid_v2") else "cuDeviceGetUuid", byref(raw), device)
        digits = bytes(raw).hex()
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def name(self, device: int) -> str:
        """The device's name."""
        text = ctypes.create_string_buffer(NAME_BYTES)
        self.call("cuDeviceGetName", text, NAME_BYTES, device)
        return text.value.decode("utf-8", "replace")

    def total_bytes(self, device: int) -> int:
        """The device's memory."""
        size = c_size_t()
        self.call("cuDeviceTotalMem_v2", byref(size), device)
        return size.value

    # Contexts and memory

    @contextmanager
    def context(self, device: int) -> Iterator[None]:
        """The device's primary context is current; afterwards it is given back, and with it all memory."""
        handle = c_void_p()
        self.call("cuDevicePrimaryCtxRetain", byref(handle), device)
        with self.afterwards("cuDevicePrimaryCtxRelease_v2", device):
            self.call("cuCtxPushCurrent_v2", handle)
            with self.afterwards("cuCtxPopCurrent_v2", byref(handle)):
                yield

    def memory_info(self) -> tuple[int, int]:
        """Free and total bytes of the current device."""
        free, total = c_size_t(), c_size_t()
        self.call("cuMemGetInfo_v2", byref(free), byref(total))
        return free.value, total.value

    @contextmanager
    def allocated(self, size_bytes: int) -> Iterator[Address]:
        """Memory on the device, freed afterwards."""
        address = c_ulonglong()
        self.call("cuMemAlloc_v2", byref(address), size_bytes)
        with self.afterwards("cuMemFree_v2", address.value):
            yield address.value

    def fill(self, address: Address, word: int, size_bytes: int) -> None:
        """Each 32-bit word there has this value."""
        self.call("cuMemsetD32_v2", address, word, size_bytes // 4)

    def write(self, address: Address, data: bytes) -> None:
        """The device holds these bytes."""
        self.call("cuMemcpyHtoD_v2", address, data, len(data))

    def read(self, address: Address, stale: bytes) -> bytes:
        """As many bytes as ``stale`` has. They land on a copy of it, so that a copy that does nothing shows."""
        buffer = ctypes.create_string_buffer(stale, len(stale))
        self.call("cuMemcpyDtoH_v2", buffer, address, len(stale))
        return buffer.raw

    def copy(self, target: Address, source: Address, size_bytes: int) -> None:
        """The device copies the bytes by itself, before it does what is asked of it next (one stream, in order)."""
        self.call("cuMemcpyDtoD_v2", target, source, size_bytes)


def look(driver: Driver, channel: Channel) -> None:
    """Told: what the driver says about itself and its devices, again after every step, so that a hang loses nothing."""
    version = 0
    try:
        version = driver.integer("cuDriverGetVersion")  # allowed before cuInit
        channel.tell(CudaFacts(True, driver_version=version))
        driver.call("cuInit", 0)
        count = driver.integer("cuDeviceGetCount")
    except CallFailed as failure:
        known = 0 if failure.error.code in NOT_FOUND_CODES else None
        channel.tell(CudaFacts(True, driver_version=version, error=failure.error, count=known))
        return
    channel.tell(CudaFacts(True, driver_version=version, count=count))
    for index in range(count):
        channel.add("devices", _device(driver, index))


def _device(driver: Driver, index: int) -> CudaDevice:
    uuid = name = capability = ""
    total = multiprocessors = 0
    try:
        device = driver.integer("cuDeviceGet", index)
        uuid = driver.uuid(device)
        name = driver.name(device)
        total = driver.total_bytes(device)
        multiprocessors = driver.integer("cuDeviceGetAttribute", MULTIPROCESSOR_COUNT, device)
        major = driver.integer("cuDeviceGetAttribute", COMPUTE_CAPABILITY_MAJOR, device)
        capability = f"{major}.{driver.integer('cuDeviceGetAttribute', COMPUTE_CAPABILITY_MINOR, device)}"
    except CallFailed as failure:
        return CudaDevice(index, uuid, name, total, capability, multiprocessors, failure.error)
    return CudaDevice(index, uuid, name, total, capability, multiprocessors)
