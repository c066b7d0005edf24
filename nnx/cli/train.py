"""`nnx train`."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .. import random
from ..backend import use_backend
from ..optim import schedules
from ..report import Bar
from ..threads import get_num_threads, set_num_threads
from ..train import Trainer
from ..train.folder import FILES
from . import config, options, pictures
from .chars import Chars
from .images import Images

Task = Images | Chars
TASKS: dict[str, type[Images] | type[Chars]] = {"images": Images, "chars": Chars}


def train(a: argparse.Namespace) -> int:
    """Everything that can be refused is refused before the first line is printed."""
    a = options.filled(a) if a.resume is None else config.resumed(a)
    if a.plot:
        pictures.check(a)
    with use_backend(a.backend), _threads(a):
        task = TASKS[a.task](a)
        if a.resume is not None:
            config.check_data(a.resume, task.form())
        random.seed(a.seed)
        model = task.model()
        optimizer = task.optimizer(model)
        used = optimizer.param_groups[0]
        a.lr, a.weight_decay = used["lr"], used["weight_decay"]
        bar = Bar(task.count, a.epochs, task.rows) if sys.stderr.isatty() else None
        trainer = Trainer(
            model, optimizer, metrics=task.metrics,
            schedule=schedules.named(a.schedule), clip_norm=a.clip_norm,
            folder=a.out, overwrite=a.overwrite, save_every=a.save_every, patience=a.patience,
            on_step=[bar] if bar else [], on_epoch=[_Lines(task, bar)], eager=a.eager,
        )  # fmt: skip
        if trainer.folder is not None:
            trainer.folder.begin(config.make(a, task.form()), resumed=a.resume is not None)
        if a.resume is not None:
            trainer.resume(missing_ok=True)
        print("\n".join(_header(a, task, trainer)), flush=True)
        try:
            code = _fit(a, task, trainer)
        finally:
            if bar is not None:
                bar.close()
    if not code and a.backend == "numpy" and importlib.util.find_spec("numba") is not None:
        print("hint: numba is installed: --backend numba runs small networks faster")
    return code


def _fit(a: argparse.Namespace, task: Task, trainer: Trainer) -> int:
    import numpy as np

    start, done = time.perf_counter(), trainer.epoch
    batches, tests = task.train(), task.tests()
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
    print("\n".join(task.summary(result, trainer)))
    if trainer.folder is not None:
        print(f"saved to {trainer.folder.path}: {', '.join(FILES)}")
        if a.plot:
            print("\n".join(task.pictures(result, trainer)))
    return 0


class _Lines:
    """Prints a line after each epoch."""

    def __init__(self, task: Task, bar: Bar | None) -> None:
        self._task, self._bar = task, bar

    def __call__(self, trainer: Trainer) -> None:
        if self._bar is not None:
            self._bar.close()
        print(self._task.line(trainer.history[-1]), flush=True)


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


def _header(a: argparse.Namespace, task: Task, trainer: Trainer) -> list[str]:
    size = sum(p.size for p in trainer.model.parameters())
    lines = [
        task.header(),
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
