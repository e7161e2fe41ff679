from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.options import options_of
from hub.policy import Policy
from hub.policy_file import load_policy
from hub.quantity import Size, parse_memory, total
from hub.resolve import Decision, Granted, Refused, resolve
from tests.unit.hub.policies import large_policy

POLICY = load_policy()
HPC = ("cpsHPCAccess",)
HPC_PROFILES = ("cpu-basic", "a100-1", "a100-2", "custom")
PYTORCH = "quay.io/jupyter/pytorch-notebook:2025-11-06"
PYTORCH_CUDA = "quay.io/jupyter/pytorch-notebook:cuda12-2025-11-06"


def size(cpus: int, memory: str, gpus: int) -> Size:
    return Size(millicpu=cpus * 1000, memory_bytes=parse_memory(memory), gpus=gpus)


def decide(groups: tuple[str, ...], options: object, running: dict[str, Size] | None = None) -> Granted | Refused:
    return resolve("ada", groups, options=options, running=running or {}, policy=POLICY)


@pytest.mark.parametrize(
    ("groups", "options", "profile", "image", "granted"),
    [
        ((), {}, "standard", PYTORCH, size(2, "4G", 0)),
        ((), None, "standard", PYTORCH, size(2, "4G", 0)),
        ((), {"profile": "standard"}, "standard", PYTORCH, size(2, "4G", 0)),
        (("jupyter_admin",), {}, "standard", PYTORCH, size(2, "4G", 0)),
        (HPC, {}, "cpu-basic", PYTORCH, size(2, "4G", 0)),
        (HPC, {"profile": "a100-1"}, "a100-1", PYTORCH_CUDA, size(8, "32G", 1)),
        (HPC, {"profile": "a100-2"}, "a100-2", PYTORCH_CUDA, size(16, "64G", 2)),
        (HPC, {"profile": "custom"}, "custom", PYTORCH_CUDA, size(8, "32G", 1)),
        (
            HPC,
            {"profile": "custom", "image": "datascience", "gpus": "0", "cpus": "16", "memory": "128G"},
            "custom",
            "quay.io/jupyter/datascience-notebook:2025-11-06",
            size(16, "128G", 0),
        ),
        (
            HPC,
            {"profile": "custom", "image--unlisted-choice": "nvcr.io/nvidia/pytorch:24.10-py3"},
            "custom",
            "nvcr.io/nvidia/pytorch:24.10-py3",
            size(8, "32G", 1),
        ),
    ],
)
def test_what_the_policy_offers_is_granted(
    groups: tuple[str, ...], options: object, profile: str, image: str, granted: Size
) -> None:
    assert decide(groups, options) == Granted(Decision(profile=profile, image=image, size=granted))


