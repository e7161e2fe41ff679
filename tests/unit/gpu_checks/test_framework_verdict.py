"""What a framework's run means: pure, by tables, and over all combinations."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from gpu_checks import smoke
from gpu_checks.architectures import covers
from gpu_checks.facts import Heard, Malformed, Silence, decode, encode
from gpu_checks.framework_facts import Installed, Product, Run, SeenGpu, Situation, Wheel
from gpu_checks.framework_verdict import judge, needs_run
from gpu_checks.result import Verdict, worst

WELL = Product(0, "A100", "", "8.0", "cuda:0", 1e-6, smoke.TOLERANCE_FP32)
ON_CPU = Product(None, placed="cpu", error=1e-7, tolerance=smoke.TOLERANCE_FP32)
WHEELS = [
    Wheel("torch"),
    Wheel("torch", "2.13.0+cpu", "torch", "cpu", installed=True),
    Wheel("torch", "2.13.0", "torch", "cuda", "12.8", installed=True),
    Wheel("torch", "2.13.0", "torch", "rocm", installed=True),
    Wheel("torch", "2.13.0", "torch", installed=True),
]
SITUATIONS = [
    Situation(expected, visible, tuple(SeenGpu(index, f"GPU-{index}") for index in range(visible)), "12.4", hidden)
    for expected, visible, hidden in itertools.product((None, 0, 1, 2), (0, 1, 2), (False, True))
]
SILENCES = [
    None,
    *(
        Silence(reason, call, "for a reason")
        for reason in ("hung", "unkillable", "crashed", "killed", "garbled", "defect", "not started")
        for call in ("", "import torch", "counting the GPUs", "the product on GPU 0")
    ),
]
PRODUCTS = [
    (),
    (ON_CPU,),
    (WELL,),
    (WELL, replace(WELL, index=1, placed="cuda:1")),
    (WELL, replace(WELL, index=1)),
    (replace(WELL, error=None),),
    (replace(WELL, error=float("nan")),),
    (replace(WELL, error=float("inf")),),
    (replace(WELL, error=1.0),),
    (replace(WELL, tolerance=0.0),),
    (replace(WELL, failure="RuntimeError: CUDA out of memory"),),
    (replace(WELL, placed="cpu"),),
    (replace(WELL, placed=""),),
]
RUNS = [
    None,
    Run(failure="ImportError: libcudnn.so.9"),
    *(Run(version="2.13.0", count=count, products=p) for count in (None, 0, 1, 2) for p in PRODUCTS),
]


def proven(run: Run | None, situation: Situation) -> bool:
    """Whether each GPU that can be seen has computed right, or where none was asked for, the CPU."""
    good = [] if run is None or run.failure else [each for each in run.products if each.error in (1e-6, 1e-7)]
    good = [each for each in good if each.tolerance and not each.failure]
    if situation.expected == 0 or (situation.expected is None and situation.visible == 0):
        return any(each.placed == "cpu" and each.index is None for each in good)
    wanted = {index: f"cuda:{index}" for index in range(situation.visible)}
    computed = {each.index: each.placed for each in good if each.index is not None}
    return bool(wanted) and wanted.items() <= computed.items()


def test_nothing_passes_that_was_not_proven() -> None:
    """All combinations: what was not checked on every GPU is never told as passed."""
    passed = 0
    for wheel, situation in itertools.product(WHEELS, SITUATIONS):
        outcomes: list[Heard[Run] | None] = [None]
        if needs_run(wheel, situation):
            outcomes += [Heard(run, silence) for run in RUNS for silence in SILENCES]
        for heard in outcomes:
            framework, checks = judge(wheel, heard, situation)
            if not wheel.installed:
                assert (framework.state, checks) == ("not installed", ())
                continue
            assert checks, (wheel, situation, heard)
            if worst(check.verdict for check in checks) is Verdict.PASS:
                passed += 1
                assert heard is not None
                assert proven(heard.facts, situation), (wheel, situation, heard)
    assert passed > 50


def test_a_healthy_run_is_no_false_alarm_whatever_happens_at_its_end() -> None:
    """The answer was complete: how the process then ends says nothing."""
    for silence in SILENCES:
        heard = Heard(Run("2.13.0", "12.8", ("sm_80",), count=1, products=(WELL,)), silence)
        _, checks = judge(WHEELS[2], heard, Situation(1, 1, (SeenGpu(0, "GPU-0"),), "12.4"))
        assert [check.verdict for check in checks] == [Verdict.PASS, Verdict.PASS]


@pytest.mark.parametrize(
    ("reason", "call", "verdict"),
    [
        ("hung", "import torch", Verdict.UNKNOWN),
        ("hung", "counting the GPUs", Verdict.FAIL),
        ("unkillable", "the product on GPU 0", Verdict.FAIL),
        ("crashed", "import torch", Verdict.FAIL),
        ("crashed", "", Verdict.UNKNOWN),
        ("killed", "the product on GPU 0", Verdict.UNKNOWN),
        ("garbled", "counting the GPUs", Verdict.UNKNOWN),
        ("not started", "", Verdict.UNKNOWN),
    ],
)
def test_a_silence_fails_only_where_the_gpu_can_be_meant(reason: str, call: str, verdict: Verdict) -> None:
    heard: Heard[Run] = Heard(Run("2.13.0"), Silence(reason, call, "for a reason"))
    _, (check,) = judge(WHEELS[2], heard, Situation(1, 1, driver_cuda="12.4"))
    assert check.verdict is verdict


@pytest.mark.parametrize(
    ("wheel", "driver", "cause"),
    [
        ("13.0", "12.4", "driver is too old"),
        ("12.8", "12.4", "sees fewer GPUs"),  # any driver of the same major version runs it
        ("12.8", "13.0", "sees fewer GPUs"),
        ("", "12.4", "sees fewer GPUs"),
        ("12.8", "", "sees fewer GPUs"),
    ],
)
def test_a_wheel_needs_a_driver_of_its_major_version(wheel: str, driver: str, cause: str) -> None:
    run = Run("2.13.0", wheel, count=0, reason="RuntimeError: No CUDA GPUs are available")
    _, (check,) = judge(WHEELS[2], Heard(run), Situation(1, 1, driver_cuda=driver))
    assert cause in check.cause


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("CUDA error: no kernel image is available for execution on the device", "no kernels for this GPU"),
        ("NVIDIA H200 with CUDA capability sm_90 is not compatible with the current PyTorch", "no kernels"),
        ("The NVIDIA driver on your system is too old (found version 11040)", "driver is too old"),
        ("Error 804: forward compatibility was attempted on non supported HW", "driver is too old"),
        ("libcudnn.so.9: cannot open shared object file", "does not find the CUDA libraries"),
        ("CUDA error: uncorrectable ECC error encountered", "uncorrectable memory error"),
        ("CUBLAS_STATUS_EXECUTION_FAILED", "PyTorch failed on the GPU"),
    ],
)
def test_what_a_framework_says_is_understood(words: str, cause: str) -> None:
    run = Run("2.13.0", "12.8", count=1, products=(Product(0, failure=f"RuntimeError: {words}"),))
    _, checks = judge(WHEELS[2], Heard(run), Situation(1, 1, driver_cuda="12.4"))
    assert checks[-1].verdict is Verdict.FAIL
    assert cause in checks[-1].cause
    assert words in checks[-1].detail


@pytest.mark.parametrize(
    ("built_for", "capability", "covered"),
    [
        ("sm_80 compute_90", "8.0", True),
        ("sm_80 compute_90", "8.9", True),
        ("sm_86", "8.0", False),
        ("sm_80 sm_90", "10.0", False),
        ("sm_80 compute_90", "12.0", True),
        ("sm_75 sm_80", "7.0", False),
        ("compute_75", "7.0", False),
        ("sm_90a", "9.0", True),
        ("sm_90a", "9.1", False),
        ("compute_90a", "10.0", False),
        ("sm_100f", "10.3", True),
        ("compute_100f", "12.0", False),
        ("sm_120", "12.0", True),
        ("gfx90a", "9.0", None),
        ("", "9.0", None),
        ("sm_80", "", None),
    ],
)
def test_binaries_run_on_their_major_version_and_intermediate_code_on_what_is_later(
    built_for: str, capability: str, covered: bool | None
) -> None:
    assert covers(tuple(built_for.split()), capability) is covered


def test_a_wheel_without_kernels_for_the_gpu_is_named_where_the_framework_hides_it() -> None:
    wheel = replace(WHEELS[2], name="tensorflow", capabilities=("sm_80", "compute_90"))
    seen = Situation(1, 1, (SeenGpu(0, "GPU-0", "7.0"),), "12.4")
    _, (check,) = judge(wheel, Heard(Run("2.21.0", "12.5", count=0)), seen)
    assert "no kernels for this GPU" in check.cause


def test_a_variable_that_hides_gpus_from_the_notebook_is_named() -> None:
    run = Run("2.13.0", "12.8", count=1, products=(WELL,))
    _, checks = judge(WHEELS[2], Heard(run), Situation(2, 2, driver_cuda="12.4", hidden=True))
    assert "CUDA_VISIBLE_DEVICES" in checks[0].cause


def test_tf32_is_allowed_for_and_a_wrong_bit_above_it_is_not() -> None:
    for error, verdict in ((1.9e-3, Verdict.PASS), (2.3e-3, Verdict.FAIL)):
        product = replace(WELL, error=error, tolerance=smoke.TOLERANCE_TF32)
        _, checks = judge(WHEELS[2], Heard(Run("2", count=1, products=(product,))), Situation(1, 1))
        assert checks[-1].verdict is verdict


def test_the_framework_knows_its_gpu_by_uuid_whatever_the_order() -> None:
    gpus = (
        SeenGpu(0, "GPU-aaaaaaaa-0000-0000-0000-000000000000"),
        SeenGpu(1, "GPU-bbbbbbbb-0000-0000-0000-000000000000"),
    )
    product = replace(WELL, uuid="bbbbbbbb-0000-0000-0000-000000000000", error=1.0)
    _, checks = judge(WHEELS[2], Heard(Run("2", count=2, products=(product,))), Situation(2, 2, gpus))
    assert checks[1].gpu == gpus[1].uuid


def test_facts_cross_the_pipe_unchanged() -> None:
    for facts in (Run("2", "12.8", ("sm_80",), "", 1, "", (WELL, ON_CPU)), Installed("3.11.7", tuple(WHEELS))):
        assert decode(type(facts), encode(facts)) == facts
    with pytest.raises(Malformed):
        decode(Run, {"count": 1})
