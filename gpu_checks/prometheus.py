"""A report as a text file for the textfile collector of Prometheus' node exporter.

The format is the text exposition format 0.0.4: HELP and TYPE once per metric, samples of a metric together, no two with
the same labels. Labels that come from a driver may contain anything; values are numbers in base units.
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Iterable, Mapping

from .result import Check, Report, Verdict

Labels = Mapping[str, str]
Sample = tuple[Labels, float]

HEALTH = {
    "ecc_uncorrected": "ECC errors that could not be corrected, since the driver was loaded.",
    "ecc_uncorrected_lifetime": "ECC errors that could not be corrected, in the GPU's life.",
    "ecc_corrected_lifetime": "ECC errors that were corrected, in the GPU's life.",
    "remapped_rows_uncorrected": "Memory rows remapped after uncorrectable errors.",
    "remapped_rows_corrected": "Memory rows remapped after corrected errors.",
    "remap_pending": "1 if a faulty memory row waits for a reset of the GPU.",
    "remap_failed": "1 if a faulty memory row could not be remapped.",
    "retired_pages": "Memory pages taken out of use.",
    "retired_pages_pending": "1 if a memory page waits to be taken out of use.",
    "pcie_replays": "Transfers that PCI Express had to repeat.",
    "clock_event_reasons": "Why the clocks are lower than they could be: bits of nvmlClocksEventReasons.",
}


def as_prometheus(report: Report) -> str:
    """The report as metrics; what is not known has no sample."""
    level = {"level": report.level}
    versions = report.versions
    shown = {
        "version": versions.gpu_check,
        "python": versions.python,
        "driver": versions.driver,
        "cuda": versions.cuda,
    }
    lines = [
        *_metric("info", "What took part in the check.", [(shown, 1)]),
        *_metric(
            "verdict",
            "1 for the verdict of the check, 0 for the others.",
            [({**level, "verdict": verdict.value}, report.verdict is verdict) for verdict in Verdict],
        ),
        *_metric("finished_timestamp_seconds", "When the check ended.", _finished(report, level)),
        *_metric("duration_seconds", "How long the check took.", [(level, report.duration_s)]),
        *_metric("gpus_expected", "How many GPUs there should be.", _known(report.expected)),
        *_metric("gpus_found", "How many GPUs CUDA can use.", _known(report.found)),
        *_metric(
            "severity", "What one check found: 0 pass, 1 warn, 2 unknown, 3 fail.", _severities(report.checks, level)
        ),
        *_metric("gpu_info", "A GPU that can be seen here.", _gpus(report)),
    ]
    sizes = {"memory_bytes": "The GPU's memory.", "free_bytes": "The GPU's free memory, before the check took any."}
    for name, words in {**sizes, "tested_bytes": "Memory of the GPU that was tested."}.items():
        lines += _metric(f"gpu_{name}", words, _by_gpu((gpu.uuid, getattr(gpu, name)) for gpu in report.gpus))
    for name, words in HEALTH.items():
        lines += _metric(f"gpu_{name}", words, _by_gpu((gpu.uuid, getattr(gpu.health, name)) for gpu in report.gpus))
    temperatures = _by_gpu((gpu.uuid, gpu.health.temperature_c) for gpu in report.gpus)
    lines += _metric("gpu_temperature_celsius", "The GPU's temperature.", temperatures)
    return "\n".join(lines) + "\n"


def _metric(name: str, words: str, samples: Iterable[Sample]) -> list[str]:
    """The lines of one metric; none where there is no sample. Of samples with the same labels the largest stays."""
    largest: dict[str, float] = {}
    for labels, value in samples:
        text = ",".join(f'{label}="{escaped(labels[label])}"' for label in sorted(labels))
        key = f"gpu_check_{name}{{{text}}}" if text else f"gpu_check_{name}"
        largest[key] = max(float(value), largest.get(key, float("-inf")))
    if not largest:
        return []
    title = [f"# HELP gpu_check_{name} {words}", f"# TYPE gpu_check_{name} gauge"]
    return title + [f"{key} {_number(value)}" for key, value in largest.items()]


def escaped(text: str) -> str:
    """The text as it stands between the quotes of a label."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _known(value: int | None) -> list[Sample]:
    return [] if value is None else [({}, value)]


def _by_gpu(values: Iterable[tuple[str, int | None]]) -> list[Sample]:
    return [({"gpu": uuid}, value) for uuid, value in values if value is not None]


def _severities(checks: tuple[Check, ...], level: Labels) -> list[Sample]:
    return [({**level, "check": check.name, "gpu": check.gpu}, check.verdict.severity) for check in checks]


def _gpus(report: Report) -> list[Sample]:
    return [
        ({"gpu": gpu.uuid, "name": gpu.name, "mig": str(gpu.mig).lower(), "capability": gpu.compute_capability}, 1)
        for gpu in report.gpus
    ]


def _finished(report: Report, level: Labels) -> list[Sample]:
    return [(level, calendar.timegm(time.strptime(report.finished_at, "%Y-%m-%dT%H:%M:%SZ")))]
