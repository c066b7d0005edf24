"""A result as a picture. Needs matplotlib, which is imported only here."""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .report import Report, Row
from .table import label, machine_line, marked, threads, timed, title

OURS = ("#1f6fd6", "#d62728", "#2ca02c", "#9467bd", "#e6780a", "#8c564b")
OTHERS = {
    "torch-fused": "#333333", "torch-compile": "#8a8a8a", "torch-thp": "#b39b00",
    "torch-cuda": "#b5b5b5", "torch-cuda-graphs": "#d9d9d9", "jax": "#c47ac0", "naive": "#3f9e9b",
}  # fmt: skip
TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)


def draw(report: Report, path: str | Path) -> bool:
    """One line per row, one panel per number of threads, as PNG; False without matplotlib.

    Where a mark lies on its line says how many times as fast as the baseline it is.
    """
    if find_spec("matplotlib") is None:
        return False
    matplotlib: Any = importlib.import_module("matplotlib")
    figures: Any = importlib.import_module("matplotlib.figure")
    panels = {n: [r for r in report["rows"] if r["threads"] == n] for n in report["threads"]}
    names = [label(row) for row in max(panels.values(), key=len)]
    with matplotlib.rc_context({"font.size": 8}):
        size = (3.7 * len(panels) + 2.6, 0.3 * len(names) + 1.7)
        figure = figures.Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        for axis, (n, rows) in zip(axes, panels.items(), strict=True):
            _panel(axis, rows, _styles(report), report["baseline"])
            axis.set_title(threads(n), fontsize=9)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        _scale(axes[0], list(_speeds(report)))
        _explain(figure, axes[0], report)
        figure.savefig(path, dpi=150)
    return True


def _speeds(report: Report) -> Iterator[float]:
    """Those that the scale must hold: a disturbed round can give any."""
    for row in report["rows"]:
        for name, time in row["times"].items():
            if "speed" in time and not marked(row, name, report["baseline"]):
                yield time["speed"][0]


def _styles(report: Report) -> dict[str, dict[str, Any]]:
    """nnx in discs, all others in smaller diamonds."""
    there = set(timed(report)) - {report["baseline"]}
    columns = [c for c in report["columns"] if c["name"] in there]
    ours = [c["name"] for c in columns if c["ours"]]
    found: dict[str, dict[str, Any]] = {}
    for name in (c["name"] for c in columns if not c["ours"]):
        found[name] = {"color": OTHERS.get(name, "black"), "marker": "D", "ms": 4.5, "zorder": 3}
    for i, name in enumerate(ours):
        found[name] = {"color": OURS[i % len(OURS)], "marker": "o", "ms": 6.5, "zorder": 4}
    return found


def _panel(
    axis: Any, rows: Sequence[Row], styles: Mapping[str, dict[str, Any]], baseline: str
) -> None:
    """Marks at the medians, hollow where few rounds were clean; lines from quartile to quartile."""
    for i in range(0, len(rows), 2):
        axis.axhspan(i - 0.5, i + 0.5, color="#f3f3f3", zorder=0)
    axis.axvline(1, color="black", linewidth=1, zorder=1)
    for name, style in styles.items():
        axis.plot([], [], linestyle="", label=title(name), **style)
        for i, row in enumerate(rows):
            time = row["times"].get(name)
            if time is None or "speed" not in time:
                continue
            middle, low, high = time["speed"]
            hollow = {"markerfacecolor": "white"} if marked(row, name, baseline) else {}
            axis.plot([low, high], [i, i], color=style["color"], linewidth=1.2, zorder=2)
            axis.plot([middle], [i], linestyle="", alpha=0.9, **style, **hollow)


def _scale(axis: Any, speeds: Sequence[float]) -> None:
    low, high = min([0.8, *speeds]) / 1.25, max([1.25, *speeds]) * 1.25
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    ticks = [t for t in TICKS if low < t < high]
    axis.set_xticks(ticks, [f"{t:g}x" for t in ticks])
    axis.set_xticks([], minor=True)


def _explain(figure: Any, axis: Any, report: Report) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False)
    base = title(report["baseline"])
    words = (
        f"How many times as fast as {base} (the line at 1x): right of it faster, left slower. "
        f"Lines reach from quartile to quartile; hollow: few clean rounds. {machine_line(report)}."
    )
    width = int(14 * figure.get_size_inches()[0])
    figure.supxlabel("\n".join(textwrap.wrap(words, width)), fontsize=7)
