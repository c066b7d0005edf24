"""How training went: curves by epoch, and which classes are taken for which."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from ..errors import DataError, OptionError, ShapeError
from ..files import read_file
from ..train import Evaluation
from ..train.folder import METRICS
from .figures import TEST, TRAIN, Picture, grid, host

WRITTEN = 20  # classes for which counts are written


def curves(history: Any) -> Picture:
    """See `nnx.plot.curves`."""
    entries = _entries(history)
    names = [k.removeprefix("train_") for k in entries[0] if k.startswith("train_")]
    if not names:
        raise OptionError(
            "curves: the history has no train_loss; expected trainer.history, or a run's folder"
        )
    rates = ["lr"] if "lr" in entries[0] else []
    picture, axes = grid(len(names) + len(rates), (4.2, 3.2), 3)
    for ax, name in zip(axes, names, strict=False):
        _curve(ax, entries, f"train_{name}", "training", TRAIN)
        _curve(ax, entries, f"test_{name}", "held out", TEST)
        ax.set_ylabel(name.replace("_", " "))
        ax.legend(frameon=False)
    for ax in axes[len(names) :]:
        _curve(ax, entries, "lr", "", "#555555")
        ax.set_ylabel("learning rate")
    for ax in axes:
        if len(entries) == 1:
            ax.set_xlim(entries[0]["epoch"] - 1, entries[0]["epoch"] + 1)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        ax.grid(alpha=0.3)
    return picture


def _curve(ax: Any, entries: list[dict[str, Any]], key: str, label: str, color: str) -> None:
    """A line through the epochs that have this entry; a lone one is a dot."""
    points = [(e["epoch"], e[key]) for e in entries if e.get(key) is not None]
    if points:
        marker = "o" if len(points) <= 12 else ""
        ax.plot(*zip(*points, strict=True), label=label, color=color, marker=marker, markersize=3.5)


def _entries(history: Any) -> list[dict[str, Any]]:
    if isinstance(history, (str, os.PathLike)):
        history = _read(os.fspath(history))
    elif isinstance(history, Mapping) or not isinstance(history, Iterable):
        raise OptionError(
            f"curves: history is a {type(history).__name__}, expected trainer.history, or a run's "
            f"folder"
        )
    entries = list(history)
    if not entries or not all(isinstance(e, Mapping) and "epoch" in e for e in entries):
        raise OptionError(
            f"curves: the history has {len(entries)} entries, expected at least one, each a dict "
            f"with the epoch, as in trainer.history: train first, trainer.fit(batches, epochs=1)"
        )
    return entries


def _read(folder: str) -> list[Any]:
    path = os.path.join(folder, METRICS)
    if not os.path.exists(path):
        raise DataError(
            f"curves: there is no run in {folder!r}: it has no {METRICS}; give the folder that "
            f"`nnx train --out` or nnx.Trainer(folder=...) wrote"
        )
    lines = read_file("curves", path).decode(errors="replace").splitlines()
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise DataError(f"curves: {path!r} is not what nnx writes: {error}") from error


def confusion(counts: Any, classes: Sequence[str] | None) -> Picture:
    """See `nnx.plot.confusion`."""
    table = counts.counts if isinstance(counts, Evaluation) else host(counts)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or not table.size:
        raise ShapeError(
            f"confusion: the counts have shape {table.shape}, expected (C, C): an Evaluation, or "
            f"nnx.metrics.confusion_matrix(y, t)"
        )
    n = len(table)
    if classes is not None and len(classes) != n:
        raise OptionError(f"confusion: {len(classes)} names in classes, expected {n}")
    right = np.eye(n, dtype=bool)
    parts = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = max(4.5, 0.45 * min(n, WRITTEN) + 1.5)
    picture = Picture(side + 1.0, side)
    ax = picture.subplots()
    shown = ax.imshow(np.ma.array(100 * parts, mask=right), cmap="Oranges", vmin=0)
    ax.set_facecolor("#e6eef5")
    picture.colorbar(shown, ax=ax, shrink=0.8, label="% of the class, where wrong")
    ax.set_xlabel("taken for")
    ax.set_ylabel("class")
    total, correct = int(table.sum()), int(table.trace())
    ax.set_title(
        f"{total - correct:,} of {total:,} wrong: {100 * (total - correct) / max(total, 1):.2f} %"
    )
    _ticks(ax, n, classes)
    if n <= WRITTEN:
        _write(ax, table, parts, right)
    return picture


def _ticks(ax: Any, n: int, classes: Sequence[str] | None) -> None:
    if classes is None and n > WRITTEN:
        return
    names = [str(i) for i in range(n)] if classes is None else list(classes)
    turned = max(map(len, names)) > 3
    ax.set_xticks(range(n), names, rotation=90 if turned else 0)
    ax.set_yticks(range(n), names)


def _write(ax: Any, table: Any, parts: Any, right: Any) -> None:
    """Each count that is not 0, white on dark."""
    darkest = np.where(right, 0, parts).max()
    for i, j in np.argwhere(table):
        white = not right[i, j] and parts[i, j] > 0.6 * darkest
        ax.text(
            j, i, f"{table[i, j]}", ha="center", va="center", fontsize=8,
            color="white" if white else "black", fontweight="bold" if i == j else "normal",
        )  # fmt: skip
