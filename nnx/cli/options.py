"""The options of each command."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any, NoReturn

DEFAULTS: dict[str, dict[str, Any]] = {
    "images": {
        "data": "digits", "model": "mlp:100", "epochs": 30, "optimizer": "adam", "batch_size": 32,
        "schedule": "cosine",
    },
    "chars": {
        "model": "gpt:4,4,128", "epochs": 8, "optimizer": "adamw", "lr": 3e-3, "batch_size": 12,
        "schedule": "warmup:0.4+cosine:0.1", "weight_decay": 0.1, "clip_norm": 1.0, "context": 64,
        "steps": 250, "dropout": 0.0, "generate": 500, "temperature": 0.8,
    },
}  # fmt: skip
"""What options are by default, for each task."""


def filled(a: argparse.Namespace) -> argparse.Namespace:
    """The arguments of `nnx train` with the task's defaults for what was not given."""
    for name, value in DEFAULTS[a.task].items():
        if getattr(a, name) is None:
            setattr(a, name, value)
    return a


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
            help="train a classifier of images, or a model of text",
            description="Train a classifier of images; without options, of handwritten digits, in "
            "seconds. With --task chars, a transformer on a text's characters.",
        )
    )
    _eval(
        commands.add_parser(
            "eval",
            help="evaluate a trained model",
            description="Loss, accuracy and confusions of a run's model on its held-out images; "
            "loss and perplexity of a model of text.",
        )
    )
    _predict(
        commands.add_parser(
            "predict",
            help="classify images with a trained model",
            description="Classes and probabilities of the images in a .npy or IDX file.",
        )
    )
    _generate(
        commands.add_parser(
            "generate",
            help="let a trained model of text go on",
            description="Text that a model of `nnx train --task chars` goes on with.",
        )
    )
    commands.add_parser("info", help="print what a bug report needs")
    commands.add_parser("bench", help="compare the backends on this machine")
    return made


def _train(train: argparse.ArgumentParser) -> None:
    from ..optim.schedules import SCHEDULES
    from ..train import OPTIMIZERS

    def add(name: str, metavar: str, text: str, default: object = None, **given: Any) -> None:
        option = name[2:].replace("-", "_")
        own = {task: str(d[option]) for task, d in DEFAULTS.items() if option in d}
        if "chars" in own and not text.startswith("chars:"):
            own["chars"] = f"chars {own['chars']}"
        usual = list(own.values())
        usual = usual if default is None else [str(default)]
        text += f" ({'; '.join(usual)})" if usual else ""
        train.add_argument(name, default=default, metavar=metavar, help=text, **given)

    train.add_argument("--task", choices=tuple(DEFAULTS), default="images",
                       help="learn classes of images, or a text's characters (images)")  # fmt: skip
    add(
        "--data",
        "NAME",
        "digits, mnist, fashion-mnist, or a .npz or .csv file; for chars a FILE of text",
    )
    add("--data-dir", "DIR", "folder with the IDX files of mnist, .gz or plain (downloaded)")
    add(
        "--model",
        "SPEC",
        "linear, mlp:800, mlp:512,512, ..., or lenet; for chars gpt:LAYERS,HEADS,WIDTH",
    )
    add("--epochs", "N", "passes over the images; for chars times --steps", type=_whole(1))
    add("--optimizer", "NAME", ", ".join(OPTIMIZERS))
    add("--lr", "RATE", "learning rate (the optimizer's own)", type=_above_0)
    add("--schedule", "NAME", f"of the learning rate: {', '.join(SCHEDULES)}; with numbers "
        "step:10,0.5; warmup:2+cosine")  # fmt: skip
    add(
        "--weight-decay",
        "W",
        "weight decay (the optimizer's own; for chars of matrices alone)",
        type=_from_0,
    )
    add("--clip-norm", "NORM", "clip gradients to this norm", type=_above_0)
    add("--batch-size", "N", "images, or windows of text, per step", type=_whole(1))
    add("--context", "N", "chars: how many characters the model sees", type=_whole(1))
    add("--steps", "N", "chars: steps per epoch", type=_whole(1))
    add("--dropout", "P", "chars: probability of dropping", type=_part)
    add("--generate", "N", "chars: characters to write at the end", type=_whole(0))
    add("--temperature", "T", "chars: of what is written; 0 takes the likeliest", type=_from_0)
    add("--patience", "N", "stop after so many epochs without a lower loss", type=_whole(1))
    add("--backend", "NAME", "what computes: a name that `nnx info` lists", "numpy")
    add("--threads", "N", "of large matrix products (all cores)", type=_whole(1))
    add("--seed", "N", "of the weights and the order of the data", 0, type=_whole(0))
    add("--out", "DIR", "keep the run there: model, metrics, checkpoint, configuration")
    add("--save-every", "N", "steps between checkpoints (one per epoch)", type=_whole(1))
    add("--resume", "DIR", "go on with the run in that folder, with its own options")
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


def _generate(made: argparse.ArgumentParser) -> None:
    _run(made)
    made.add_argument("--prompt", default="\n", metavar="TEXT", help="to begin with (a new line)")
    made.add_argument("--generate", default=500, metavar="N", type=_whole(0),
                      help="characters to write (500)")  # fmt: skip
    made.add_argument("--temperature", default=0.8, metavar="T", type=_from_0,
                      help="0 takes the likeliest (0.8)")  # fmt: skip
    made.add_argument("--seed", default=0, metavar="N", type=_whole(0), help="of the draws (0)")


def _run(made: argparse.ArgumentParser) -> None:
    """What `eval`, `predict` and `generate` share."""
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


def _part(text: str) -> float:
    if not 0 <= _real(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number in [0, 1), got {text!r}")
    return float(text)
