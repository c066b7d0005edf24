"""`nnx train`."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .. import data, random
from ..backend import use_backend
from ..errors import DataError
from ..optim import schedules
from ..report import Bar, epoch_line, summary
from ..threads import get_num_threads, set_num_threads
from ..train import Trainer, build_model, build_optimizer
from ..train.folder import FILES
from . import config, pictures


def train(a: argparse.Namespace) -> int:
    """Everything that can be refused is refused before the first line is printed."""
    if a.resume is not None:
        a = config.resumed(a)
    if a.plot:
        pictures.check(a)
    with use_backend(a.backend), _threads(a):
        images, held_out = datasets(a)
        random.seed(a.seed)
        model = build_model(a.model, images.x.shape[1], images.classes or 0)
        optimizer = build_optimizer(a.optimizer, model.parameters(), a.lr, a.weight_decay)
        used = optimizer.param_groups[0]
        a.lr, a.weight_decay = used["lr"], used["weight_decay"]
        bar = Bar(len(images), a.epochs) if sys.stderr.isatty() else None
        trainer = Trainer(
            model, optimizer,
            schedule=schedules.named(a.schedule), clip_norm=a.clip_norm,
            folder=a.out, overwrite=a.overwrite, save_every=a.save_every, patience=a.patience,
            on_step=[bar] if bar else [], on_epoch=[_Lines(a.epochs, bar)], eager=a.eager,
        )  # fmt: skip
        if trainer.folder is not None:
            trainer.folder.begin(config.make(a, images), resumed=a.resume is not None)
        if a.resume is not None:
            trainer.resume(missing_ok=True)
        print("\n".join(_header(a, images, held_out, trainer)), flush=True)
        try:
            code = _fit(a, trainer, images, held_out)
        finally:
            if bar is not None:
                bar.close()
    if not code and a.backend == "numpy" and importlib.util.find_spec("numba") is not None:
        print("hint: numba is installed: --backend numba runs small networks faster")
    return code


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


def _fit(
    a: argparse.Namespace, trainer: Trainer, images: data.ArrayDataset, held_out: data.ArrayDataset
) -> int:
    import numpy as np

    start, done = time.perf_counter(), trainer.epoch
    batches = data.DataLoader(images, a.batch_size, shuffle=True, seed=a.seed)
    tests = data.DataLoader(held_out, 1000)
    try:
        with np.errstate(all="ignore"):  # a diverging loss is reported once, as an error
            trainer.fit(batches, tests, epochs=a.epochs)
    except KeyboardInterrupt:
        print(f"nnx: interrupted after step {trainer.step}; {_kept(trainer)}", file=sys.stderr)
        return 130
    if trainer.stopped is not None:
        print(f"stopped: {trainer.stopped}")
    count = trainer.epoch - done
    print(f"{count} epoch{'s' if count != 1 else ''} in {time.perf_counter() - start:.1f} s")
    result = trainer.evaluation or trainer.evaluate(tests)
    print("\n".join(summary(result)))
    if trainer.folder is not None:
        print(f"saved to {trainer.folder.path}: {', '.join(FILES)}")
        if a.plot:
            print("\n".join(pictures.write(trainer, held_out, result, trainer.folder.path)))
    return 0


class _Lines:
    """Prints a line after each epoch."""

    def __init__(self, epochs: int, bar: Bar | None) -> None:
        self._epochs, self._bar = epochs, bar

    def __call__(self, trainer: Trainer) -> None:
        if self._bar is not None:
            self._bar.close()
        print(epoch_line(trainer.history[-1], self._epochs), flush=True)


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


def _header(
    a: argparse.Namespace, images: data.ArrayDataset, held_out: data.ArrayDataset, trainer: Trainer
) -> list[str]:
    size = sum(p.size for p in trainer.model.parameters())
    how = {"digits": "every fifth image", "mnist": "its own test images"}
    how["fashion-mnist"] = how["mnist"]
    lines = [
        f"{a.data}: {len(images):,} {'images' if images.image_shape else 'rows'} to train on, "
        f"{len(held_out):,} held out ({how.get(a.data, 'a fifth, at random')})",
        f"{a.model}: {size:,} parameters; {a.optimizer}, rate {a.lr:g}, {a.schedule}; "
        f"batch size {a.batch_size}; seed {a.seed}; backend {a.backend}; threads {a.threads}",
    ]
    if a.resume is not None:
        lines.append(f"resumed after {trainer.epoch} epochs, step {trainer.step}")
    return lines


def _kept(trainer: Trainer) -> str:
    if trainer.folder is None:
        return "nothing was saved: give --out DIR to keep a run"
    return f"go on with: nnx train --resume {trainer.folder.path}"
