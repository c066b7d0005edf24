"""The training loop: what it is made of, where it is, and how it is taken up again."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .. import metrics as library
from .. import random
from ..backend import Array, Backend, get_backend
from ..capture import capture
from ..errors import DivergedError, OptionError, StateError
from ..io import load, save
from ..layers import Layer
from ..ops import softmax_cross_entropy
from ..optim import Optimizer, clip_grad_norm
from ..optim.schedules import Progress, Schedule
from ..tensor import Tensor
from . import checkpoint, given, signals
from .diverged import explain
from .evaluation import Evaluation, Evaluator, Metric
from .folder import RunFolder
from .given import Batches
from .meter import Meter

Callback = Callable[["Trainer"], object]


class Trainer:
    """Trains a model, in a way that can be stopped, killed and taken up again.

        trainer = nnx.Trainer(model, optimizer, schedule=schedules.cosine(), folder="run")
        trainer.fit(train, test, epochs=20)
        print(trainer.history[-1]["test_accuracy"])

    model, optimizer   as you made them
    loss        of outputs and targets: an op, a loss layer or a function of Tensors whose result is
                a mean over rows
    metrics     functions of outputs and targets by name, each a mean over rows (`nnx.metrics`); the
                accuracy where the loss is left out
    schedule    of the learning rates (`nnx.optim.schedules`); None leaves them alone
    clip_norm   the norm to which gradients are clipped (`nnx.optim.clip_grad_norm`)
    folder      where the run is kept; None keeps it in memory alone
    overwrite   take a folder with an older run in it, whose files go
    save_every  steps between checkpoints within an epoch; there is one after each epoch anyhow
    monitor     the entry of `history` by which epochs are compared: the lowest is best if its name
                ends in "loss" or "error", else the highest
    patience    stop after so many epochs without a better one
    on_step, on_epoch   functions, called with the trainer after each step and each epoch
    eager       do not capture the steps (`nnx.capture`): slower on small networks, and equal to the
                last bit on NumPy. On a backend without replay steps are eager anyhow

    Where it is, to be read at any time:

    epoch, batch, step   complete epochs, batches of the one that runs, steps of all
    meter       sums of the epoch that runs; `meter.means()` waits for the device
    history     a dict for each epoch: epoch, step, train_loss, test_loss and the metrics, lr,
                seconds and rows_per_second of training alone
    best        {"epoch": 12, "value": 0.07}, or None before the first epoch
    evaluation  of the last epoch, or None
    generator   from which dropout draws: the trainer's own, drawn from nnx's when it is made
    stopped     why `fit` stopped before its epochs were complete, or None. Set it to None to go on

    Raises OptionError for options that are not as described, DataError for a folder that cannot be
    used.
    """

    def __init__(
        self,
        model: Layer,
        optimizer: Optimizer,
        *,
        loss: Callable[[Any, Any], Any] | None = None,
        metrics: Mapping[str, Metric] | None = None,
        schedule: Schedule | None = None,
        clip_norm: float | None = None,
        folder: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        save_every: int | None = None,
        monitor: str | None = None,
        patience: int | None = None,
        on_step: Iterable[Callback] = (),
        on_epoch: Iterable[Callback] = (),
        eager: bool = False,
    ) -> None:
        given.whole("save_every", save_every)
        given.whole("patience", patience)
        on_step, on_epoch = list(on_step), list(on_epoch)
        given.functions({"loss": loss, "schedule": schedule, **dict(metrics or {})})
        given.functions({f"on_step[{i}]": f for i, f in enumerate(on_step)})
        given.functions({f"on_epoch[{i}]": f for i, f in enumerate(on_epoch)})
        given.trained(model, optimizer)
        self.model, self.optimizer = model, optimizer
        self.loss = softmax_cross_entropy if loss is None else loss
        if metrics is None:
            metrics = {"accuracy": library.accuracy} if loss is None else {}
        self.metrics = dict(metrics)
        self.schedule, self.clip_norm, self.eager = schedule, clip_norm, eager
        self.folder = None if folder is None else RunFolder(folder, overwrite)
        self.save_every, self.monitor, self.patience = save_every, monitor, patience
        self.on_step, self.on_epoch = on_step, on_epoch
        self.epoch = self.batch = self.step = 0
        self.seconds = 0.0
        self.meter = self._meter()
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.evaluation: Evaluation | None = None
        self.generator = random.spawned()
        self.rates = [float(group["lr"]) for group in optimizer.param_groups]
        self.loader: dict[str, Any] | None = None
        self.stopped: str | None = None
        self._best_state: dict[str, Any] | None = None
        self._captured = capture(self._learn)
        self._evaluator = Evaluator(model, self.loss, self.metrics, eager)

    @property
    def backend(self) -> Backend:
        """Where the model's parameters are."""
        parameters = self.model.parameters()
        return parameters[0].backend if parameters else get_backend()

    def fit(
        self, train: Batches, test: Batches | None = None, *, epochs: int
    ) -> list[dict[str, Any]]:
        """Train until that many epochs are complete, counted over all calls; gives `history`.

        train   a DataLoader; a run that is taken up in the middle of an epoch goes on with its next
                batch
        test    evaluated after each epoch

        Ctrl-C, or SIGTERM, is acted on after the step that runs, once a checkpoint is written.

        Raises DivergedError when the loss is not finite (on a device: when it is read), with the
        step and the layer; the trainer is then as it was at the last checkpoint. DataError if a
        file cannot be written; the older one stays.
        """
        given.whole("epochs", epochs)
        self._prepare(train)
        device = self.backend.on_device()
        with device, signals.deferred() as caught, random.using(self.generator):
            while self.epoch < epochs and self.stopped is None:
                self._steps(train, epochs, caught)
                if self.batch == len(train):
                    self._finish(test, caught)
        return self.history

    def evaluate(self, batches: Iterable[tuple[Array, Array]]) -> Evaluation:
        """Loss and metrics over the batches, in evaluation mode; see `nnx.train.evaluate`."""
        return self._evaluator(batches)

    def predict(self, x: Any, batch_size: int = 1000) -> Array:
        """The model's outputs for the rows of x; see `nnx.train.predict`."""
        return self._evaluator.predict(x, batch_size)

    def resume(
        self, path: str | os.PathLike[str] | None = None, *, missing_ok: bool = False
    ) -> bool:
        """Take up a run where its last checkpoint is, to the last bit; whether there was one.

        path         a checkpoint's file; the one in `folder` if it is left out
        missing_ok   begin anew where there is none

        Warns of other versions, another backend or another number of threads than the run began
        with: the weights may then differ in their last bits. Raises DataError for a missing,
        damaged or foreign file, StateError if it is of another model or optimizer; the trainer is
        then unchanged.
        """
        if path is None:
            if self.folder is None:
                raise OptionError("resume: give a checkpoint's path, or the trainer a folder")
            path = self.folder.checkpoint
            if missing_ok and not os.path.exists(path):
                self.folder.begin(resumed=True)
                return False
        found = checkpoint.read(path)
        checkpoint.restore(self, found, os.fspath(path))
        checkpoint.warn_of_changes(found, checkpoint.environment(self))
        if self.folder is not None and os.fspath(path) == os.fspath(self.folder.checkpoint):
            self.folder.begin(resumed=True)
        return True

    def save(self) -> None:
        """A checkpoint, now: into the folder if there is one, in memory anyhow."""
        self._good = checkpoint.gather(self)
        if self.folder is not None:
            self._good.write(self.folder.checkpoint)

    def stop(self, reason: str = "stop() was called") -> None:
        """Let `fit` return after this step; for callbacks."""
        self.stopped = reason

    def load_best(self) -> None:
        """Give the model the parameters of the best epoch; StateError before the first."""
        if self.best is None:
            raise StateError("load_best() before an epoch is complete: call fit first")
        if self._best_state is not None:
            self.model.load_state_dict(self._best_state)
        elif self.folder is not None:
            load(self.model, self.folder.best)

    def _repr_html_(self) -> str:
        from ..html import table

        if not self.history:
            return "<p>Trainer, before its first epoch</p>"
        rows = [
            [f"{v:.4g}" if type(v) is float else str(v) for v in e.values()] for e in self.history
        ]
        return table(list(self.history[0]), rows, range(len(rows[0])))

    # an epoch

    def _prepare(self, train: Batches) -> None:
        now = given.described(train)
        if self.batch and self.loader != now:
            raise OptionError(
                f"fit: the run stopped within an epoch of the loader {self.loader}, the one given "
                f"is {now}: give one like it"
            )
        self.loader = now
        if self.folder is not None:
            self.folder.begin()
        if not self.batch:
            self.meter = self._meter()
        self._replays = not self.eager and self.backend.replay() is not None
        self.save()

    def _steps(self, train: Batches, epochs: int, caught: signals.Caught) -> None:
        """The epoch's steps, from where it stands."""
        self.model.train()
        began, on_host = time.perf_counter() - self.seconds, self.backend.on_host
        for x, t in train.batches(self.epoch, self.batch):
            values = self._advance(x, t, len(train), epochs)
            self.meter.add(x.shape[0], values)
            self.step, self.batch = self.step + 1, self.batch + 1
            if on_host and not math.isfinite(float(values[0])):
                raise self._diverged(train, epochs, float(values[0]))
            for f in self.on_step:
                f(self)
            self.seconds = time.perf_counter() - began
            if caught.number is not None:
                self._leave(caught)
            if self.save_every is not None and self.step % self.save_every == 0:
                self.save()
            if self.stopped is not None:
                self.save()
                break
        else:
            if self.batch != len(train):
                raise OptionError(
                    f"fit: train gave {self.batch} batches in an epoch, len(train) is {len(train)}"
                )
        loss = self.meter.means()["loss"]  # waits for the device
        self.seconds = time.perf_counter() - began
        if not math.isfinite(loss):
            raise self._diverged(train, epochs, loss)

    def _advance(self, x: Array, t: Array, steps_per_epoch: int, epochs: int) -> list[Array]:
        """One step at the rates that the schedule gives: the loss, and the metrics."""
        if self.schedule is not None:
            now = Progress(self.step, steps_per_epoch, epochs)
            rates = [given.rate(self.schedule, now, rate) for rate in self.rates]
            for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
        values: list[Array] = (self._captured if self._replays else self._learn)(x, t)
        return values

    def _learn(self, x: Array, t: Array) -> list[Array]:
        self.optimizer.zero_grad()
        y = self.model(Tensor(x))
        loss = self.loss(y, t)
        loss.backward()
        if self.clip_norm is not None:
            clip_grad_norm(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        return [loss.data, *[metric(y.data, t) for metric in self.metrics.values()]]

    def _finish(self, test: Batches | None, caught: signals.Caught) -> None:
        """Evaluate, note, compare, write: the epoch is complete."""
        entry: dict[str, Any] = {"epoch": self.epoch + 1, "step": self.step}
        entry |= {f"train_{name}": mean for name, mean in self.meter.means().items()}
        if test is not None:
            self.evaluation = self._evaluator(test, lambda: self._leave(caught))
            entry |= {f"test_{name}": score for name, score in self.evaluation.scores.items()}
        entry["lr"] = self.optimizer.param_groups[0]["lr"]
        entry["seconds"] = self.seconds
        entry["rows_per_second"] = self.meter.rows / max(self.seconds, 1e-9)
        self.history.append(entry)
        self.epoch, self.batch, self.seconds, self.meter = self.epoch + 1, 0, 0.0, self._meter()
        self._compare(entry)
        for f in self.on_epoch:
            f(self)
        if self.folder is not None:
            self.folder.write(self.model, self.history)
        self.save()

    def _compare(self, entry: Mapping[str, Any]) -> None:
        """Keep the epoch if it is the best, and stop if that was long ago."""
        name = self.monitor or ("test_loss" if "test_loss" in entry else "train_loss")
        if name not in entry:
            raise OptionError(f"monitor={name!r}: history has {', '.join(entry)}")
        value, sign = entry[name], -1 if name.endswith(("loss", "error")) else 1
        best = math.nan if self.best is None else self.best["value"]
        if self.best is None or math.isnan(best) or sign * value > sign * best:
            self.best = {"epoch": self.epoch, "value": value}
            self._best_state = self.model.state_dict()
            if self.folder is not None:
                save(self.model, self.folder.best)
        elif self.patience is not None and self.epoch - self.best["epoch"] >= self.patience:
            self.stop(f"{name} was best in epoch {self.best['epoch']}")

    def _leave(self, caught: signals.Caught) -> None:
        """If a signal came, do what it asks for, and lose nothing."""
        if caught.number is not None:
            self.save()
            caught.act()

    def _diverged(self, train: Batches, epochs: int, loss: float) -> DivergedError:
        return DivergedError(explain(self, train, epochs, loss, self._good))

    def _meter(self) -> Meter:
        return Meter(("loss", *self.metrics), self.backend)
