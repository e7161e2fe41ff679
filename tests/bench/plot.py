"""``python -m tests.bench.plot FILE.json PICTURE.svg`` draws how long a flush takes, by the number of files.

Needs matplotlib, which is in an environment of its own (``make bench``). Words become outlines, so that no font has to
be there, and all colours can be read on white and on black.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

CHANGED = (10, 100, 1_000)
_GREY = "#7d8590"
# name: (colour, marker). Okabe and Ito's colours, which the colour-blind can tell apart.
_TOOLS = {"ours": ("#2f81f7", "o"), "rsync": ("#e69f00", "s"), "rclone": ("#009e73", "^"), "restic": ("#cc79a7", "D")}


def points(document: dict[str, Any], tool: str, changed: int) -> list[tuple[int, float]]:
    """The numbers of files at which ``tool`` was measured with ``changed`` files changed, and its median seconds."""
    runs = [run for run in document["flush"]["runs"] if run["changed"] == changed and run[tool] is not None]
    return [(run["files"], run[tool]["median_s"]) for run in runs]


def draw(document: dict[str, Any], picture: Path) -> None:
    """``picture`` shows one panel for each number of changed files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullFormatter

    matplotlib.rcParams.update(
        {
            "svg.fonttype": "path",
            "svg.hashsalt": "bench",  # the same figures make the same bytes
            "font.size": 9,
            **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _GREY),
        }
    )
    figure, panels = pyplot.subplots(1, len(CHANGED), figsize=(8.4, 2.9), sharey=True, layout="constrained")
    for panel, changed in zip(panels, CHANGED, strict=True):
        for tool, (colour, marker) in _TOOLS.items():
            found = points(document, tool, changed)
            if found:
                durable = " (durable)" if tool == "ours" or document["peers"][tool]["durable"] else ""
                style = {
                    "color": colour,
                    "marker": marker,
                    "markersize": 4,
                    "linewidth": 2.4 if tool == "ours" else 1.3,
                }
                panel.loglog(*zip(*found, strict=True), **style, label=tool + durable)
        panel.set_title(f"{changed:,} files changed", fontsize=9)
        panel.set_xlabel("files in the home")
        sizes = sorted({run["files"] for run in document["flush"]["runs"]})
        panel.set_xticks(sizes, [f"{size / 1000:g}k" for size in sizes])
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.xaxis.minorticks_off()
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s"))
        panel.grid(color=_GREY, alpha=0.25, linewidth=0.5)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("until the copy is up to date")
    lines = {line.get_label(): line for panel in panels for line in panel.get_lines()}
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=len(_TOOLS), frameon=False)
    figure.savefig(picture, transparent=True, metadata={"Date": None, "Creator": None})


def main() -> None:
    """Read FILE.json, write PICTURE."""
    if len(sys.argv) != 3:
        sys.exit("usage: python -m tests.bench.plot FILE.json PICTURE.svg")
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
