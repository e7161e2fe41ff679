"""What the facts mean for somebody who asked for GPUs: pure, no I/O.

A required check (count, memory, kernel) that was not carried out is ``unknown``. An expected GPU that cannot be used is
``fail``. Nothing turns silence into ``pass``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from . import faults, surroundings
from .counters import counter_check
from .coverage import shortfall
from .diagnosis import NVML_RULES, Symptoms, diagnose
from .facts import CallError, CudaFacts, Facts, NvmlDevice, NvmlFacts, short_uuid
from .faults import Fault
from .gpus import checks_of, described, found, health_checks, silent, spelled, told
from .result import Check, Gpu, Verdict, worst

OPENINGS = {
    Verdict.PASS: "GPU check: passed",
    Verdict.WARN: "GPU check: passed with a warning",
    Verdict.UNKNOWN: "GPU check: not completed",
    Verdict.FAIL: "GPU check: failed",
}


@dataclass(frozen=True)
class Judgement:
    """The verdict on one run. ``found`` is how many GPUs CUDA can use, None where they could not be counted."""

    verdict: Verdict
    summary: str
    found: int | None
    gpus: tuple[Gpu, ...]
    checks: tuple[Check, ...]


def judge(facts: Facts, expected: int | None) -> Judgement:
    """The verdict on these facts for somebody who expects so many GPUs; None: nobody said how many."""
    case = _Case(facts, expected)
    driver = case.driver()
    checks = (driver, case.count(driver), *case.devices(), *case.nvml(), *case.agreement(), *case.surroundings())
    verdict = worst(check.verdict for check in checks)
    if verdict in (Verdict.PASS, Verdict.WARN):
        checks = (*checks, *shortfall(checks, expected))
        verdict = worst(check.verdict for check in checks)
    gpus = case.gpus()
    return Judgement(verdict, _summary(verdict, checks, gpus, expected), case.found, gpus, checks)


def _summary(verdict: Verdict, checks: tuple[Check, ...], gpus: tuple[Gpu, ...], expected: int | None) -> str:
    opening = OPENINGS[verdict]
    if verdict is not Verdict.PASS:
        reason = next(check for check in checks if check.verdict is verdict)
        return f"{opening} – {reason.cause}. {reason.user_action}"
    if expected == 0:
        return f"{opening} – no GPU is visible, as expected."
    names = ", ".join(sorted({gpu.name for gpu in gpus}))
    number = "1 GPU" if len(gpus) == 1 else f"{len(gpus)} GPUs"
    return f"{opening} – {number} ({names}): memory and a kernel's result verified."


class _Case:
    """One set of facts, asked for one verdict after the other."""

    def __init__(self, facts: Facts, expected: int | None) -> None:
        self._facts = facts
        self._expected = expected
        self._cuda: CudaFacts = facts.cuda.facts or CudaFacts(False)
        self._nvml: NvmlFacts = facts.nvml.facts or NvmlFacts(False)
        self._instances = tuple(
            target
            for target, heard in facts.gpus
            if target.mig_only and heard.facts and short_uuid(heard.facts.uuid) == short_uuid(target.uuid)
        )

    @property
    def found(self) -> int | None:
        """How many GPUs CUDA can use."""
        if self._facts.cuda.silence is not None or self._facts.cuda.facts is None or self._cuda.count is None:
            return None
        usable = {short_uuid(device.uuid) for device in self._cuda.devices if device.error is None}
        return len(usable) + len(self._instances)

    # The driver

    def driver(self) -> Check:
        """Whether CUDA's driver is there and starts."""
        silence = self._facts.cuda.silence
        if silence is not None:
            check = silent("driver", silence)
            return check if self._expected != 0 else _as(check, Verdict.UNKNOWN)
        if self._facts.cuda.facts is None:
            return found("driver", Verdict.UNKNOWN, faults.PROBE_FAILED)
        if not self._cuda.library:
            return self._unusable(self._no_library(), self._cuda.load_error, nothing_there=True)
        if self._cuda.error is not None:
            fault = diagnose(self._symptoms(self._cuda.error.code))
            return self._unusable(fault, told(self._cuda.error), nothing_there=self._cuda.count == 0)
        version = cuda_version(self._cuda.driver_version)
        return Check("driver", Verdict.PASS, detail=f"CUDA {version}")

    def _no_library(self) -> Fault:
        return faults.DRIVER_NOT_INJECTED if self._nvml.usable or self._facts.device_files else faults.NO_DRIVER

    def _unusable(self, fault: Fault, detail: str, *, nothing_there: bool) -> Check:
        """A driver that cannot be used: a fault where GPUs were asked for, or where one is seen."""
        if self._expected == 0 and nothing_there:
            return Check("driver", Verdict.PASS, detail="no usable driver, and none is needed")
        if self._expected is None and nothing_there and not self._nvml.usable:
            return found("driver", Verdict.UNKNOWN, fault, detail=detail)
        return found("driver", Verdict.UNKNOWN if self._expected == 0 else Verdict.FAIL, fault, detail=detail)

    def _symptoms(self, cuda: int | None) -> Symptoms:
        return Symptoms(
            cuda=cuda,
            nvml=self._nvml_code(),
            nvml_lists=bool(self._nvml.usable),
            mig_empty=any(device.mig_enabled for device in self._nvml.devices) and not self._nvml.usable,
            hidden=self._facts.hidden,
            versionless=self._cuda.driver_version == 0,
        )

    def _nvml_code(self) -> int | None:
        """NVML's first error, or None where it gave none."""
        return next((error.code for error in self._nvml_errors()), None)

    def _nvml_errors(self) -> tuple[CallError, ...]:
        """What NVML could not do. A GPU that is somebody else's counts only where there is no other."""
        blind = not self._nvml.usable
        errors = [self._nvml.error, *(d.error for d in self._nvml.devices if blind or not d.forbidden)]
        return tuple(error for error in errors if error is not None)

    @property
    def _forbidden(self) -> int:
        return sum(device.forbidden for device in self._nvml.devices)

    # The count

    def count(self, driver: Check) -> Check:
        """Whether there are as many as there should be."""
        number, expected = self.found, self._expected
        if number is None:
            return found("count", Verdict.UNKNOWN, faults.NOT_COUNTED)
        if expected is None:
            if number == 0:
                return found("count", Verdict.UNKNOWN, faults.NO_EXPECTATION)
            return Check("count", Verdict.PASS, detail=f"{number} found, no number was demanded")
        detail = f"expected {expected}, found {number}"
        if number < expected:
            return found("count", Verdict.FAIL, self._why_fewer(driver), detail=detail)
        if number > expected:
            return found("count", Verdict.WARN, faults.TOO_MANY, detail=detail)
        if expected == 0 and (self._nvml.devices or self._facts.device_files):
            seen = [spelled(device.uuid) for device in self._nvml.devices] or self._facts.device_files
            return found("count", Verdict.WARN, faults.TOO_MANY, detail="visible: " + ", ".join(seen))
        return Check("count", Verdict.PASS, detail=detail)

    def _why_fewer(self, driver: Check) -> Fault:
        """The driver's fault if it found none, else what the missing device's own error says."""
        if driver.verdict is not Verdict.PASS:
            return Fault(driver.cause, driver.user_action, driver.admin_action, driver.audience)
        hides = self._facts.hidden and len(self._nvml.usable) > (self.found or 0)
        otherwise = faults.HIDDEN if hides else faults.TOO_FEW
        broken = next((device.error.code for device in self._cuda.devices if device.error is not None), None)
        return diagnose(self._symptoms(broken), otherwise=otherwise)

    # Each device

    def devices(self) -> tuple[Check, ...]:
        """The tests of each GPU; none where none was asked for: it is somebody else's."""
        if self._expected == 0:
            return ()
        checks: list[Check] = []
        labels = {short_uuid(gpu.uuid): gpu.uuid for gpu in self.gpus()}
        for device in self._cuda.devices:
            if device.error is not None:
                fault = diagnose(self._symptoms(device.error.code))
                gpu = labels.get(short_uuid(device.uuid)) or f"index {device.index}"
                checks.append(found("device", Verdict.FAIL, fault, detail=told(device.error), gpu=gpu))
        for target, heard in self._facts.gpus:
            label = labels.get(short_uuid(target.uuid), target.uuid)
            checks += checks_of(target, heard, gpu=label, nvml=self._nvml_code())
        for listed in self._nvml.usable:
            label = labels.get(short_uuid(listed.uuid), "")
            checks += self._health(label, listed)
        tested = {short_uuid(target.uuid) for target, _ in self._facts.gpus}
        for device in self._cuda.devices:
            if device.error is None and short_uuid(device.uuid) not in tested:
                gpu = labels[short_uuid(device.uuid)]
                checks.append(found("memory", Verdict.UNKNOWN, faults.PROBE_FAILED, detail="not tested", gpu=gpu))
        return tuple(checks)

    def _health(self, gpu: str, listed: NvmlDevice) -> tuple[Check, ...]:
        """What NVML says about the board, and what has changed since the last report."""
        if listed.error is not None:
            return ()
        known = {short_uuid(uuid): health for uuid, health in self._facts.before if uuid}
        before = known.get(short_uuid(listed.uuid))
        checks = health_checks(gpu, listed.health)
        if before is None:
            return checks
        return (*checks, counter_check(gpu, before, listed.health, before_at=self._facts.before_at))

    # What surrounds them

    def surroundings(self) -> tuple[Check, ...]:
        """What the container allows; of no interest where no GPU is wanted."""
        gpus = self.found if self._expected is None else self._expected
        if not gpus:
            return ()
        return surroundings.checks_of(self._facts.surroundings, gpus=gpus, cuda_driver=self._cuda.driver_version)

    # The management library, and whether both mean the same devices

    def nvml(self) -> tuple[Check, ...]:
        """Whether NVML can be read. Nothing depends on it, so the worst is a warning."""
        silence = self._facts.nvml.silence
        if silence is not None:
            return (_as(silent("nvml", silence), Verdict.WARN),)
        if self._expected == 0 and self._cuda.count == 0 and (not self._nvml.library or self._nvml_code() == 9):
            return (Check("nvml", Verdict.PASS, detail="no usable driver, and none is needed"),)
        checks = [
            found(
                "nvml",
                Verdict.WARN,
                diagnose(Symptoms(nvml=problem.code), NVML_RULES, faults.NVML_ERROR),
                detail=told(problem),
            )
            for problem in self._nvml_errors()
        ]
        if checks:
            return tuple(checks)
        if self._facts.nvml.facts is None:
            return (found("nvml", Verdict.WARN, faults.NVML_ERROR),)
        detail = f"driver {self._nvml.driver_version}"
        if self._forbidden:
            detail += f"; {self._forbidden} of the node's GPUs may not be asked here"
        return (Check("nvml", Verdict.PASS, detail=detail),)

    def agreement(self) -> tuple[Check, ...]:
        """Whether CUDA and NVML list the same devices, by UUID; left out where one of them lists nothing to compare."""
        readable = self._facts.nvml.silence is None and self._nvml.library and self._nvml.error is None
        if self.found is None or not readable or not (self._nvml.devices or self._cuda.devices):
            return ()
        cuda = {short_uuid(device.uuid) for device in self._cuda.devices}
        cuda |= {short_uuid(target.uuid) for target in self._instances}
        unseen = [listed for listed in self._nvml.usable if not _keys(listed) & cuda]
        strangers = cuda - {key for listed in self._nvml.usable for key in _keys(listed)}
        number = len(self._cuda.devices) + len(self._instances)
        if not unseen and not strangers and number == len(self._nvml.usable):
            return (Check("agreement", Verdict.PASS, detail=f"CUDA and NVML list the same {number}"),)
        if not unseen and len(strangers) <= self._forbidden and number == len(self._nvml.usable) + len(strangers):
            return ()  # those that NVML may not ask may be the ones that only CUDA lists
        fault = faults.HIDDEN if self._facts.hidden and unseen else faults.DISAGREE
        detail = f"CUDA lists {number}, NVML {len(self._nvml.usable)}"
        return (found("agreement", Verdict.WARN, fault, detail=detail),)

    # The report's list

    def gpus(self) -> tuple[Gpu, ...]:
        """Every GPU that CUDA can use, then those that only NVML sees."""
        heard = {short_uuid(target.uuid): answer.facts for target, answer in self._facts.gpus}
        listed = {key: device for device in reversed(self._nvml.usable) for key in _keys(device)}
        shown: list[Gpu] = []
        known: set[str] = set()
        for device in self._cuda.devices:
            uuid = short_uuid(device.uuid)
            entry = listed.get(uuid)
            shown.append(described(device, entry, heard.get(uuid), mig=bool(entry and entry.parent)))
            known |= {uuid, *(_keys(entry) if entry else ())}
        for entry in self._nvml.usable:
            uuid = short_uuid(entry.uuid)
            if uuid and uuid not in known:
                shown.append(described(None, entry, heard.get(uuid), mig=bool(entry.parent)))
        return tuple(shown)


def cuda_version(number: int) -> str:
    """``12040`` is 12.4 (``cuDriverGetVersion``)."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _keys(device: NvmlDevice) -> set[str]:
    """The UUIDs that CUDA may know it by: a driver before 470 gives a MIG instance its GPU's."""
    return {short_uuid(uuid) for uuid in (device.uuid, device.parent) if uuid}


def _as(check: Check, verdict: Verdict) -> Check:
    return dataclasses.replace(check, verdict=verdict)
