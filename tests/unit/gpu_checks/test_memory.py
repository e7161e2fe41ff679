"""The memory test finds one wrong bit wherever it is, and says where."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_checks import memory
from gpu_checks.driver import CallFailed
from gpu_checks.facts import CallError, Trial

SIZE = memory.BUFFER_BYTES
ARRIVALS = 3  # what each of the two buffers sees: the fill, the data, their complement


class FakeDevice:
    """Real memory. ``broken`` may change what has just arrived in a buffer: (buffer, arrival, cells)."""

    def __init__(self, broken: Callable[[int, int, bytearray], None] = lambda *_: None) -> None:
        self._broken = broken
        self._cells: list[bytearray] = []
        self._arrivals: list[int] = []
        self.freed = 0

    @contextmanager
    def allocated(self, size_bytes: int) -> Iterator[int]:
        self._cells.append(bytearray(size_bytes))
        self._arrivals.append(0)
        yield len(self._cells) - 1
        self.freed += 1

    def _arrive(self, buffer: int, data: bytes) -> None:
        self._cells[buffer][:] = data
        self._broken(buffer, self._arrivals[buffer], self._cells[buffer])
        self._arrivals[buffer] += 1

    def fill(self, address: int, word: int, size_bytes: int) -> None:
        self._arrive(address, word.to_bytes(4, "little") * (size_bytes // 4))

    def write(self, address: int, data: bytes) -> None:
        self._arrive(address, data)

    def copy(self, target: int, source: int, size_bytes: int) -> None:
        self._arrive(target, bytes(self._cells[source][:size_bytes]))

    def read(self, address: int, stale: bytes) -> bytes:
        return bytes(self._cells[address][: len(stale)])


def test_healthy_memory_passes_with_every_byte_counted_and_freed() -> None:
    device = FakeDevice()
    trial = memory.verify(device)
    assert trial == Trial(2 * SIZE)
    assert trial.tested_bytes >= 1024 * 1024
    assert device.freed == 2


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 1),
    st.integers(0, ARRIVALS - 1),
    st.integers(0, SIZE - 1) | st.sampled_from([0, SIZE - 1]),
    st.integers(0, 7),
)
def test_one_flipped_bit_anywhere_is_found_and_located(buffer: int, arrival: int, offset: int, bit: int) -> None:
    def flip(at: int, when: int, cells: bytearray) -> None:
        if (at, when) == (buffer, arrival):
            cells[offset] ^= 1 << bit

    mismatch = memory.verify(FakeDevice(flip)).mismatch
    assert mismatch is not None
    assert (mismatch.offset, mismatch.wrong_bytes, mismatch.wrong_bits) == (offset, 1, 1)
    expected, actual = (int(word, 16) for word in (mismatch.expected, mismatch.actual))
    assert bin(expected ^ actual).count("1") == 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1), st.integers(0, SIZE - 1), st.integers(0, 7), st.booleans())
def test_a_stuck_bit_is_found_whatever_it_is_stuck_at(buffer: int, offset: int, bit: int, high: bool) -> None:
    def stick(at: int, _when: int, cells: bytearray) -> None:
        if at == buffer:
            cells[offset] = cells[offset] | 1 << bit if high else cells[offset] & ~(1 << bit)

    assert memory.verify(FakeDevice(stick)).mismatch is not None


@pytest.mark.parametrize("where", [(0, 0, 0), (0, SIZE - 1, 7), (1, 0, 0), (1, SIZE - 1, 7)])
@pytest.mark.parametrize("arrival", range(ARRIVALS))
def test_the_first_and_the_last_bit_are_tested_at_each_step(where: tuple[int, int, int], arrival: int) -> None:
    buffer, offset, bit = where

    def flip(at: int, when: int, cells: bytearray) -> None:
        if (at, when) == (buffer, arrival):
            cells[offset] ^= 1 << bit

    mismatch = memory.verify(FakeDevice(flip)).mismatch
    assert mismatch is not None
    assert mismatch.offset == offset


LINES = range(3, SIZE.bit_length() - 1)  # every address line above those within one 8-byte word


@pytest.mark.parametrize("line", LINES)
def test_an_address_line_that_is_not_wired_is_found(line: int) -> None:
    def alias(_at: int, _when: int, cells: bytearray) -> None:
        """Both addresses that differ in this line reach one cell: what was written last is in both."""
        words = memoryview(cells).cast("Q")
        step = 1 << (line - 3)
        for start in range(0, len(words), 2 * step):
            words[start : start + step] = words[start + step : start + 2 * step]

    assert memory.verify(FakeDevice(alias)).mismatch is not None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1), st.tuples(st.integers(0, SIZE // 8 - 1), st.integers(0, SIZE // 8 - 1)))
def test_two_words_that_are_one_cell_are_found(buffer: int, words: tuple[int, int]) -> None:
    if words[0] == words[1]:
        return

    def alias(at: int, _when: int, cells: bytearray) -> None:
        if at == buffer:
            seen = memoryview(cells).cast("Q")
            seen[words[0]] = seen[words[1]]

    assert memory.verify(FakeDevice(alias)).mismatch is not None


def test_a_gpu_that_returns_the_same_wrong_word_every_time_is_found() -> None:
    def constant(_at: int, _when: int, cells: bytearray) -> None:
        cells[4096:4104] = b"\xde\xad\xbe\xef" * 2

    assert memory.verify(FakeDevice(constant)).mismatch is not None


def test_the_two_fills_have_each_bit_both_ways() -> None:
    class Noting(FakeDevice):
        words: tuple[int, ...] = ()

        def fill(self, address: int, word: int, size_bytes: int) -> None:
            self.words += (word,)
            super().fill(address, word, size_bytes)

    device = Noting()
    memory.verify(device)
    assert device.words[0] ^ device.words[1] == 0xFFFFFFFF


def test_a_copy_that_does_nothing_is_found() -> None:
    class Lazy(FakeDevice):
        def copy(self, *_: int) -> None:
            pass

    mismatch = memory.verify(Lazy()).mismatch
    assert mismatch is not None
    assert mismatch.step == "device to device"


def test_a_read_that_does_nothing_is_found() -> None:
    class Lazy(FakeDevice):
        def read(self, _address: int, stale: bytes) -> bytes:
            return stale

    assert memory.verify(Lazy()).mismatch is not None


@pytest.mark.parametrize("working", range(6))
def test_a_read_that_stops_working_is_found(working: int) -> None:
    class Tiring(FakeDevice):
        reads = 0

        def read(self, address: int, stale: bytes) -> bytes:
            self.reads += 1
            return super().read(address, stale) if self.reads <= working else stale

    assert memory.verify(Tiring()).mismatch is not None


def test_a_failing_call_is_an_error_and_not_a_mismatch() -> None:
    class Failing(FakeDevice):
        def fill(self, *_: int) -> None:
            raise CallFailed(CallError("cuMemsetD32_v2", 2, ""))

    trial = memory.verify(Failing())
    assert trial.error == CallError("cuMemsetD32_v2", 2, "")
    assert trial.tested_bytes == 0


@settings(deadline=None)
@given(st.binary(min_size=8, max_size=8))
def test_every_word_of_the_data_occurs_once(seed: bytes) -> None:
    data = memory.address_unique(64 * 1024, lambda size: (seed * size)[:size])
    words = {data[start : start + 8] for start in range(0, len(data), 8)}
    assert len(words) == len(data) // 8


def test_the_data_differ_from_run_to_run() -> None:
    assert memory.address_unique(64) != memory.address_unique(64)


@given(st.binary(max_size=64))
def test_the_complement_differs_in_every_bit(data: bytes) -> None:
    assert all(one ^ other == 0xFF for one, other in zip(data, memory.complement(data), strict=True))
