"""Where a training run stopped being finite: the run again, from the last good checkpoint."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..arrays import to_numpy
from ..backend import Array, backend_of
from ..layers import Layer
from ..layers.observe import observed
from ..optim import clip_grad_norm
from ..tensor import Tensor
from . import checkpoint

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .given import Batches
    from .trainer import Trainer

ADVICE = "Choose a smaller learning rate (lr, --lr), or clip gradients (clip_norm, --clip-norm)"

DATA = "Mend the data: np.isfinite(x) tells where"


def explain(trainer: Trainer, train: Batches, epochs: int, loss: float, good: Checkpoint) -> str:
    """What happened; the trainer is then as it was at the last good checkpoint."""
    batch, last = trainer.batch, trainer.step
    checkpoint.restore(trainer, good, "in memory")
    step = _first_bad_step(trainer, train, epochs, last)
    place = None
    if step is not None:
        checkpoint.restore(trainer, good, "in memory")
        place = _place(trainer, train, epochs, step)
    checkpoint.restore(trainer, good, "in memory")
    found = f"{place}, in step {step}" if place else "where cannot be told: the run is not the same"
    where = f"in {trainer.folder.checkpoint}" if trainer.folder is not None else "in memory"
    advice = DATA if place is not None and " of the batch (row " in place else ADVICE
    return (
        f"training diverges: the loss is {loss} in step {last} (epoch {trainer.epoch + 1}, batch "
        f"{batch}). First not finite: {found}. {advice}. Model and optimizer are again those "
        f"of the last checkpoint, after step {trainer.step} ({where})"
    )


def _first_bad_step(trainer: Trainer, train: Batches, epochs: int, last: int) -> int | None:
    trainer.model.train()
    for x, t in train.batches(trainer.epoch, trainer.batch):
        loss = trainer._advance(x, t, len(train), epochs)[0]
        trainer.step, trainer.batch = trainer.step + 1, trainer.batch + 1
        if not (_finite(loss) and all(_finite(p.data) for p in trainer.model.parameters())):
            return trainer.step
        if trainer.step == last:
            break
    return None


def _place(trainer: Trainer, train: Batches, epochs: int, step: int) -> str | None:
    trainer.model.train()
    for x, t in train.batches(trainer.epoch, trainer.batch):
        if trainer.step + 1 == step:
            return _in_step(trainer, x, t)
        trainer._advance(x, t, len(train), epochs)
        trainer.step, trainer.batch = trainer.step + 1, trainer.batch + 1
    return None


def _in_step(trainer: Trainer, x: Array, t: Array) -> str | None:
    """What is not finite first, in the step's order: inputs, outputs, loss, gradients, weights."""
    for name, array in (("inputs", x), ("targets", t)):
        if not _finite(array):
            return f"the {name} of the batch (row {_bad_row(array)})"
    bad: list[str] = []

    def look(name: str, layer: Layer, y: Any) -> None:
        if not bad and isinstance(y, Tensor) and not _finite(y.data):
            kind = repr(layer).partition("\n")[0]
            bad.append(f"the output of {f'layer {name!r}, ' if name else ''}{kind}")

    trainer.optimizer.zero_grad()
    with observed(trainer.model, look):
        loss = trainer.loss(trainer.model(Tensor(x)), t)
    if bad:
        return bad[0]
    if not _finite(loss.data):
        return "the loss"
    loss.backward()
    named = list(trainer.model.named_parameters())
    for name, p in reversed(named):  # about the order of backward
        if p.grad is not None and not _finite(getattr(p.grad, "__nnx_data__", p.grad)):
            return f"the gradient of {name!r}"
    if trainer.clip_norm is not None:
        clip_grad_norm(trainer.model.parameters(), trainer.clip_norm)
    trainer.optimizer.step()
    for name, p in named:
        if not _finite(p.data):
            return f"the parameter {name!r} after the update"
    return None


def _finite(array: Array) -> bool:
    backend = backend_of(array)
    if "float" not in backend.dtype_name(array):
        return True
    return bool(backend.xp.all(backend.xp.isfinite(array)))


def _bad_row(array: Array) -> int:
    rows = to_numpy(array).reshape(array.shape[0], -1)
    return next(i for i, row in enumerate(rows.tolist()) if not all(map(math.isfinite, row)))
