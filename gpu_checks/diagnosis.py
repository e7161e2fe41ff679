"""Which fault is meant: from the codes that were seen to the fault, as a table.

Sources: the CUDA driver API's ``CUresult`` and NVML's ``nvmlReturn_t`` for the codes.
"""

from __future__ import annotations

from dataclasses import dataclass

from .faults import (
    ACCESS_LOST,
    BUSY,
    COMPAT_CLASH,
    CUDA_BLIND,
    DRIVER_CRASHED,
    DRIVER_ERROR,
    DRIVER_HUNG,
    DRIVER_STUCK,
    DRIVER_TOO_OLD,
    DRIVER_UNKNOWN,
    ECC_ERROR,
    FABRIC_MANAGER,
    FALLEN_OFF,
    HIDDEN,
    MEMORY_HELD,
    MIG_EMPTY,
    MODULE_NOT_LOADED,
    MPS,
    NO_DEVICE,
    NO_DRIVER,
    NO_PERMISSION,
    OUT_OF_MEMORY,
    PROBE_FAILED,
    PROBE_KILLED,
    RESET_REQUIRED,
    STUB_LIBRARY,
    VERSION_MISMATCH,
    Fault,
)


@dataclass(frozen=True)
class Symptoms:
    """What was seen when something failed. A code is None where that library gave none."""

    cuda: int | None = None
    nvml: int | None = None
    nvml_lists: bool = False  # NVML lists a device that could be used
    mig_empty: bool = False  # NVML lists a GPU in MIG mode, and no instance
    hidden: bool = False  # CUDA_VISIBLE_DEVICES is set
    low_memory: bool = False  # little was free before the check took any
    versionless: bool = False  # the driver says version 0: there is no kernel module behind the library


@dataclass(frozen=True)
class Rule:
    """A row of the table: the fault is meant where everything that the rule names is so. None: no matter what."""

    fault: Fault
    cuda: frozenset[int] | None = None
    nvml: frozenset[int] | None = None
    nvml_lists: bool | None = None
    mig_empty: bool | None = None
    hidden: bool | None = None
    low_memory: bool | None = None
    versionless: bool | None = None

    def matches(self, seen: Symptoms) -> bool:
        """True where every part of the rule fits what was seen."""
        return (
            (self.cuda is None or seen.cuda in self.cuda)
            and (self.nvml is None or seen.nvml in self.nvml)
            and (self.nvml_lists is None or seen.nvml_lists == self.nvml_lists)
            and (self.mig_empty is None or seen.mig_empty == self.mig_empty)
            and (self.hidden is None or seen.hidden == self.hidden)
            and (self.low_memory is None or seen.low_memory == self.low_memory)
            and (self.versionless is None or seen.versionless == self.versionless)
        )


def _codes(*codes: int) -> frozenset[int]:
    return frozenset(codes)


# The first row that matches is meant, so the more telling symptom stands first: NVML's codes are precise where CUDA
# only says 100 (no device) or 999 (unknown).
RULES: tuple[Rule, ...] = (
    Rule(STUB_LIBRARY, cuda=_codes(34)),
    Rule(NO_DRIVER, cuda=_codes(35), versionless=True),
    Rule(DRIVER_TOO_OLD, cuda=_codes(-1, 35, 36)),
    Rule(VERSION_MISMATCH, nvml=_codes(18)),
    Rule(COMPAT_CLASH, cuda=_codes(803, 804)),
    Rule(FABRIC_MANAGER, cuda=_codes(802)),
    Rule(BUSY, cuda=_codes(46)),
    Rule(MPS, cuda=frozenset(range(805, 811))),
    Rule(ECC_ERROR, cuda=_codes(214)),
    Rule(MEMORY_HELD, cuda=_codes(2), low_memory=True),
    Rule(OUT_OF_MEMORY, cuda=_codes(2)),
    Rule(FALLEN_OFF, nvml=_codes(15)),
    Rule(RESET_REQUIRED, nvml=_codes(16)),
    Rule(ACCESS_LOST, nvml=_codes(999)),
    Rule(MIG_EMPTY, cuda=_codes(100), mig_empty=True),
    Rule(HIDDEN, cuda=_codes(100, 101), hidden=True, nvml_lists=True),
    Rule(CUDA_BLIND, cuda=_codes(100, 101), nvml_lists=True),
    Rule(MODULE_NOT_LOADED, cuda=_codes(100, 999), nvml=_codes(9)),
    Rule(NO_PERMISSION, nvml=_codes(4, 17)),
    Rule(NO_DEVICE, cuda=_codes(100, 101)),
    Rule(DRIVER_UNKNOWN, cuda=_codes(999)),
)

NVML_RULES: tuple[Rule, ...] = (
    Rule(VERSION_MISMATCH, nvml=_codes(18)),
    Rule(FALLEN_OFF, nvml=_codes(15)),
    Rule(RESET_REQUIRED, nvml=_codes(16)),
    Rule(ACCESS_LOST, nvml=_codes(999)),
    Rule(MODULE_NOT_LOADED, nvml=_codes(9)),
    Rule(NO_PERMISSION, nvml=_codes(4, 17)),
)

SILENCES = {
    "hung": DRIVER_HUNG,
    "unkillable": DRIVER_STUCK,
    "crashed": DRIVER_CRASHED,
    "killed": PROBE_KILLED,
    "garbled": PROBE_FAILED,
    "defect": PROBE_FAILED,
    "not started": PROBE_FAILED,
}

# A kernel that the driver cannot build says nothing about the GPU: no binary for this GPU, invalid PTX, no JIT
# compiler, a PTX newer than the driver, JIT compilation disabled.
CANNOT_BUILD = _codes(209, 218, 221, 222, 223)


def diagnose(seen: Symptoms, rules: tuple[Rule, ...] = RULES, otherwise: Fault = DRIVER_ERROR) -> Fault:
    """The first fault of the table that fits, or ``otherwise``."""
    return next((rule.fault for rule in rules if rule.matches(seen)), otherwise)
