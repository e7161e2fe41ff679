"""What a framework's run means for somebody who asked for GPUs: pure, no I/O.

The run decides, the wheel explains. Only a build for the CPU is told by its files alone: that is a warning, because the
GPU itself works. What was not run to its end is ``unknown``, never ``pass``; what is not installed has no check.
"""

from __future__ import annotations

import re

from . import faults
from . import framework_faults as ff
from .architectures import covers
from .facts import Heard, Silence, short_uuid
from .faults import Fault
from .framework_facts import Product, Run, Situation, Wheel
from .gpus import found
from .result import Check, Framework, Verdict, plain

TITLES = {"torch": "PyTorch", "tensorflow": "TensorFlow"}

CPU_BUILD, CHECKED, NOT_CHECKED, NOT_INSTALLED = "cpu build", "checked", "not checked", "not installed"


def needs_run(wheel: Wheel, situation: Situation) -> bool:
    """Whether there is something to learn from importing it, which takes seconds."""
    if not wheel.installed or situation.without:
        return False
    return not (situation.on_gpus and wheel.build == "cpu")


def judge(
    wheel: Wheel, heard: Heard[Run] | None, situation: Situation, said: str = ""
) -> tuple[Framework, tuple[Check, ...]]:
    """The framework for the report, and its checks. ``heard`` is None where it was not run; ``said`` is its log."""
    case = _Case(wheel, situation, said)
    version = plain(wheel.version or (heard.facts.version if heard and heard.facts else ""), 60)
    build = plain(f"{wheel.build} {wheel.cuda}".strip(), 40)

    def framework(state: str) -> Framework:
        return Framework(wheel.name, state, version, build)

    if not wheel.installed:
        return framework(NOT_INSTALLED), ()
    if wheel.build == "cpu" and situation.expected != 0 and (situation.on_gpus or situation.without):
        return framework(CPU_BUILD), (case.finding("", Verdict.WARN, ff.CPU_BUILD, f"{wheel.distribution} {version}"),)
    if heard is None:
        fault = ff.NO_GPU_TO_CHECK if situation.without else ff.NOT_CHECKED
        return framework(NOT_CHECKED), (case.finding("", Verdict.UNKNOWN, fault),)
    checks = case.checks(heard)
    unfinished = all(check.verdict is Verdict.UNKNOWN for check in checks)
    return framework(NOT_CHECKED if unfinished else CHECKED), checks


