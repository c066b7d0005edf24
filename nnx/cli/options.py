"""The options of each command."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any, NoReturn


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"nnx: error: {message}; see `{self.prog} --help`\n")


def parser() -> argparse.ArgumentParser:
    """Of the whole command line."""
    from .. import __version__

    made = _Parser(prog="nnx", description="Neural networks on any array library.")
    made.add_argument("--version", action="version", version=f"nnx {__version__}")
    commands = made.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    _train(
        commands.add_parser(
            "train",
            help="train a classifier of images",
            description="Train a classifier of images; without options, of handwritten digits, in "
            "seconds.",
        )
    )
    _eval(
        commands.add_parser(
            "eval",
            help="evaluate a trained model",
            description="Loss, accuracy and confusions of a run's model on its held-out images.",
        )
    )
    _predict(
        commands.add_parser(
            "predict",
            help="classify images with a trained model",
            description="Classes and probabilities of the images in a .npy or IDX file.",
        )
    )
    commands.add_parser("info", help="print what a bug report needs")
    commands.add_parser("bench", help="compare the backends on this machine")
    return made


def _train(train: argparse.ArgumentParser) -> None:
    from ..optim.schedules import SCHEDULES
    from ..train import OPTIMIZERS

    def add(name: str, default: object, metavar: str, text: str, **given: Any) -> None:
        text += f" ({default})" if default is not None else ""
        train.add_argument(name, default=default, metavar=metavar, help=text, **given)

    add("--data", "digits", "NAME", "digits, mnist, fashion-mnist, or a .npz or .csv file")
    add("--data-dir", None, "DIR", "folder with the IDX files of mnist, .gz or plain (downloaded)")
    add("--model", "mlp:100", "SPEC", "linear, mlp:800, mlp:512,512, ..., or lenet")
    add("--epochs", 30, "N", "passes over the images", type=_whole(1))
    add("--optimizer", "adam", "NAME", ", ".join(OPTIMIZERS))
    add("--lr", None, "RATE", "learning rate (the optimizer's own)", type=_above_0)
    add("--schedule", "cosine", "NAME", f"of the learning rate: {', '.join(SCHEDULES)}; with "
        "numbers step:10,0.5; warmup:2+cosine")  # fmt: skip
    add("--weight-decay", None, "W", "weight decay (the optimizer's own)", type=_from_0)
    add("--clip-norm", None, "NORM", "clip gradients to this norm", type=_above_0)
    add("--batch-size", 32, "N", "images per step", type=_whole(1))
    add("--patience", None, "N", "stop after so many epochs without a lower loss", type=_whole(1))
    add("--backend", "numpy", "NAME", "what computes: a name that `nnx info` lists")
    add("--threads", None, "N", "of large matrix products (all cores)", type=_whole(1))
    add("--seed", 0, "N", "of the weights and the order of the images", type=_whole(0))
    add("--out", None, "DIR", "keep the run there: model, metrics, checkpoint, configuration")
    add("--save-every", None, "N", "steps between checkpoints (one per epoch)", type=_whole(1))
    add("--resume", None, "DIR", "go on with the run in that folder, with its own options")
    train.add_argument(
        "--eager", action="store_true", help="do not capture and replay the training step"
    )
    train.add_argument(
        "--plot", action="store_true", help="draw pictures into --out at the end (extra plot)"
    )
    train.add_argument("--overwrite", action="store_true", help="replace an older run in --out")


def _eval(made: argparse.ArgumentParser) -> None:
    _run(made)
    made.add_argument(
        "--data", metavar="NAME", help="other data than the run's; all rows of a file"
    )
    made.add_argument("--data-dir", metavar="DIR", help="folder with its IDX files")


def _predict(made: argparse.ArgumentParser) -> None:
    _run(made)
    made.add_argument("images", metavar="FILE", help="(N, height, width) or flat, .npy or IDX")
    made.add_argument("--out", metavar="FILE", help=".csv or .npy (CSV on standard output)")


def _run(made: argparse.ArgumentParser) -> None:
    """What `eval` and `predict` share."""
    made.add_argument("run", metavar="DIR", help="folder that `nnx train --out` wrote")
    made.add_argument("--best", action="store_true", help="the best epoch's model, not the last's")
    made.add_argument("--backend", default="numpy", metavar="NAME", help="what computes (numpy)")


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and least <= int(text) < 2**63):
            raise argparse.ArgumentTypeError(
                f"expected a whole number of at least {least}, got {text!r}"
            )
        return int(text)

    return parse


def _real(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _above_0(text: str) -> float:
    if not 0 < _real(text) < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return float(text)


def _from_0(text: str) -> float:
    if not 0 <= _real(text) < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return float(text)
