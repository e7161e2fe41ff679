"""The memory of a GPU, tested: what is written comes back, wherever it is and whichever way it took.

Two buffers see, in turn: a fill with two different words, random data, its complement. So every bit is read as 0 and
as 1 (stuck bits), every 8-byte word is unlike all others (aliased addresses), and the two buffers differ at least once
(aliased buffers). The data take each way: from the host, from device to device, and the fill.
"""

from __future__ import annotations

import os
from array import array
from contextlib import AbstractContextManager
from typing import Callable, Protocol

from .driver import Address, CallFailed
from .facts import Mismatch, Trial

BUFFER_BYTES = 1024 * 1024  # two of them; the promise is at least 1 MiB per GPU
WORD_BYTES = 8

_COMPLEMENT = bytes(255 - value for value in range(256))


class Device(Protocol):
    """What is asked of a driver here: ``Driver`` is one."""

    def allocated(self, size_bytes: int) -> AbstractContextManager[Address]:
        """Memory on the device, freed afterwards."""

    def fill(self, address: Address, word: int, size_bytes: int) -> None:
        """Each 32-bit word there has this value."""

    def write(self, address: Address, data: bytes) -> None:
        """The device holds these bytes."""

    def read(self, address: Address, stale: bytes) -> bytes:
        """As many bytes as ``stale`` has, copied over it."""

    def copy(self, target: Address, source: Address, size_bytes: int) -> None:
        """The device copied the bytes by itself."""


def address_unique(size_bytes: int, randomness: Callable[[int], bytes] = os.urandom) -> bytes:
    """Random data in which each 8-byte word occurs once: its low half is its own number, under a random mask."""
    words = size_bytes // WORD_BYTES
    numbers = array("I", range(words)).tobytes()
    mask = randomness(4) * words
    low = (int.from_bytes(numbers, "little") ^ int.from_bytes(mask, "little")).to_bytes(4 * words, "little")
    mixed = array("I", bytes(size_bytes))
    mixed[0::2] = array("I", low)
    mixed[1::2] = array("I", randomness(4 * words))
    return mixed.tobytes()


def complement(data: bytes) -> bytes:
    """Every bit is the other one."""
    return data.translate(_COMPLEMENT)


def compare(step: str, expected: bytes, actual: bytes) -> Mismatch | None:
    """None if every byte is the same, else where they first differ and by how much."""
    if expected == actual:
        return None
    difference = int.from_bytes(expected, "little") ^ int.from_bytes(actual, "little")
    wrong = difference.to_bytes(len(expected), "little")
    first = len(wrong) - len(wrong.lstrip(b"\0"))
    start = first - first % WORD_BYTES
    return Mismatch(
        step=step,
        offset=first,
        expected=expected[start : start + WORD_BYTES].hex(),
        actual=actual[start : start + WORD_BYTES].hex(),
        wrong_bytes=len(wrong) - wrong.count(0),
        wrong_bits=bin(difference).count("1"),
    )


def verify(device: Device) -> Trial:
    """Both buffers in the current context were tested, until the first mismatch."""
    size_bytes = BUFFER_BYTES
    try:
        with device.allocated(size_bytes) as first, device.allocated(size_bytes) as second:
            mismatch = _filled(device, (first, second), size_bytes)
            if mismatch is None:
                data = address_unique(size_bytes)
                mismatch = _written(device, (first, second), data) or _written(
                    device, (first, second), complement(data)
                )
    except CallFailed as failure:
        return Trial(error=failure.error)
    return Trial(2 * size_bytes, mismatch=mismatch)


def _filled(device: Device, buffers: tuple[Address, Address], size_bytes: int) -> Mismatch | None:
    """Both buffers are filled before either is read: one that lies over the other shows."""
    word = int.from_bytes(os.urandom(4), "little")
    words = (word, word ^ 0xFFFFFFFF)
    for buffer, value in zip(buffers, words):
        device.fill(buffer, value, size_bytes)
    for buffer, value in zip(buffers, words):
        expected = value.to_bytes(4, "little") * (size_bytes // 4)
        mismatch = compare("fill", expected, device.read(buffer, complement(expected)))
        if mismatch is not None:
            return mismatch
    return None


def _written(device: Device, buffers: tuple[Address, Address], data: bytes) -> Mismatch | None:
    """The first buffer is written by the host, the second by the device from the first."""
    device.write(buffers[0], data)
    device.copy(buffers[1], buffers[0], len(data))
    stale = complement(data)
    return compare("host to device", data, device.read(buffers[0], stale)) or compare(
        "device to device", data, device.read(buffers[1], stale)
    )
