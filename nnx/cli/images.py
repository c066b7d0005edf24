"""The task of `nnx train` that is classifying images."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from .. import data
from ..errors import OptionError
from ..layers import Layer
from ..optim import Optimizer
from ..report import epoch_line, summary
from ..train import Evaluation, Trainer, build_model, build_optimizer

CHARS_ONLY = ("context", "steps", "dropout", "generate", "temperature")


class Images:
    """Images to train on and held-out ones, and what is said of them."""

    rows = "images"
    metrics: Mapping[str, Any] | None = None  # the trainer's own

    def __init__(self, a: argparse.Namespace) -> None:
        wrong = [name for name in CHARS_ONLY if getattr(a, name) is not None]
        if wrong:
            raise OptionError(f"--{wrong[0]} is for --task chars: leave it out, or give that task")
        self.a = a
        self.images, self.held_out = datasets(a)
        self.count = len(self.images)

    def form(self) -> dict[str, Any]:
        """What the model takes, for config.json."""
        return {
            "features": self.images.x.shape[1], "classes": self.images.classes,
            "image_shape": self.images.image_shape, "white": self.images.white,
        }  # fmt: skip

    def model(self) -> Layer:
        return build_model(self.a.model, self.images.x.shape[1], self.images.classes or 0)

    def optimizer(self, model: Layer) -> Optimizer:
        a = self.a
        return build_optimizer(a.optimizer, model.parameters(), a.lr, a.weight_decay)

    def train(self) -> Any:
        return data.DataLoader(self.images, self.a.batch_size, shuffle=True, seed=self.a.seed)

    def tests(self) -> Any:
        return data.DataLoader(self.held_out, 1000)

    def header(self) -> str:
        which = "every fifth image" if self.a.data == "digits" else "its own test images"
        return (
            f"{self.a.data}: {self.count:,} images to train on, {len(self.held_out):,} held out "
            f"({which})"
        )

    def line(self, entry: Mapping[str, Any]) -> str:
        return epoch_line(entry, self.a.epochs)

    def summary(self, result: Evaluation, trainer: Trainer) -> list[str]:
        return summary(result)


def datasets(a: argparse.Namespace) -> tuple[data.ArrayDataset, data.ArrayDataset]:
    """Images to train on, and held-out ones."""
    if a.data_dir is None and a.data in data.sources.NAMES and a.data != "digits":
        raise OptionError(f"--data {a.data} reads IDX files: say where with --data-dir DIR")
    train, test = (data.load(a.data, a.data_dir, split=split) for split in ("train", "test"))
    return train, test
