from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.quantity import (
    QuantityError,
    Size,
    format_cpus,
    format_memory,
    parse_gpus,
    parse_memory,
    parse_millicpu,
)

GIB = 1024**3


@pytest.mark.parametrize(
    ("written", "millicpu"),
    [(2, 2000), ("2", 2000), (0.5, 500), ("0.5", 500), ("500m", 500), (0, 0), ("16", 16000), ("0.001", 1)],
)
def test_cores_are_read_exactly_in_thousandths(written: object, millicpu: int) -> None:
    assert parse_millicpu(written) == millicpu


@pytest.mark.parametrize(
    ("written", "size_bytes"),
    [
        ("4G", 4 * GIB),
        ("4Gi", 4 * GIB),
        ("128G", 128 * GIB),
        ("1.5G", 3 * GIB // 2),
        ("512M", GIB // 2),
        ("1T", 1024 * GIB),
        ("1024", 1024),
        (1024, 1024),
        ("0", 0),
    ],
)
def test_memory_is_read_exactly_with_letters_as_powers_of_1024(written: object, size_bytes: int) -> None:
    assert parse_memory(written) == size_bytes


NO_NUMBERS = ["", " 2", "2 ", "2\n", "-1", -1, "+1", "1e3", "٣", True, None, [], {}, "nan", float("nan"), float("inf")]


@pytest.mark.parametrize("written", [*NO_NUMBERS, "2G", "0.0001", "0.5m", "9" * 16])
def test_what_is_no_number_of_cores_is_refused(written: object) -> None:
    with pytest.raises(QuantityError):
        parse_millicpu(written)


@pytest.mark.parametrize("written", [*NO_NUMBERS, "4GB", "4g", "4 G", "0.1", "1P", "999999999999999T"])
def test_what_is_no_amount_of_memory_is_refused(written: object) -> None:
    with pytest.raises(QuantityError):
        parse_memory(written)


@pytest.mark.parametrize("written", [*NO_NUMBERS, "1.5", 1.5, "1G"])
def test_what_is_no_number_of_gpus_is_refused(written: object) -> None:
    with pytest.raises(QuantityError):
        parse_gpus(written)


@given(st.integers(min_value=0, max_value=10**12))
def test_a_formatted_quantity_is_read_back_exactly(number: int) -> None:
    assert parse_millicpu(format_cpus(number)) == number
    assert parse_memory(format_memory(number)) == number


@given(st.integers(0, 10**9), st.integers(0, 10**15), st.integers(0, 100))
def test_a_size_survives_json(millicpu: int, memory_bytes: int, gpus: int) -> None:
    size = Size(millicpu=millicpu, memory_bytes=memory_bytes, gpus=gpus)
    assert Size.from_json(size.to_json()) == size


@pytest.mark.parametrize("document", [None, [], "x", {"cores": 2}, {"cpus": -1}, {"gpus": "1.5"}, {"memory": True}])
def test_what_is_no_size_is_refused(document: object) -> None:
    with pytest.raises(QuantityError):
        Size.from_json(document)


def test_an_excess_names_each_kind_and_what_is_allowed() -> None:
    cap = Size(millicpu=2000, memory_bytes=4 * GIB, gpus=0)
    assert cap.excess(cap) == []
    assert Size(millicpu=2500, memory_bytes=8 * GIB, gpus=1).excess(cap) == [
        "1 GPU, and 0 are allowed",
        "2.5 cores, and 2 are allowed",
        "8G of memory, and 4G are allowed",
    ]


def test_what_is_left_is_never_less_than_nothing() -> None:
    cap = Size(millicpu=2000, memory_bytes=4 * GIB, gpus=2)
    assert Size(millicpu=500, memory_bytes=5 * GIB, gpus=1).rest(cap) == Size(millicpu=1500, memory_bytes=0, gpus=1)


@pytest.mark.parametrize("wrong", [{"millicpu": -1}, {"memory_bytes": -1}, {"gpus": -1}])
def test_less_than_nothing_is_no_size(wrong: dict[str, int]) -> None:
    with pytest.raises(QuantityError):
        Size(**wrong)


def test_an_excess_of_any_number_of_digits_is_readable() -> None:
    for text in Size(millicpu=10**6000, memory_bytes=10**6000, gpus=10**6000).excess(Size()):
        assert text.startswith("more than ")
        assert len(text) < 100