@pytest.mark.parametrize(
    ("groups", "options", "kind", "reason"),
    [
        ((), {"profile": "a100-1"}, "forbidden", "profile 'a100-1' is not among those offered to ada: standard"),
        (HPC, {"profile": "standard"}, "forbidden", "not among those offered"),
        (("cpshpcaccess",), {"profile": "a100-1"}, "forbidden", "not among those offered"),
        (("cpsHPCAccess ",), {"profile": "a100-1"}, "forbidden", "not among those offered"),
        ((), {"image": PYTORCH}, "malformed", "options without a profile; offered to ada: standard"),
        (HPC, {"image--unlisted-choice": "evil.io/x:1"}, "malformed", "options without a profile"),
        (HPC, {"gpus": "2"}, "malformed", "options without a profile"),
        (HPC, {"profile": None}, "malformed", "profile must be a string, not null"),
        (HPC, {"profile": ["a100-1"]}, "malformed", "profile must be a string, not a list"),
        (HPC, {"profile": ""}, "forbidden", "profile '' is not among"),
        (HPC, {"profile": "a100-1 "}, "forbidden", "not among those offered"),
        (HPC, {"profile": "x\n\x1b[2J\u202ey"}, "forbidden", r"profile 'x\u000a\u001b[2J\u202ey' is not"),
        (HPC, {"profile": "a100-1", "gpus": "2"}, "malformed", "profile a100-1 has no option 'gpus'; it has: none"),
        (HPC, {"profile": "custom", "mem": "4G"}, "malformed", "no option 'mem'"),
        (HPC, {"profile": "custom", "gpus": 1}, "malformed", "gpus must be a string, one of: 0, 1, 2; not a number"),
        (HPC, {"profile": "custom", "gpus": "3"}, "malformed", "gpus '3' is none of: 0, 1, 2"),
        (HPC, {"profile": "custom", "gpus": "-1"}, "malformed", "is none of"),
        (HPC, {"profile": "custom", "gpus": ["1", "2"]}, "malformed", "not a list"),
        (HPC, {"profile": "custom", "gpus": True}, "malformed", "not true"),
        (HPC, {"profile": "custom", "cpus": "02"}, "malformed", "is none of: 2, 4, 8, 16"),
        (HPC, {"profile": "custom", "memory": "34359738368"}, "malformed", "is none of: 4G"),
        (HPC, {"profile": "custom", "image": "evil.io/x:1"}, "malformed", "is none of: pytorch, tensorflow"),
        (HPC, {"profile": "custom", "image": "unlisted-choice"}, "malformed", "is none of"),
        (
            HPC,
            {"profile": "custom", "image--unlisted-choice": "evil.io/x:1"},
            "forbidden",
            "allowed: quay.io/jupyter/*",
        ),
        (HPC, {"profile": "custom", "image--unlisted-choice": ""}, "malformed", "names no version"),
        (HPC, {"profile": "custom", "image--unlisted-choice": "x"}, "malformed", "allowed: quay.io/jupyter/*, nvcr.io"),
        (HPC, {"profile": "custom", "image--unlisted-choice": None}, "malformed", "must be a string, not null"),
        (HPC, {"profile": "custom", "image--unlisted-choice": "quay.io/jupyter/x:1 --privileged"}, "malformed", "tag"),
        (
            HPC,
            {"profile": "custom", "image": "pytorch", "image--unlisted-choice": "quay.io/jupyter/x:1"},
            "malformed",
            "exclude each other",
        ),
        (HPC, {"profile": "custom", "gpus--unlisted-choice": "9"}, "malformed", "no option"),
        (HPC, [], "malformed", "options must be a JSON object with a profile, not a list; offered to ada: cpu-basic"),
        (HPC, "a100-1", "malformed", "not a string"),
        (HPC, 7, "malformed", "not a number"),
        (HPC, False, "malformed", "not false"),
    ],
)
def test_everything_else_is_refused_in_one_line(
    groups: tuple[str, ...], options: object, kind: str, reason: str
) -> None:
    answer = decide(groups, options)
    assert isinstance(answer, Refused)
    assert answer.kind == kind
    assert reason in answer.reason
    assert answer.reason.isprintable()


@pytest.mark.parametrize(
    ("running", "options", "excess"),
    [
        ({"a": size(8, "32G", 1)}, {"profile": "a100-1"}, ""),
        ({"a": size(8, "32G", 1)}, {"profile": "a100-2"}, "3 GPUs, and 2 are allowed; 24 cores, and 16 are allowed"),
        ({"a": size(8, "32G", 1), "b": size(8, "32G", 1)}, {}, "18 cores, and 16 are allowed"),
        ({"a": size(2, "124G", 0)}, {}, ""),
        ({"a": size(2, "125G", 0)}, {}, "129G of memory, and 128G are allowed"),
        (
            {"a": size(8, "32G", 1)},
            {"profile": "a100-2"},
            "together with 1 other server; left for this one: 1 GPU, 8 cores, 96 GB memory",
        ),
        ({"a": Size(gpus=10**6000)}, {}, "more than 1000000000000000000 GPUs, and 2 are allowed"),
    ],
)
def test_caps_hold_over_all_servers_together(running: dict[str, Size], options: object, excess: str) -> None:
    answer = decide(HPC, options, running)
    if excess:
        assert isinstance(answer, Refused)
        assert answer.kind == "forbidden"
        assert excess in answer.reason
    else:
        assert isinstance(answer, Granted)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
NEAR_MISSES = st.fixed_dictionaries(
    {},
    optional={
        "profile": st.sampled_from(["standard", "cpu-basic", "a100-1", "a100-2", "custom", "nope"]) | JSON,
        "image": st.sampled_from(["pytorch", "tensorflow", "datascience"]) | JSON,
        "image--unlisted-choice": st.sampled_from(["quay.io/jupyter/x:1", "nvcr.io/nvidia/y:2", "x:1"]) | JSON,
        "gpus": st.sampled_from(["0", "1", "2", "3"]) | JSON,
        "cpus": st.sampled_from(["2", "4", "8", "16", "32"]) | JSON,
        "memory": st.sampled_from(["4G", "32G", "128G", "256G"]) | JSON,
    },
)
UNITS = st.integers(0, 20_000) | st.integers(0, 10**40) | st.sampled_from([0, 1, 10**5000])
SIZES = st.builds(
    Size, millicpu=UNITS, memory_bytes=UNITS | st.integers(0, 200 * 1024**3), gpus=st.integers(0, 4) | UNITS
)
# What a claim can hold: any text, half a surrogate pair and NUL included, and what looks like a group's name.
NAMES = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from(
    ["", "\ud800", "\0", "\u202e", "cpshpcaccess"]
)
GROUPS = st.lists(st.sampled_from(["cpsHPCAccess", "jupyter_admin", "cpsHPCAccess "]) | NAMES, max_size=4)


