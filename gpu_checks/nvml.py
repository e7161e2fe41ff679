"""What the management library says, through nvidia-ml-py. Only a probe's child process comes here.

Everything about a board's health is optional: a GeForce has no ECC, a MIG instance may not ask its GPU, an old driver
lacks functions. What is refused stays None, which is neither good nor bad.
"""

from __future__ import annotations

from typing import Any

from .channel import Channel
from .facts import CallError, Health, NvmlDevice, NvmlFacts
from .result import plain

LONGEST_TEXT = 100  # NVML's own buffers for a name or a UUID have 96 bytes
NO_BINDING = "import pynvml"  # CallError.call where nvidia-ml-py is not installed


def look(channel: Channel) -> None:
    """Told: what NVML lists, again after every device, so that a hang loses nothing."""
    try:
        import pynvml
    except ImportError as error:
        channel.tell(NvmlFacts(False, error=CallError(NO_BINDING, -1, str(error))))
        return
    channel.begin("nvmlInit")
    try:
        pynvml.nvmlInit()
        version = _text(_optional(channel, "nvmlSystemGetDriverVersion") or "")
        channel.begin("nvmlDeviceGetCount")
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        missing = error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
        channel.tell(NvmlFacts(not missing, error=CallError("nvmlInit", error.value, str(error))))
        return
    channel.tell(NvmlFacts(True, version))
    for index in range(count):
        for device in _devices(channel, index):
            channel.add("devices", device)


def _devices(channel: Channel, index: int) -> tuple[NvmlDevice, ...]:
    """A GPU, followed by its MIG instances."""
    import pynvml

    try:
        channel.begin("nvmlDeviceGetHandleByIndex")
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        channel.begin("nvmlDeviceGetUUID")
        uuid = _text(pynvml.nvmlDeviceGetUUID(handle))
    except pynvml.NVMLError as error:
        return (NvmlDevice(index, error=CallError("nvmlDeviceGetHandleByIndex", error.value, str(error))),)
    mode = _optional(channel, "nvmlDeviceGetMigMode", handle)
    mig_enabled = mode is not None and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE
    name = _text(_optional(channel, "nvmlDeviceGetName", handle) or "")
    gpu = NvmlDevice(index, uuid, name, mig_enabled=mig_enabled, health=_health(channel, handle))
    return (gpu, *(_instances(channel, handle, gpu) if mig_enabled else ()))


def _instances(channel: Channel, handle: Any, gpu: NvmlDevice) -> tuple[NvmlDevice, ...]:
    import pynvml

    found: list[NvmlDevice] = []
    for slot in range(_optional(channel, "nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
        channel.begin("nvmlDeviceGetMigDeviceHandleByIndex")
        try:
            instance = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, slot)
            uuid = _text(pynvml.nvmlDeviceGetUUID(instance))
        except pynvml.NVMLError:
            continue  # an empty slot is NVML_ERROR_NOT_FOUND, one of another container's NVML_ERROR_NO_PERMISSION
        name = _text(_optional(channel, "nvmlDeviceGetName", instance) or gpu.name)
        found.append(NvmlDevice(gpu.index, uuid, name, parent=gpu.uuid, health=gpu.health))
    return tuple(found)


def _health(channel: Channel, handle: Any) -> Health:
    import pynvml

    def number(name: str, *arguments: int) -> int | None:
        value = _optional(channel, name, handle, *arguments)
        return None if value is None else int(value)

    def ecc(severity: int, since: int) -> int | None:
        return number("nvmlDeviceGetTotalEccErrors", severity, since)

    uncorrected, corrected = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED
    volatile, lifetime = pynvml.NVML_VOLATILE_ECC, pynvml.NVML_AGGREGATE_ECC

    rows = _optional(channel, "nvmlDeviceGetRemappedRows", handle)
    pages = _optional(channel, "nvmlDeviceGetRetiredPagesPendingStatus", handle)
    reasons = number("nvmlDeviceGetCurrentClocksEventReasons")
    if reasons is None:  # its name before driver 535
        reasons = number("nvmlDeviceGetCurrentClocksThrottleReasons")
    return Health(
        ecc_uncorrected=ecc(uncorrected, volatile),
        ecc_uncorrected_lifetime=ecc(uncorrected, lifetime),
        ecc_corrected_lifetime=ecc(corrected, lifetime),
        remapped_rows_corrected=None if rows is None else int(rows[0]),
        remapped_rows_uncorrected=None if rows is None else int(rows[1]),
        remap_pending=None if rows is None else bool(rows[2]),
        remap_failed=None if rows is None else bool(rows[3]),
        retired_pages=_retired(channel, handle),
        retired_pages_pending=None if pages is None else bool(pages),
        pcie_replays=number("nvmlDeviceGetPcieReplayCounter"),
        clock_event_reasons=reasons,
        temperature_c=number("nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU),
    )


def _retired(channel: Channel, handle: Any) -> int | None:
    """Memory pages taken out of use for either cause; None where GPUs remap rows instead (Ampere and later)."""
    import pynvml

    causes = (
        pynvml.NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS,
        pynvml.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR,
    )
    pages = [_optional(channel, "nvmlDeviceGetRetiredPages", handle, cause) for cause in causes]
    known = [len(addresses) for addresses in pages if addresses is not None]
    return sum(known) if known else None


def _optional(channel: Channel, name: str, *arguments: Any) -> Any:
    """What the function returns, or None where it is not there, not supported or not permitted."""
    import pynvml

    channel.begin(name)
    try:
        return getattr(pynvml, name)(*arguments)
    except (pynvml.NVMLError, AttributeError):
        return None


def _text(value: Any) -> str:
    """One printable line: nvidia-ml-py returns bytes or text, depending on its version."""
    return plain(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value), LONGEST_TEXT)
