"""The task of `nnx train` that is classifying images."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from .. import data
from ..errors import DataError, OptionError
from ..layers import Layer
from ..optim import Optimizer
from ..report import epoch_line, summary
from ..train import Evaluation, Trainer, build_model, build_optimizer
from . import pictures

HELD_OUT = {
    "digits": "every fifth image",
    "mnist": "its own test images",
    "fashion-mnist": "its own test images",
}
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
        images = self.images
        return {
            "features": images.x.shape[1],
            "classes": images.classes,
            "image_shape": images.image_shape,
            "white": images.white,
            **({"class_names": images.class_names} if images.class_names else {}),
        }

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
        which = HELD_OUT.get(self.a.data, "a fifth, at random")
        return (
            f"{self.a.data}: {self.count:,} {'images' if self.images.image_shape else 'rows'} to "
            f"train on, {len(self.held_out):,} held out ({which})"
        )

    def line(self, entry: Mapping[str, Any]) -> str:
        return epoch_line(entry, self.a.epochs)

    def summary(self, result: Evaluation, trainer: Trainer) -> list[str]:
        return summary(result)

    def pictures(self, result: Evaluation, trainer: Trainer) -> list[str]:
        return pictures.of_images(trainer, self.held_out, result, self.a.out)


def datasets(a: argparse.Namespace) -> tuple[data.ArrayDataset, data.ArrayDataset]:
    """Images to train on, and held-out ones."""
    train, test = (data.load(a.data, a.data_dir, split=split) for split in ("train", "test"))
    for part in (train, test):
        check_classes(part, a.data)
    return train, test


def check_classes(images: data.ArrayDataset, path: str) -> None:
    """Raise DataError unless they are rows of numbers with class ids."""
    if images.classes is None or images.t.ndim != 1:
        raise DataError(
            f"{path}: the targets have shape {images.t.shape} and dtype {images.t.dtype}, expected "
            f"class ids, (N,) whole numbers: `nnx train` trains classifiers; of one-hot targets "
            f"save t.argmax(axis=1); for others use nnx.Trainer"
        )
