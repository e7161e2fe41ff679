"""A probe: the child process that asks the driver, and tells its parent how far it came.

Its arguments are its parent's process id, and ``cuda``, ``nvml``, or ``gpu INDEX UUID``; in the notebook's own Python
``wheels``, or ``framework NAME gpu`` or ``cpu``.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

from . import facts
from .channel import Channel

PR_SET_PDEATHSIG = 1  # prctl(2)


def main(arguments: list[str]) -> None:
    """Never returns: the answer is given, and the process waits to be ended by its parent.

    It stays because the first client of a GPU without persistence mode pays 1 to 3 seconds for starting it up: while
    one process holds the driver open, the next one starts at once.
    """
    parent, *asked = arguments
    _die_with(int(parent))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is a result, not a file in the user's home
    channel = Channel()
    defect = ""
    try:
        _probe(channel, asked)
    except Exception as error:  # noqa: BLE001  outermost: told as our own defect, which is never a verdict on a GPU
        defect = f"{type(error).__name__}: {error}"
    channel.end(defect)
    sys.stdin.buffer.read()  # ends when the parent closes its side, or dies
    os._exit(0)  # without the driver's own clean-up, which has been seen to hang


def _probe(channel: Channel, arguments: list[str]) -> None:
    # Each probe loads what it needs: a zip archive has no compiled modules, and their source takes its time.
    if arguments == ["cuda"]:
        from . import driver

        try:
            driver.look(driver.Driver(channel), channel)
        except driver.LibraryMissing as missing:
            channel.tell(facts.CudaFacts(False, load_error=str(missing), count=0))
    elif arguments == ["nvml"]:
        from . import nvml

        nvml.look(channel)
    elif len(arguments) == 3 and arguments[0] == "gpu":
        _gpu(channel, int(arguments[1]), arguments[2])
    elif arguments == ["wheels"]:
        from . import wheels

        wheels.look(channel)
    elif len(arguments) == 3 and arguments[0] == "framework":
        from . import smoke

        smoke.carry_out(channel, smoke.framework(arguments[1]), on_gpus=arguments[2] == "gpu")
    else:
        raise ValueError(f"no such probe: {arguments}")


def _gpu(channel: Channel, index: int, uuid: str) -> None:
    """Memory first, the kernel second: a driver without its compiler can still copy."""
    from . import compute, driver, memory

    cuda = driver.Driver(channel)
    known = facts.GpuFacts()
    try:
        cuda.call("cuInit", 0)
        device = cuda.integer("cuDeviceGet", index)
        known = facts.GpuFacts(uuid=cuda.uuid(device))
        if facts.short_uuid(known.uuid) != facts.short_uuid(uuid):
            channel.tell(known)
            return
        with cuda.context(device):
            free, total = cuda.memory_info()
            known = facts.GpuFacts(known.uuid, free, total)
            channel.tell(known)
            known = facts.GpuFacts(known.uuid, free, total, memory=memory.verify(cuda))
            channel.tell(known)
            known = facts.GpuFacts(known.uuid, free, total, memory=known.memory, kernel=compute.verify(cuda))
            channel.tell(known)
    except driver.CallFailed as failure:
        channel.tell(
            facts.GpuFacts(known.uuid, known.free_bytes, known.total_bytes, failure.error, known.memory, known.kernel)
        )


def _die_with(parent: int) -> None:
    """The kernel kills this process when the parent is gone, whatever it was doing."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it went before the kernel was told
        os._exit(0)
