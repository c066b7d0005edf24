"""The comparison as a chart. Needs matplotlib, which is imported only here."""

from __future__ import annotations

import importlib
import textwrap
from pathlib import Path
from typing import Any

from ..errors import OptionError
from .report import Report, Row
from .table import duration, machine_line, title


def draw(report: Report, path: str | Path) -> None:
    """One group of bars per row: each implementation's time over that of the slowest, as PNG.

    Raises OptionError where matplotlib is missing.
    """
    try:
        matplotlib: Any = importlib.import_module("matplotlib")
        figures: Any = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise OptionError("--plot draws with matplotlib: pip install matplotlib") from error
    rows = [r for r in report["rows"] if r["times"]]
    names = [c["name"] for c in report["columns"] if any(c["name"] in r["times"] for r in rows)]
    height = 0.8 / max(1, len(names))
    with matplotlib.rc_context({"font.size": 8}):
        figure = figures.Figure(figsize=(9, 1.2 + 0.17 * len(rows) * (len(names) + 1)))
        axes = figure.subplots()
        for i, name in enumerate(names):
            _bars(axes, rows, name, i * height, height)
        axes.set_yticks([i + 0.4 - height / 2 for i in range(len(rows))])
        axes.set_yticklabels([f"{r['name']} {r['size']} {r['what']}" for r in rows])
        axes.set_ylim(len(rows), -0.3)
        axes.set_xlim(0, 1.18)
        machine = "\n".join(textwrap.wrap(machine_line(report), 90))
        axes.set_xlabel(f"time, relative to the slowest of the row (shorter is faster)\n{machine}")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(names), frameon=False)
        figure.savefig(path, dpi=150, bbox_inches="tight")


def _bars(axes: Any, rows: list[Row], name: str, offset: float, height: float) -> None:
    places = [(i, r) for i, r in enumerate(rows) if name in r["times"]]
    lengths = [
        r["times"][name]["seconds"] / max(t["seconds"] for t in r["times"].values())
        for _, r in places
    ]
    bars = axes.barh([i + offset for i, _ in places], lengths, height, label=title(name))
    labels = [duration(r["times"][name]["seconds"]) for _, r in places]
    axes.bar_label(bars, labels, padding=2, fontsize=6)
