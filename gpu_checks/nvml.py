"""What the management library says, through nvidia-ml-py. Only a probe's child process comes here.

Everything about a board's health is optional: a GeForce has no ECC, a MIG instance may not ask its GPU, an old driver
lacks functions. What is refused stays None, which is neither good nor bad.
"""

from __future__ import annotations

from typing import Any

from .channel import Channel
from .facts import CallError, Health, NvmlDevice, NvmlFacts

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

    def ecc(kind: int) -> int | None:
        value = _optional(
            channel, "nvmlDeviceGetTotalEccErrors", handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, kind
        )
        return None if value is None else int(value)

    rows = _optional(channel, "nvmlDeviceGetRemappedRows", handle)
    pages = _optional(channel, "nvmlDeviceGetRetiredPagesPendingStatus", handle)
    reasons = _optional(channel, "nvmlDeviceGetCurrentClocksEventReasons", handle)
    if reasons is None:  # its name before driver 535
        reasons = _optional(channel, "nvmlDeviceGetCurrentClocksThrottleReasons", handle)
    temperature = _optional(channel, "nvmlDeviceGetTemperature", handle, pynvml.NVML_TEMPERATURE_GPU)
    return Health(
        ecc_uncorrected=ecc(pynvml.NVML_VOLATILE_ECC),
        ecc_uncorrected_lifetime=ecc(pynvml.NVML_AGGREGATE_ECC),
        remapped_rows_uncorrected=None if rows is None else int(rows[1]),
        remap_pending=None if rows is None else bool(rows[2]),
        remap_failed=None if rows is None else bool(rows[3]),
        retired_pages_pending=None if pages is None else bool(pages),
        clock_event_reasons=None if reasons is None else int(reasons),
        temperature_c=None if temperature is None else int(temperature),
    )


def _optional(channel: Channel, name: str, *arguments: Any) -> Any:
    """What the function returns, or None where it is not there, not supported or not permitted."""
    import pynvml

    channel.begin(name)
    try:
        return getattr(pynvml, name)(*arguments)
    except (pynvml.NVMLError, AttributeError):
        return None


def _text(value: Any) -> str:
    """nvidia-ml-py returns bytes or text, depending on its version."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
