"""The command `nnx`: train, info, bench."""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import NnxError, OptionError, StateError
from .report import Bar, epoch_line, summary
from .runs import FILES, RunFolder
from .threads import get_num_threads, set_num_threads

if TYPE_CHECKING:
    from .layers import Layer
    from .train import Epoch


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code: 0, 2 after an error, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a path may hold what the stream cannot encode
            reconfigure(errors="backslashreplace")
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except NnxError as error:
        return _fail(str(error))
    except MemoryError as error:
        return _fail(f"out of memory: {error or 'choose a smaller model or batch'}")
    except KeyboardInterrupt:
        print("nnx: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `nnx info | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _fail(message: str) -> int:
    print(f"nnx: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _run(argv: list[str]) -> int:
    if argv[:1] == ["bench"]:
        from . import bench

        return bench.main(argv[1:])
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    if arguments.command == "info":
        from .info import lines

        print("\n".join(lines()))
        return 0
    return _train(arguments)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"nnx: error: {message}; see `{self.prog} --help`\n")


def _parser() -> argparse.ArgumentParser:
    from . import __version__

    parser = _Parser(prog="nnx", description="Neural networks on any array library.")
    parser.add_argument("--version", action="version", version=f"nnx {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    train = commands.add_parser(
        "train",
        help="train a classifier of images",
        description="Train a classifier of images; without options, of handwritten digits, in "
        "seconds.",
    )
    commands.add_parser("info", help="print what a bug report needs")
    commands.add_parser("bench", help="compare the backends on this machine")
    _add_options(train)
    return parser


def _add_options(train: argparse.ArgumentParser) -> None:
    from .train import OPTIMIZERS, SCHEDULES

    def add(name: str, default: object, metavar: str, text: str, **given: Any) -> None:
        text += f" ({default})" if default is not None else ""
        train.add_argument(name, default=default, metavar=metavar, help=text, **given)

    add("--data", "digits", "NAME", "digits, mnist, fashion-mnist")
    add("--data-dir", None, "DIR", "folder with the IDX files of mnist, .gz or plain")
    add("--model", "mlp:100", "SPEC", "linear, mlp:800, mlp:512,512, ...")
    add("--epochs", 30, "N", "passes over the images", type=_whole(1))
    add("--optimizer", "adam", "NAME", ", ".join(OPTIMIZERS))
    add("--lr", None, "RATE", "learning rate (the optimizer's own)", type=_rate)
    add("--schedule", "cosine", "NAME", f"of the learning rate: {', '.join(SCHEDULES)}")
    add("--weight-decay", None, "W", "weight decay (the optimizer's own)", type=_decay)
    add("--batch-size", 32, "N", "images per step", type=_whole(1))
    add("--backend", "numpy", "NAME", "what computes: a name that `nnx info` lists")
    add("--threads", None, "N", "of large matrix products (all cores)", type=_whole(1))
    add("--seed", 0, "N", "of the weights and the order of the images", type=_whole(0))
    add("--out", None, "DIR", "write model, metrics and configuration there after each epoch")
    train.add_argument(
        "--eager", action="store_true", help="do not capture and replay the training step"
    )
    train.add_argument("--overwrite", action="store_true", help="replace an older run in --out")


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


def _rate(text: str) -> float:
    if not 0 < _real(text) < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return float(text)


def _decay(text: str) -> float:
    if not 0 <= _real(text) < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return float(text)


def _train(a: argparse.Namespace) -> int:
    """Everything that can be refused is made before the first line is printed."""
    import numpy as np

    from . import data, random, train
    from .backend import use_backend

    with use_backend(a.backend), _threads(a):
        if a.data_dir is None and a.data in data.sources.NAMES and a.data != "digits":
            raise OptionError(f"--data {a.data} reads IDX files: say where with --data-dir DIR")
        images = data.load(a.data, a.data_dir, split="train")
        held_out = data.load(a.data, a.data_dir, split="test")
        random.seed(a.seed)
        model = train.build_model(a.model, images.x.shape[1], images.classes or 0)
        optimizer = train.build_optimizer(a.optimizer, model.parameters(), a.lr, a.weight_decay)
        train.learning_rate(a.schedule, 1.0, 0, 1)
        used = optimizer.param_groups[0]
        a.lr, a.weight_decay = used["lr"], used["weight_decay"]
        folder = None
        if a.out is not None:
            folder = RunFolder(a.out, _config(a), overwrite=a.overwrite)
        bar = Bar(len(images), a.epochs)
        epochs = train.fit(
            model, optimizer,
            data.DataLoader(images, a.batch_size, shuffle=True, seed=a.seed),
            data.DataLoader(held_out, 1000),
            epochs=a.epochs, schedule=a.schedule, eager=a.eager,
            on_batch=bar if sys.stderr.isatty() else None,
        )  # fmt: skip
        print("\n".join(_header(a, len(images), len(held_out), model)), flush=True)
        with np.errstate(all="ignore"):  # a diverging loss is reported once, as an error
            code = _follow(epochs, a.epochs, model, folder, bar)
    if not code and a.backend == "numpy" and importlib.util.find_spec("numba") is not None:
        print("hint: numba is installed: --backend numba runs small networks faster")
    return code


@contextmanager
def _threads(a: argparse.Namespace) -> Iterator[None]:
    before = get_num_threads()
    if a.threads is not None:
        set_num_threads(a.threads)
    a.threads = get_num_threads()
    try:
        yield
    finally:
        set_num_threads(before)


def _header(a: argparse.Namespace, images: int, held_out: int, model: Layer) -> list[str]:
    size = sum(p.size for p in model.parameters())
    return [
        f"{a.data}: {images:,} images to train on, {held_out:,} held out "
        f"({'every fifth image' if a.data == 'digits' else 'its own test images'})",
        f"{a.model}: {size:,} parameters; {a.optimizer}, rate {a.lr:g}, {a.schedule}; "
        f"batch size {a.batch_size}; seed {a.seed}; backend {a.backend}; threads {a.threads}",
    ]


def _follow(
    epochs: Iterator[Epoch], count: int, model: Layer, folder: RunFolder | None, bar: Bar
) -> int:
    start, last = time.perf_counter(), None
    try:
        for epoch in epochs:
            bar.close()
            print(epoch_line(epoch, count), flush=True)
            if not math.isfinite(epoch.train_loss + epoch.test_loss):
                raise StateError(
                    f"training diverges: after epoch {epoch.epoch} the loss is "
                    f"{epoch.train_loss} in training, {epoch.test_loss} held-out; choose a "
                    f"smaller --lr. {_kept(folder)}"
                )
            if folder is not None:
                folder.write(model, epoch)
            last = epoch
    except KeyboardInterrupt:
        bar.close()
        done = last.epoch if last is not None else 0
        print(f"nnx: interrupted after {done} of {count} epochs; {_kept(folder)}", file=sys.stderr)
        return 130
    finally:
        bar.close()
    assert last is not None  # there is at least one epoch
    print(f"{count} epochs in {time.perf_counter() - start:.1f} s")
    print("\n".join(summary(last.evaluation)))
    if folder is not None:
        print(f"saved to {folder.path}: {', '.join(FILES)}")
    return 0


def _kept(folder: RunFolder | None) -> str:
    if folder is None:
        return "nothing was saved: give --out DIR to keep each epoch's model"
    if not folder.epoch:
        return f"{folder.path} holds the configuration, no epoch is complete"
    return f"{folder.path} holds the model and the metrics of epoch {folder.epoch}"


def _config(a: argparse.Namespace) -> dict[str, Any]:
    """All arguments, and what they ran on."""
    import platform
    from datetime import UTC, datetime

    import numpy as np

    from . import __version__
    from .backend import get_backend

    arguments = {k: v for k, v in vars(a).items() if k not in ("command", "overwrite")}
    backend = get_backend()
    return {
        "arguments": arguments,
        "versions": {
            "nnx": __version__, "python": platform.python_version(), "numpy": np.__version__,
        },
        "backend": {"name": backend.name, **backend.describe()},
        "platform": platform.platform(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
