"""From facts to verdict: the contract's rules as a table, and a walk that looks for a false "passed"."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from gpu_checks.facts import (
    CallError,
    CudaFacts,
    Facts,
    GpuFacts,
    Health,
    Heard,
    Mismatch,
    NvmlDevice,
    NvmlFacts,
    Surroundings,
    Target,
    Trial,
)
from gpu_checks.result import Verdict
from gpu_checks.verdict import judge

from .cases import (
    MIB,
    NO_CUDA,
    NO_NVML,
    TESTED,
    WELL,
    cuda,
    cuda_failed,
    done,
    healthy,
    nvml,
    nvml_failed,
    silence,
    uuid,
)

PASS, WARN, UNKNOWN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.UNKNOWN, Verdict.FAIL
REASONS = ("hung", "unkillable", "crashed", "killed", "garbled", "defect", "not started")
WRONG = Mismatch("fill", 3, "00" * 8, "01" * 8, 1, 1)


@dataclass(frozen=True)
class Row:
    title: str
    facts: Facts
    expected: int | None
    verdict: Verdict
    cause: str = ""


def one(**changes: Any) -> Facts:
    """One healthy GPU, on which something else was found."""
    return replace(healthy(), gpus=(done(**changes),))


def unwell(health: Health) -> Facts:
    return replace(healthy(), nvml=Heard(nvml(health=health)))


def failing(code: int, call: str = "cuMemAlloc_v2") -> Trial:
    return Trial(error=CallError(call, code, ""))


def silent_gpu(reason: str, facts: GpuFacts | None = None) -> Facts:
    return replace(healthy(), gpus=((Target(0, uuid(0)), Heard(facts, silence(reason, "cuCtxSynchronize"))),))


def mig(shown: int, instances: int, probed: int) -> Facts:
    """A GPU divided into instances, of which CUDA shows some and the others were asked for by their UUID."""
    parent = NvmlDevice(0, "GPU-parent", "A100", mig_enabled=True)
    children = tuple(NvmlDevice(0, "MIG-" + uuid(i), "A100 MIG", parent="GPU-parent") for i in range(instances))
    extra = tuple(
        (Target(0, "MIG-" + uuid(i), mig_only=True), Heard(replace(TESTED, uuid=uuid(i))))
        for i in range(shown, shown + probed)
    )
    return Facts(
        Heard(cuda(shown)),
        Heard(NvmlFacts(True, "550", devices=(parent, *children))),
        (*(done(i) for i in range(shown)), *extra),
    )


def with_forbidden(listed: int, forbidden: int) -> NvmlFacts:
    """NVML lists some, and counts others of the node that this container may not ask."""
    others = (NvmlDevice(9 + i, error=CallError("nvmlDeviceGetHandleByIndex", 4, "")) for i in range(forbidden))
    return replace(nvml(listed), devices=(*nvml(listed).devices, *others))


def versionless(code: int) -> Heard[CudaFacts]:
    facts = cuda_failed(code).facts
    assert facts is not None
    return Heard(replace(facts, driver_version=0))


def nameless() -> Facts:
    """A GPU without a UUID: tested, but nothing in a report could be said of it."""
    device = replace(cuda().devices[0], uuid="")
    tested = (Target(0, ""), Heard(TESTED))
    return Facts(Heard(replace(cuda(), devices=(device,))), Heard(nvml(0)), (tested,))


NOTHING = Facts(NO_CUDA, NO_NVML)
ROWS = [
    # What is expected against what is there
    Row("one of one", healthy(1), 1, PASS),
    Row("two of two", healthy(2), 2, PASS),
    Row("a driver that counts none, nobody said", Facts(Heard(cuda(0)), Heard(nvml(0))), None, UNKNOWN, "no GPU was"),
    Row("fewer, though none is hidden", replace(healthy(1), hidden=True), 2, FAIL, "fewer GPUs than expected"),
    Row("fewer, though nothing hides any", replace(healthy(1), nvml=Heard(nvml(2))), 2, FAIL, "fewer GPUs"),
    Row("one of two hidden on purpose", replace(healthy(1), nvml=Heard(nvml(2)), hidden=True), 1, WARN, "hides"),
    Row("a GPU that nobody can name", nameless(), 1, UNKNOWN, "not every expected GPU"),
    Row("a GPU that nobody can name, and no NVML", replace(nameless(), nvml=NO_NVML), 1, UNKNOWN, "not every expected"),
    Row("nothing said at all", Facts(Heard(None), Heard(nvml(1))), 1, UNKNOWN, "could not be carried out"),
    Row("nothing said at all, none expected", Facts(Heard(None), Heard(nvml(0))), 0, UNKNOWN),
    Row("one, none demanded", healthy(1), None, PASS),
    Row("no driver, none expected", NOTHING, 0, PASS),
    Row("no driver, one expected", NOTHING, 1, FAIL, "no driver found"),
    Row("no driver, nobody said", NOTHING, None, UNKNOWN, "no driver found"),
    Row("a driver without a device, none expected", Facts(cuda_failed(100), nvml_failed(9)), 0, PASS),
    Row("a driver without a device, nobody said", Facts(cuda_failed(100), NO_NVML), None, UNKNOWN, "finds no GPU"),
    Row("a driver without a device, one expected", Facts(cuda_failed(100), NO_NVML), 1, FAIL, "finds no GPU"),
    Row("a stub, none expected", Facts(cuda_failed(34), NO_NVML), 0, PASS),
    Row("a stub, one expected", Facts(cuda_failed(34), NO_NVML), 1, FAIL, "stub"),
    Row("fewer", healthy(1), 2, FAIL, "fewer GPUs than expected"),
    Row("more", healthy(2), 1, WARN, "more GPUs than expected"),
    Row("one that nobody asked for", replace(healthy(1), gpus=()), 0, WARN, "more GPUs than expected"),
    Row("one that only NVML sees, none asked for", Facts(NO_CUDA, Heard(nvml(1))), 0, WARN, "more GPUs"),
    Row("a device file, none asked for", replace(NOTHING, device_files=("/dev/nvidia0",)), 0, WARN, "more GPUs"),
    Row("a device file, no library", replace(NOTHING, device_files=("/dev/nvidia0",)), 1, FAIL, "library is missing"),
    Row(
        "NVML lists one, no CUDA library, nobody said", Facts(NO_CUDA, Heard(nvml(1))), None, FAIL, "library is missing"
    ),
    Row(
        "one device twice",
        replace(healthy(2), cuda=Heard(replace(cuda(), count=2, devices=cuda().devices * 2))),
        2,
        FAIL,
    ),
    # The driver
    Row("cuInit fails", Facts(cuda_failed(999), Heard(nvml(1))), 1, FAIL, "unknown error"),
    Row("cuInit fails, nobody said", Facts(cuda_failed(999), NO_NVML), None, FAIL, "unknown error"),
    Row("cuInit fails, none expected", Facts(cuda_failed(999), NO_NVML), 0, UNKNOWN, "unknown error"),
    Row("versions differ", Facts(cuda_failed(803), nvml_failed(18)), 1, FAIL, "differ in version"),
    Row("fallen off", Facts(cuda_failed(999), nvml_failed(15)), 1, FAIL, "fallen off the bus"),
    Row("daemon-reload", Facts(cuda_failed(100), nvml_failed(999)), 1, FAIL, "daemon-reload"),
    Row("fabric manager", Facts(cuda_failed(802), Heard(nvml(1))), 1, FAIL, "fabric"),
    Row("hidden", Facts(cuda_failed(100), Heard(nvml(1)), hidden=True), 1, FAIL, "CUDA_VISIBLE_DEVICES"),
    Row("hidden in part", replace(healthy(1), nvml=Heard(nvml(2)), hidden=True), 2, FAIL, "CUDA_VISIBLE_DEVICES"),
    Row(
        "a device cannot be asked",
        replace(
            healthy(1),
            cuda=Heard(
                replace(
                    cuda(2),
                    devices=(cuda(2).devices[0], replace(cuda(2).devices[1], error=CallError("cuDeviceGet", 101, ""))),
                )
            ),
        ),
        2,
        FAIL,
    ),
    *(Row(f"driver {reason}", Facts(Heard(None, silence(reason)), Heard(nvml(1))), 1, FAIL) for reason in REASONS[:3]),
    *(
        Row(f"driver {reason}", Facts(Heard(None, silence(reason)), Heard(nvml(1))), 1, UNKNOWN)
        for reason in REASONS[3:]
    ),
    *(
        Row(f"driver {reason}, none expected", Facts(Heard(None, silence(reason)), NO_NVML), 0, UNKNOWN)
        for reason in REASONS
    ),
    Row("hung after counting", replace(healthy(1), cuda=Heard(cuda(1), silence("hung"))), 1, FAIL, "did not answer"),
    # NVML
    Row("no NVML", replace(healthy(1), nvml=NO_NVML), 1, WARN, "NVML"),
    Row("NVML says nothing at all", replace(healthy(1), nvml=Heard(None)), 1, WARN, "cannot be read"),
    Row("NVML hung", replace(healthy(1), nvml=Heard(None, silence("hung"))), 1, WARN, "did not answer"),
    Row("NVML unreadable", replace(healthy(1), nvml=nvml_failed(999)), 1, WARN, "daemon-reload"),
    *(Row(f"NVML {reason}", replace(healthy(1), nvml=Heard(None, silence(reason))), 1, WARN) for reason in REASONS),
    Row(
        "NVML lists others",
        replace(healthy(1), nvml=Heard(replace(nvml(1), devices=(replace(nvml().devices[0], uuid="GPU-77"),)))),
        1,
        WARN,
        "list different GPUs",
    ),
    Row("NVML lists more", replace(healthy(1), nvml=Heard(nvml(2))), 1, WARN, "list different GPUs"),
    Row("NVML lists fewer", replace(healthy(2), nvml=Heard(nvml(1))), 2, WARN, "list different GPUs"),
    Row("another order", replace(healthy(2), nvml=Heard(replace(nvml(2), devices=nvml(2).devices[::-1]))), 2, PASS),
    # MIG
    Row("MIG, one instance", mig(1, 1, 0), 1, PASS),
    Row("MIG, two instances, one shown at a time", mig(1, 2, 1), 2, PASS),
    Row("MIG, a second instance that cannot be used", mig(1, 2, 0), 2, FAIL),
    Row("MIG without instances", Facts(cuda_failed(100), mig(0, 0, 0).nvml), 1, FAIL, "no instance"),
    # Health
    Row("healthy", unwell(WELL), 1, PASS),
    Row("nothing reported", unwell(Health()), 1, PASS),
    Row("ECC", unwell(replace(WELL, ecc_uncorrected=1)), 1, WARN, "memory errors were counted"),
    Row("ECC long ago", unwell(replace(WELL, ecc_uncorrected_lifetime=7)), 1, PASS),
    Row("remap pending", unwell(replace(WELL, remap_pending=True)), 1, WARN, "waits to be replaced"),
    Row("page pending", unwell(replace(WELL, retired_pages_pending=True)), 1, WARN, "waits to be replaced"),
    Row("remap failed", unwell(replace(WELL, remap_failed=True)), 1, WARN, "no spare is left"),
    *(
        Row(f"slowdown {bit:#x}", unwell(replace(WELL, clock_event_reasons=bit)), 1, WARN, "slows")
        for bit in (0x8, 0x40, 0x80)
    ),
    *(
        Row(f"no slowdown {bit:#x}", unwell(replace(WELL, clock_event_reasons=bit)), 1, PASS)
        for bit in (0x0, 0x1, 0x2, 0x4, 0x20, 0x100)
    ),
    Row("rows remapped long ago", unwell(replace(WELL, remapped_rows_uncorrected=2, retired_pages=3)), 1, PASS),
    # What NVML may not ask
    Row("GPUs of other containers", replace(healthy(1), nvml=Heard(with_forbidden(1, 2))), 1, PASS),
    Row(
        "only GPUs of other containers", Facts(cuda_failed(100), Heard(with_forbidden(0, 2))), 1, FAIL, "no permission"
    ),
    Row("its GPU may not be asked", replace(healthy(1), nvml=Heard(with_forbidden(0, 1))), 1, WARN, "no permission"),
    Row("one of two may not be asked", replace(healthy(2), nvml=Heard(with_forbidden(1, 1))), 2, PASS),
    Row("two strangers, one may not be asked", replace(healthy(3), nvml=Heard(with_forbidden(1, 1))), 3, WARN, "list"),
    Row(
        "NVML lists one that CUDA does not, and one may not be asked",
        replace(healthy(1), nvml=Heard(with_forbidden(2, 1))),
        1,
        WARN,
        "list different GPUs",
    ),
    # Free memory
    Row("a tenth is free", one(free_bytes=8 << 30, total_bytes=80 << 30), 1, PASS),
    Row("less than a tenth is free", one(free_bytes=(8 << 30) - 1, total_bytes=80 << 30), 1, WARN, "somebody else"),
    Row("nobody says how much is free", one(free_bytes=None), 1, PASS),
    # Surroundings
    Row("a small /dev/shm", replace(healthy(), surroundings=Surroundings(shm_bytes=1)), 1, WARN, "/dev/shm"),
    Row("a small /dev/shm, nothing asked for", replace(NOTHING, surroundings=Surroundings(shm_bytes=1)), 0, PASS),
    Row("half a core for each", replace(healthy(2), surroundings=Surroundings(cpu_limit=1)), None, WARN, "core"),
    Row("a driver without a module", Facts(versionless(35), NO_NVML), 1, FAIL, "no driver found"),
    Row("a driver that is too old", Facts(cuda_failed(35), NO_NVML), 1, FAIL, "too old"),
    # Memory and kernel
    Row("wrong data", one(memory=Trial(4 * MIB, mismatch=WRONG)), 1, FAIL, "returned wrong data"),
    Row("wrong result", one(kernel=Trial(MIB, mismatch=WRONG)), 1, FAIL, "computed a wrong result"),
    Row("too little tested", one(memory=Trial(MIB - 1)), 1, UNKNOWN),
    Row("nothing computed", one(kernel=Trial(0)), 1, UNKNOWN),
    Row(
        "no memory left", one(memory=failing(2), kernel=failing(2), free_bytes=MIB), 1, FAIL, "held by another process"
    ),
    Row("memory refused", one(memory=failing(2)), 1, FAIL, "gave no memory"),
    Row("ECC during the test", one(memory=failing(214, "cuMemcpyDtoH_v2")), 1, FAIL, "uncorrectable"),
    Row(
        "exclusive",
        one(memory=None, kernel=None, setup=CallError("cuDevicePrimaryCtxRetain", 46, "")),
        1,
        FAIL,
        "exclusive",
    ),
    *(
        Row(f"no JIT {code}", one(kernel=failing(code, "cuModuleLoadData")), 1, UNKNOWN, "cannot compile")
        for code in (209, 218, 221, 222, 223)
    ),
    Row("loading fails otherwise", one(kernel=failing(999, "cuModuleLoadData")), 1, FAIL, "unknown error"),
    Row("launch fails", one(kernel=failing(719, "cuCtxSynchronize")), 1, FAIL, "a call of the driver failed"),
    Row("release fails", one(setup=CallError("cuDevicePrimaryCtxRelease_v2", 719, "")), 1, FAIL),
    Row("another device than listed", one(uuid=uuid(9)), 1, UNKNOWN, "not the one that was listed"),
    Row("not tested", replace(healthy(), gpus=()), 1, UNKNOWN),
    *(Row(f"test {reason}", silent_gpu(reason), 1, FAIL) for reason in REASONS[:3]),
    *(Row(f"test {reason}", silent_gpu(reason), 1, UNKNOWN) for reason in REASONS[3:]),
    *(
        Row(f"kernel {reason}", silent_gpu(reason, replace(TESTED, uuid=uuid(0), kernel=None)), 1, FAIL)
        for reason in REASONS[:3]
    ),
    *(Row(f"release {reason}", silent_gpu(reason, replace(TESTED, uuid=uuid(0))), 1, FAIL) for reason in REASONS[:3]),
    # What beats what
    Row(
        "fail beats unknown",
        replace(
            healthy(2),
            gpus=(done(0, kernel=failing(221, "cuModuleLoadData")), done(1, memory=Trial(MIB, mismatch=WRONG))),
        ),
        2,
        FAIL,
    ),
    Row("unknown beats warn", replace(one(kernel=failing(221, "cuModuleLoadData")), nvml=NO_NVML), 1, UNKNOWN),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.title)
def test_the_rules(row: Row) -> None:
    judgement = judge(row.facts, row.expected)
    assert judgement.verdict is row.verdict, [check for check in judgement.checks if check.verdict is not PASS]
    assert row.cause in judgement.summary
    if row.verdict is not PASS:
        reason = next(check for check in judgement.checks if check.verdict is row.verdict)
        assert reason.cause
        assert reason.user_action
        assert reason.admin_action
    assert judgement.summary.isprintable()


def test_no_driver_says_what_to_do_in_one_line() -> None:
    summary = judge(NOTHING, 1).summary
    assert summary.startswith("GPU check: failed – no driver found. Choose a GPU profile")


def test_a_gpu_is_named_by_its_uuid_everywhere() -> None:
    judgement = judge(replace(healthy(2), gpus=(done(0), done(1, memory=Trial(MIB, mismatch=WRONG)))), 2)
    assert [gpu.uuid for gpu in judgement.gpus] == ["GPU-" + uuid(0), "GPU-" + uuid(1)]
    assert {check.gpu for check in judgement.checks if check.verdict is FAIL} == {"GPU-" + uuid(1)}


def test_a_crash_in_the_kernel_keeps_what_the_memory_test_said() -> None:
    judgement = judge(silent_gpu("crashed", replace(TESTED, uuid=uuid(0), kernel=None)), 1)
    verdicts = {check.name: check.verdict for check in judgement.checks if check.gpu}
    assert (verdicts["memory"], verdicts["kernel"]) == (PASS, FAIL)


@pytest.mark.parametrize(
    ("facts", "expected", "shown"),
    [(healthy(), 1, True), (healthy(), None, True), (NOTHING, 1, True), (NOTHING, None, False), (healthy(), 0, False)],
)
def test_surroundings_are_told_to_whoever_wants_a_gpu(facts: Facts, expected: int | None, shown: bool) -> None:
    judgement = judge(replace(facts, surroundings=Surroundings(shm_bytes=1 << 20)), expected)
    assert ("shared memory" in {check.name for check in judgement.checks}) == shown
    if facts is NOTHING and expected:
        assert judgement.summary.startswith("GPU check: failed – no driver found"), "what matters stands first"


def test_a_gpu_that_nobody_asked_for_is_never_judged_by_tests() -> None:
    names = {check.name for check in judge(replace(healthy(2), gpus=()), 0).checks}
    assert names == {"driver", "count", "nvml", "agreement"}


@pytest.mark.parametrize("count", [1, 2, 8, 16])
def test_many_gpus_are_judged_alike(count: int) -> None:
    assert judge(healthy(count), count).verdict is PASS
