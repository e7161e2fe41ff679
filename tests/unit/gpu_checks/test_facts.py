"""What crosses from a child to its parent arrives as it was, or is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_checks.facts import CudaFacts, GpuFacts, Malformed, NvmlFacts, decode, encode, short_uuid
from gpu_checks.result import Verdict

from .cases import cuda, done, nvml

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.builds(CudaFacts) | st.builds(NvmlFacts) | st.builds(GpuFacts))
def test_facts_survive_the_way_through_a_pipe(facts: Any) -> None:
    assert decode(type(facts), json.loads(json.dumps(encode(facts)))) == facts


@given(st.sampled_from([cuda(2), nvml(2), done()[1].facts]), st.data())
def test_a_mangled_answer_is_refused(facts: Any, data: st.DataObject) -> None:
    plain = json.loads(json.dumps(encode(facts)))
    key = data.draw(st.sampled_from(sorted(plain)))
    plain[key] = data.draw(JSON)
    try:
        again = decode(type(facts), plain)
    except Malformed:
        return
    assert json.loads(json.dumps(encode(again))) == plain


@pytest.mark.parametrize("data", [None, [], 1, {}, {"library": True}, {**encode(cuda()), "more": 1}])
def test_another_shape_is_refused(data: object) -> None:
    with pytest.raises(Malformed):
        decode(CudaFacts, data)


def test_a_boolean_is_no_number() -> None:
    with pytest.raises(Malformed):
        decode(CudaFacts, {**encode(cuda()), "count": True})


def test_a_word_of_a_closed_list_is_one_of_it_or_refused() -> None:
    assert decode(Verdict, "warn") is Verdict.WARN
    words: list[object] = ["fine", "WARN", 1, None, []]
    for word in words:
        with pytest.raises(Malformed):
            decode(Verdict, word)


def test_cuda_and_nvml_spell_one_device_differently() -> None:
    assert short_uuid("GPU-12AB-34") == short_uuid("12ab34") == short_uuid("MIG-GPU-12ab34")
