"""`nnx train --plot`: pictures in the run's folder."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .. import plot
from ..errors import OptionError, ShapeError
from ..train.folder import PICTURES

if TYPE_CHECKING:
    from ..data import ArrayDataset
    from ..train import Evaluation, Trainer

OF_IMAGES = ("mistakes.png", "weights.png")
ROWS = 1000  # of the held-out data, for the activations


def check(a: argparse.Namespace) -> None:
    """OptionError without a folder, PackageError without matplotlib."""
    if a.out is None:
        raise OptionError("--plot writes pictures into the run's folder: say where with --out DIR")
    plot.check("--plot")


def write(trainer: Trainer, held_out: ArrayDataset, result: Evaluation, folder: Path) -> list[str]:
    """Write them; lines that say which, and why others were left out."""
    model, shape = trainer.model, held_out.image_shape
    draw: dict[str, Callable[[Path], object]] = {
        "curves.png": lambda path: plot.curves(trainer.history, path),
        "confusion.png": lambda path: plot.confusion(result, path),
        "mistakes.png": lambda path: plot.mistakes(model, held_out, path),
        "weights.png": lambda path: plot.weights(model, path, image_shape=shape),
        "activations.png": lambda path: plot.activations(model, held_out.x[:ROWS], path),
    }
    made, left_out = [], []
    for name in PICTURES:
        if shape is None and name in OF_IMAGES:
            left_out.append(f"no {name}: {held_out.name} does not hold images")
            continue
        try:
            draw[name](folder / name)
            made.append(name)
        except (OptionError, ShapeError) as error:  # a model or data of another form
            left_out.append(f"no {name}: {error}")
    return [f"pictures: {', '.join(made)}", *left_out]
