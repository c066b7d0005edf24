"""`nnx train --plot`: pictures in the run's folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .. import plot
from ..errors import OptionError
from ..train.folder import PICTURES

if TYPE_CHECKING:
    from ..data import ArrayDataset
    from ..train import Evaluation, Trainer

ROWS = 1000  # of the held-out data, for the activations


def check(a: argparse.Namespace) -> None:
    """OptionError without a folder, PackageError without matplotlib."""
    if a.out is None:
        raise OptionError("--plot writes pictures into the run's folder: say where with --out DIR")
    plot.check("--plot")


def write(trainer: Trainer, held_out: ArrayDataset, result: Evaluation, folder: Path) -> list[str]:
    """Write them; lines that say which, and which make no sense for these data."""
    model, shape = trainer.model, held_out.image_shape
    curves, confusion, mistakes, weights, activations = (folder / name for name in PICTURES)
    plot.curves(trainer.history, curves)
    plot.confusion(result, confusion)
    plot.activations(model, held_out.x[:ROWS], activations)
    if shape is None:
        return [
            f"pictures: {curves.name}, {confusion.name}, {activations.name}",
            f"no {mistakes.name}, {weights.name}: {held_out.name} does not hold images",
        ]
    plot.mistakes(model, held_out, mistakes)
    plot.weights(model, weights, image_shape=shape)
    return [f"pictures: {', '.join(PICTURES)}"]