@settings(max_examples=600, deadline=None)
@given(
    user=NAMES,
    groups=GROUPS | NAMES,  # a text in place of a list, too
    options=JSON | NEAR_MISSES,
    running=st.dictionaries(NAMES, SIZES, max_size=3),
)
def test_whatever_is_asked_the_answer_is_a_server_within_the_caps_or_one_readable_line(
    user: str, groups: list[str] | str, options: Any, running: dict[str, Size]
) -> None:
    answer = resolve(user, groups, options=options, running=running, policy=POLICY)
    if isinstance(answer, Refused):
        assert 0 < len(answer.reason) <= 600
        assert answer.reason.isprintable()
        answer.reason.encode()
        return
    limits = POLICY.groups["cpsHPCAccess"].limits if "cpsHPCAccess" in list(groups) else None
    cap = (limits or POLICY.everyone.limits).size
    decision = answer.decision
    assert total([decision.size, *running.values()]).fits(cap)
    assert decision.profile in (HPC_PROFILES if limits else ("standard",))
    offered = {option.name: option for option in options_of(POLICY.profiles[decision.profile])}
    assert decision.size.gpus in [choice.value for choice in offered["gpus"].choices]
    assert decision.size.millicpu in [choice.value for choice in offered["cpus"].choices]
    assert decision.size.memory_bytes in [choice.value for choice in offered["memory"].choices]
    listed = [choice.value for choice in offered["image"].choices]
    assert decision.image in listed or decision.image in ("quay.io/jupyter/x:1", "nvcr.io/nvidia/y:2")
    assert Decision.from_json(json.loads(json.dumps(decision.to_json()))) == decision


@settings(max_examples=200, deadline=None)
@given(
    starts=st.lists(
        st.tuples(
            st.integers(0, 3),
            st.fixed_dictionaries({"profile": st.sampled_from(["cpu-basic", "a100-1", "a100-2"])})
            | st.fixed_dictionaries(
                {"profile": st.just("custom")},
                optional={
                    "gpus": st.sampled_from("012"),
                    "cpus": st.sampled_from(["2", "4", "8", "16"]),
                    "memory": st.sampled_from(["4G", "32G", "128G"]),
                },
            ),
        ),
        max_size=12,
    )
)
def test_no_order_of_starts_and_stops_brings_a_user_above_the_caps(
    starts: list[tuple[int, dict[str, str]]],
) -> None:
    limits = POLICY.groups["cpsHPCAccess"].limits
    assert limits is not None
    running: dict[str, Size] = {}
    for number, options in starts:
        if running.pop(f"server-{number}", None):
            continue  # a start of what runs is a stop here
        answer = resolve("ada", HPC, options=options, running=running, policy=POLICY)
        if isinstance(answer, Granted):
            running[f"server-{number}"] = answer.decision.size
        assert total(running.values()).fits(limits.size)


def test_a_thousand_decisions_take_less_than_a_second(record_property: Callable[[str, object], None]) -> None:
    policy = large_policy()
    cases: list[tuple[Policy, tuple[str, ...], dict[str, str]]] = [
        (POLICY, HPC, {"profile": "custom", "gpus": "2", "image--unlisted-choice": "quay.io/jupyter/x:1"}),
        (policy, ("group-1", "group-7", "group-100"), {"profile": "profile-7", "gpus": "2"}),
        (POLICY, (), {"profile": "a100-1"}),
    ]
    for number, (which, groups, options) in enumerate(cases):
        begun = time.process_time()
        for _ in range(1000):
            resolve("ada", groups, options=options, running={"a": Size(millicpu=1000)}, policy=which)
        took_s = time.process_time() - begun
        record_property(f"decisions per second, case {number}", round(1000 / took_s))
        assert took_s < 1