class _Case:
    """One framework in one situation."""

    def __init__(self, wheel: Wheel, situation: Situation, said: str) -> None:
        self._wheel = wheel
        self._situation = situation
        self._said = said
        self._title = TITLES[wheel.name]

    def finding(self, part: str, verdict: Verdict, fault: Fault, detail: str = "", gpu: str = "") -> Check:
        """A check that did not pass."""
        name = f"{self._wheel.name} {part}".strip()
        return found(name, verdict, ff.named(fault, self._title), detail=detail, gpu=gpu)

    def checks(self, heard: Heard[Run]) -> tuple[Check, ...]:
        """Everything that the run shows."""
        run = heard.facts or Run()
        if run.failure:
            return (self._failed(run.failure),)
        if self._situation.on_gpus and run.count is None:
            return (self._silent(heard.silence or Silence("garbled", detail="no count"), ""),)
        wanted = set(range(run.count or 0)) if self._situation.on_gpus else {None}
        products = [product for product in run.products if product.index in wanted]
        checks = [*self._count(run), *self._kernels(run, products), *(self._product(product) for product in products)]
        # After the last product nothing is left to be done: a crash at the end of the process is its own affair.
        if wanted - {product.index for product in products}:
            checks.append(self._silent(heard.silence or Silence("garbled", detail="no result"), "product"))
        return tuple(checks)

    def _failed(self, failure: str) -> Check:
        """It was not even ready to count."""
        fault = ff.by_text(failure) or ff.NOT_IMPORTED
        if fault is faults.MEMORY_HELD:  # of the CPU, or of the GPU: either way it says nothing about the framework
            return self.finding("", Verdict.UNKNOWN, ff.NOT_CHECKED, failure)
        return self.finding("", Verdict.FAIL, fault, failure)

    def _silent(self, silence: Silence, part: str) -> Check:
        """A crash is a failure; a hang is one while the GPU is used. Slow to start, or killed, is not checked."""
        detail = f"{silence.detail}{f' in {silence.call}' if silence.call else ''}"
        importing = silence.call.startswith("import ")
        if silence.reason == "crashed" and silence.call:
            return self.finding(part, Verdict.FAIL, ff.CRASHED, f"{detail}; {self._said}")
        if silence.reason in ("hung", "unkillable") and silence.call and not importing and self._situation.on_gpus:
            return self.finding(part, Verdict.FAIL, ff.HUNG, detail)
        return self.finding(part, Verdict.UNKNOWN, ff.NOT_CHECKED, f"{silence.reason}: {detail}; {self._said}")

    def _count(self, run: Run) -> tuple[Check, ...]:
        """Whether it sees as many GPUs as the driver shows to one process."""
        if not self._situation.on_gpus:
            return ()
        count, visible = run.count or 0, self._situation.visible
        detail = f"the driver shows {visible}, {self._title} {count}"
        if count < visible:
            detail = "; ".join(text for text in (detail, run.reason, self._why_missing(), self._said) if text)
            return (self.finding("GPUs", Verdict.FAIL, self._why_fewer(run), detail),)
        if count > visible:
            return (self.finding("GPUs", Verdict.WARN, ff.MORE, detail),)
        return (Check(f"{self._wheel.name} GPUs", Verdict.PASS, detail=detail),)

    def _kernels(self, run: Run, products: list[Product]) -> list[Check]:
        """The GPUs for which this build has no kernels of its own, though CUDA's libraries may compute on them."""
        built_for = run.architectures or self._wheel.capabilities
        return [
            self.finding("kernels", Verdict.FAIL, ff.NO_KERNELS, detail, self._label(product))
            for product in products
            if covers(built_for, product.capability) is False
            for detail in [f"compute capability {product.capability}, built for {', '.join(built_for)}"]
        ]

    def _why_fewer(self, run: Run) -> Fault:
        if self._situation.hidden:
            return faults.HIDDEN
        if any(
            covers(run.architectures or self._wheel.capabilities, gpu.capability) is False
            for gpu in self._situation.gpus
        ):
            return ff.NO_KERNELS
        if _newer(run.cuda or self._wheel.cuda, self._situation.driver_cuda):
            return ff.DRIVER_TOO_OLD
        if self._wheel.missing and not run.reason:
            return ff.LIBRARIES_MISSING
        return ff.by_text(run.reason, self._said) or ff.BLIND

    def _why_missing(self) -> str:
        missing = self._wheel.missing
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        return f"not installed: {', '.join(missing[:3])}{more}" if missing else ""

    def _product(self, product: Product) -> Check:
        """Whether a product was computed where it should be, and right."""
        on_cpu = product.index is None
        gpu, part = self._label(product), "product"
        if product.failure:
            fault = ff.by_text(product.failure) or (ff.FAILED_ON_CPU if on_cpu else ff.FAILED)
            verdict = Verdict.UNKNOWN if fault is faults.MEMORY_HELD else Verdict.FAIL
            return self.finding(part, verdict, fault, product.failure, gpu)
        if product.error is None or not product.tolerance:
            return self.finding(part, Verdict.UNKNOWN, ff.NOT_CHECKED, "no result", gpu)
        if not _is_on(product.placed, product.index):
            return self.finding(part, Verdict.FAIL, ff.ELSEWHERE, f"computed on {product.placed}", gpu)
        detail = f"largest relative error {product.error:.1e}, allowed {product.tolerance:.1e}"
        if not product.error <= product.tolerance:  # also where it is no number
            fault = ff.WRONG_ON_CPU if on_cpu else ff.WRONG_RESULT
            return self.finding(part, Verdict.FAIL, fault, detail, gpu)
        where = "on the CPU: " if on_cpu else ""
        return Check(f"{self._wheel.name} {part}", Verdict.PASS, detail=where + detail, gpu=gpu)

    def _label(self, product: Product) -> str:
        """The GPU's name in the report: by its UUID where the framework knows it, else by its index."""
        if product.index is None:
            return ""
        known = self._situation.gpus
        by_uuid = [gpu.uuid for gpu in known if product.uuid and short_uuid(gpu.uuid) == short_uuid(product.uuid)]
        by_index = [gpu.uuid for gpu in known if gpu.index == product.index]
        return plain((by_uuid or by_index or [f"index {product.index}"])[0], 80)


def _newer(wheel: str, driver: str) -> bool:
    """Whether a build for this CUDA needs a newer driver: within one major version any driver does (CUDA 11 on)."""
    numbers = [re.match("[0-9]+", version) for version in (wheel, driver)]
    return all(numbers) and int(numbers[0].group()) > int(numbers[1].group())  # type: ignore[union-attr]  # all() says it


def _is_on(placed: str, index: int | None) -> bool:
    """``cuda:1`` and ``/job:localhost/replica:0/task:0/device:GPU:1`` are the GPU 1."""
    lowered = placed.lower()
    if index is None:
        return lowered == "cpu" or lowered.endswith(("device:cpu:0", "/cpu:0"))
    return lowered == f"cuda:{index}" or lowered.endswith(f"gpu:{index}")
