"""The task of `nnx train` that is learning a text, character by character."""

from __future__ import annotations

import argparse
import os
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import data, io, train
from ..errors import DataError, OptionError
from ..layers import GPT, Layer
from ..optim import Optimizer
from ..train import Evaluation, Trainer
from ..train.folder import BEST, CONFIG, MODEL
from . import pictures

HELD_OUT = 10  # the last tenth of the text
BETAS = (0.9, 0.99)  # of Adam: batches are small, so the second moment is of more of them


class Chars:
    """A text's first nine tenths to train on, its last tenth held out."""

    rows = "windows"
    metrics: Mapping[str, Any] | None = {}

    def __init__(self, a: argparse.Namespace) -> None:
        if a.data is None or a.data_dir is not None:
            raise OptionError(
                "--task chars learns a file of text: give it as --data FILE, without --data-dir"
            )
        self.a, text = a, data.read_text(a.data)
        self.vocabulary = data.Characters.of(text)
        self.characters, self.crc32 = len(text), zlib.crc32(text.encode())
        ids = self.vocabulary.encode(text)
        held = len(ids) // HELD_OUT
        if held <= a.context:
            raise DataError(
                f"{a.data} has {len(ids):,} characters, of which the last tenth, {held:,}, is held "
                f"out; --context {a.context} needs at least {HELD_OUT * (a.context + 1):,} "
                f"characters: give a longer text, or a smaller --context"
            )
        cut = len(ids) - held
        self.windows, self.held_out = (
            data.Windows(part, a.context) for part in (ids[:cut], ids[cut:])
        )
        self.count = a.steps * a.batch_size

    def form(self) -> dict[str, Any]:
        """What the model takes and of which text it is, for config.json."""
        return {
            "characters": self.vocabulary.characters, "context": self.a.context,
            "crc32": self.crc32,
        }  # fmt: skip

    def model(self) -> Layer:
        return train.build_gpt(self.a.model, len(self.vocabulary), self.a.context, self.a.dropout)

    def optimizer(self, model: Layer) -> Optimizer:
        """Weight decay is of matrices alone: scales of LayerNorm are to stay near 1."""
        a, parameters = self.a, model.parameters()
        matrices = [p for p in parameters if p.ndim > 1]
        made = train.build_optimizer(a.optimizer, matrices, a.lr, a.weight_decay)
        made.add_param_group({"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0})
        for group in made.param_groups:
            if "betas" in group:
                group["betas"] = BETAS
        return made

    def train(self) -> Any:
        a = self.a
        return data.RandomWindows(self.windows, a.batch_size, a.steps, seed=a.seed)

    def tests(self) -> Any:
        return data.DataLoader(self.held_out, 32)  # type: ignore[arg-type]

    def header(self) -> str:
        return (
            f"{os.path.basename(self.a.data)}: {self.characters:,} characters, "
            f"{len(self.vocabulary)} different ones; the last tenth held out; "
            f"{self.a.steps} steps per epoch, context {self.a.context}"
        )

    def line(self, e: Mapping[str, Any]) -> str:
        speed = e["rows_per_second"] * self.a.context
        return (
            f"epoch {e['epoch']:>{len(str(self.a.epochs))}}/{self.a.epochs}"
            f"  train: loss {e['train_loss']:.4f}"
            f"  held-out: loss {e['test_loss']:.4f}, perplexity {np.exp(e['test_loss']):.2f}"
            f"  {speed:,.0f} characters/s"
        )

    def summary(self, result: Evaluation, trainer: Trainer) -> list[str]:
        lines = summary(result)
        if self.a.generate:
            rng = np.random.default_rng(self.a.seed)
            text = written(
                trainer.model, self.vocabulary, "\n", self.a.generate, self.a.context,
                self.a.temperature, rng,
            )  # fmt: skip
            lines += ["", text.strip("\n"), ""]
        return lines

    def pictures(self, result: Evaluation, trainer: Trainer) -> list[str]:
        return pictures.of_text(trainer, self.a.out)


def summary(result: Evaluation) -> list[str]:
    """What is said of the held-out text."""
    return [
        f"held-out loss {result.loss:.4f} per character: perplexity {result.perplexity:.3f}, "
        f"{result.loss / np.log(2):.3f} bits"
    ]


def written(
    model: Layer, vocabulary: data.Characters, prompt: str, count: int, context: int,
    temperature: float, rng: np.random.Generator,
) -> str:  # fmt: skip
    """The text that the model goes on with; it begins at a line's start if that is no character."""
    if prompt == "\n" and "\n" not in vocabulary.characters:
        prompt = vocabulary.characters[0]
    ids = train.generate(
        model, vocabulary.encode(prompt), count, context=context, temperature=temperature, rng=rng
    )
    return vocabulary.decode(ids)


def trained(run: argparse.Namespace, form: Any, folder: str, best: bool) -> tuple[GPT, Any]:
    """The run's model, and its vocabulary."""
    characters = form.get("characters") if isinstance(form, dict) else None
    if not isinstance(characters, str) or type(form.get("context")) is not int:
        raise DataError(
            f"{os.path.join(folder, CONFIG)!r} does not say what the model takes; was the run made "
            f"by `nnx train --task chars`?"
        )
    vocabulary = data.Characters(characters)
    model = train.build_gpt(run.model, len(vocabulary), form["context"])
    io.load(model, os.path.join(folder, BEST if best else MODEL))
    return model, vocabulary
