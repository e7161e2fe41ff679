"""Figures as the JSON has them: units in the names, the spread beside the median, the target beside the figure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

Figure = dict[str, Any]


def rounded(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")


def goal(value: float, target: float | None) -> Figure:
    """``value``, and whether it is at most ``target``; None where the size is not the one that was promised."""
    figure: Figure = {"value": rounded(value)}
    if target is not None:
        figure |= {"target": target, "met": value <= target}
    return figure


@dataclass
class Series:
    """What one tool took in each round; ``reason`` where it could not be measured."""

    durable: bool
    seconds: list[float] = field(default_factory=list)
    peak_rss_bytes: list[int] = field(default_factory=list)
    reason: str | None = None

    @property
    def median_s(self) -> float | None:
        return None if self.reason is not None or not self.seconds else statistics.median(self.seconds)

    def document(self, target_s: float | None = None) -> Figure | None:
        """Median, minimum, maximum, and the highest peak of memory; None where there is a ``reason``."""
        median_s = self.median_s
        if median_s is None:
            return None
        figure: Figure = {
            "durable": self.durable,
            "median_s": rounded(median_s),
            "min_s": rounded(min(self.seconds)),
            "max_s": rounded(max(self.seconds)),
            "rounds": len(self.seconds),
        }
        if self.peak_rss_bytes:
            figure["peak_rss_mb"] = rounded(max(self.peak_rss_bytes) / 1e6)
        if target_s is not None:
            figure |= {"target": target_s, "met": median_s <= target_s}
        return figure


def beside(series: dict[str, Series], target_s: float | None = None) -> Figure:
    """One entry for each tool; ``target_s`` is ours. A tool without figures is None, with why under ``reasons``."""
    document: Figure = {name: each.document(target_s if name == "ours" else None) for name, each in series.items()}
    document["reasons"] = {name: each.reason for name, each in series.items() if each.reason is not None}
    return document


def ratio(series: dict[str, Series], peer: str, target: float | None = None, *, ours: str = "ours") -> Figure | None:
    """The median of ``ours`` over that of ``peer``; None where one of them has none."""
    our_s, peer_s = series[ours].median_s, series[peer].median_s
    return None if our_s is None or peer_s is None else goal(our_s / peer_s, target)
