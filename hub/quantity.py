"""Cores, memory and GPUs: parsed, added and compared as exact whole numbers.

Cores are counted in thousandths (``millicpu``), memory in bytes. The letters of a memory quantity are powers of 1024,
as JupyterHub reads them (``32G`` is 32 GiB, ``jupyterhub.traitlets.ByteSpecification``); ``Gi`` means the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

CPUS_REGEX = r"^[0-9]{1,15}(\.[0-9]{1,15})?m?$"
MEMORY_REGEX = r"^[0-9]{1,15}(\.[0-9]{1,15})?([KMGT]i?)?$"
"""What the two look like where they are text, for JSON Schema."""

_NUMBER = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(.*)", re.DOTALL)
_MEMORY_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4}
_MOST = 10**18


class QuantityError(ValueError):
    """A quantity that cannot be read; the text says what one looks like."""


def parse_millicpu(value: object) -> int:
    """Thousandths of a core in ``2``, ``0.5``, ``"2"`` or ``"500m"``. Raises ``QuantityError``."""
    number, unit = _split(value, "a number of cores such as 2, 0.5 or 500m")
    if unit not in ("", "m"):
        raise QuantityError(f"unit {unit[:10]!r} is not one of cores: write 2, 0.5 or 500m")
    return _whole(number * (1 if unit else 1000), "cores are counted in thousandths")


def parse_memory(value: object) -> int:
    """Bytes in ``"32G"``, ``"512M"``, ``"1.5Gi"`` or a plain number of bytes. Raises ``QuantityError``."""
    number, unit = _split(value, "an amount of memory such as 4G or 512M")
    if unit not in _MEMORY_UNITS:
        raise QuantityError(f"unit {unit[:10]!r} is not one of memory: write K, M, G or T")
    return _whole(number * 1024 ** _MEMORY_UNITS[unit], "memory is counted in bytes")


def parse_gpus(value: object) -> int:
    """The whole number of GPUs in ``1`` or ``"1"``. Raises ``QuantityError``."""
    number, unit = _split(value, "a whole number of GPUs")
    if unit:
        raise QuantityError("GPUs have no unit")
    return _whole(number, "a GPU cannot be divided")


def _split(value: object, example: str) -> tuple[Fraction, str]:
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    matched = _NUMBER.fullmatch(text) if isinstance(text, str) else None
    if matched is None:
        raise QuantityError(f"must be {example}")
    return Fraction(matched[1]), matched[2]


def _whole(number: Fraction, why: str) -> int:
    if number.denominator != 1:
        raise QuantityError(f"is too fine: {why}")
    if number > _MOST:
        raise QuantityError("is too large")
    return int(number)


def format_cpus(millicpu: int) -> str:
    """``2`` or ``0.5``: what ``parse_millicpu`` reads back exactly."""
    whole, rest = divmod(millicpu, 1000)
    return str(whole) if not rest else f"{whole}.{rest:03d}".rstrip("0")


def format_memory(size_bytes: int) -> str:
    """The largest unit that divides exactly: ``32G``, ``1536M``. ``parse_memory`` reads it back exactly."""
    for unit, power in (("T", 4), ("G", 3), ("M", 2), ("K", 1)):
        if size_bytes and size_bytes % 1024**power == 0 and (unit != "T" or size_bytes >= 1024**4):
            return f"{size_bytes // 1024**power}{unit}"
    return str(size_bytes)


def gpus_text(gpus: int) -> str:
    """``no GPU``, ``1 GPU``, ``2 GPUs``."""
    return "no GPU" if gpus == 0 else f"{gpus} GPU" + ("s" if gpus > 1 else "")


def cores_text(millicpu: int) -> str:
    """``1 core``, ``0.5 cores``."""
    return f"{format_cpus(millicpu)} core" + ("" if millicpu == 1000 else "s")


def memory_text(size_bytes: int) -> str:
    """``4 GB memory``: to users as JupyterHub and its documentation write it."""
    quantity = format_memory(size_bytes)
    return f"{quantity[:-1]} {quantity[-1]}B memory" if quantity[-1] in "KMGT" else f"{quantity} bytes of memory"


def cpus_number(millicpu: int) -> int | float:
    """Cores as a number for JSON: ``2``, ``0.5``."""
    return millicpu // 1000 if millicpu % 1000 == 0 else millicpu / 1000


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a server has, or what a user may have in all. Raises ``QuantityError`` for less than nothing."""

    millicpu: int = 0
    memory_bytes: int = 0
    gpus: int = 0

    def __post_init__(self) -> None:
        if self.millicpu < 0 or self.memory_bytes < 0 or self.gpus < 0:
            raise QuantityError("less than nothing: what runs would make room instead of taking it")

    def __add__(self, other: Size) -> Size:
        return Size(
            millicpu=self.millicpu + other.millicpu,
            memory_bytes=self.memory_bytes + other.memory_bytes,
            gpus=self.gpus + other.gpus,
        )

    def fits(self, cap: Size) -> bool:
        """Whether this is no more than ``cap``, of each kind."""
        return self.gpus <= cap.gpus and self.millicpu <= cap.millicpu and self.memory_bytes <= cap.memory_bytes

    def excess(self, cap: Size) -> list[str]:
        """For each kind of which this is more than ``cap``, ``"3 GPUs, and 2 are allowed"``; empty if it fits."""
        found = []
        if self.gpus > cap.gpus:
            found.append(_excess(f"{_shown(self.gpus)} GPU{'' if self.gpus == 1 else 's'}", _shown(cap.gpus)))
        if self.millicpu > cap.millicpu:
            mine, allowed = _shown(self.millicpu, format_cpus), _shown(cap.millicpu, format_cpus)
            found.append(_excess(f"{mine} core{'' if self.millicpu == 1000 else 's'}", allowed))
        if self.memory_bytes > cap.memory_bytes:
            mine, allowed = _shown(self.memory_bytes, format_memory), _shown(cap.memory_bytes, format_memory)
            found.append(_excess(f"{mine} of memory", allowed))
        return found

    def rest(self, cap: Size) -> Size:
        """What ``cap`` leaves beside this."""
        return Size(
            millicpu=max(0, cap.millicpu - self.millicpu),
            memory_bytes=max(0, cap.memory_bytes - self.memory_bytes),
            gpus=max(0, cap.gpus - self.gpus),
        )

    def to_json(self) -> dict[str, int | float | str]:
        return {
            "cpus": cpus_number(self.millicpu),
            "memory": format_memory(self.memory_bytes),
            "gpus": self.gpus,
        }

    @classmethod
    def from_json(cls, document: object) -> Size:
        """What ``to_json`` wrote. Raises ``QuantityError``; an unknown key is an error, a missing one is none of it."""
        if not isinstance(document, dict):
            raise QuantityError('must be an object such as {"cpus": 8, "memory": "32G", "gpus": 1}')
        unknown = [key for key in document if key not in ("cpus", "memory", "gpus")]
        if unknown:
            raise QuantityError(f"has the unknown key {unknown[0]!r:.40}")
        return cls(
            millicpu=parse_millicpu(document.get("cpus", 0)),
            memory_bytes=parse_memory(document.get("memory", 0)),
            gpus=parse_gpus(document.get("gpus", 0)),
        )


def total(sizes: Iterable[Size]) -> Size:
    """The sum of ``sizes``."""
    return sum(sizes, Size())


def _excess(mine: str, allowed: str) -> str:
    return f"{mine}, and {allowed} {'is' if allowed == '1' else 'are'} allowed"


def _shown(number: int, text: Callable[[int], str] = str) -> str:
    """``number`` in at most some twenty characters; Python refuses to write numbers of thousands of digits."""
    return text(number) if number <= _MOST else f"more than {text(_MOST)}"
