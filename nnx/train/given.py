"""What a trainer is given: batches, and options that are checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from ..backend import Array
from ..errors import OptionError
from ..layers import Layer
from ..optim import Optimizer
from ..optim.schedules import Progress, Schedule

EXAMPLES = {
    "loss": "loss=nnx.mean_squared_error",
    "schedule": "schedule=nnx.optim.schedules.cosine()",
    "on_step": "on_step=[lambda trainer: ...]",
    "on_epoch": "on_epoch=[lambda trainer: ...]",
}
METRICS = "metrics={'accuracy': nnx.metrics.accuracy}"
DESCRIBES = ("batch_size", "shuffle", "seed", "drop_last", "dtype")


class Batches(Protocol):
    """What a trainer takes: `nnx.data.DataLoader`, or another with the same methods."""

    def __len__(self) -> int:
        """Batches per epoch."""
        ...

    def __iter__(self) -> Iterator[tuple[Array, Array]]: ...

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Array, Array]]:
        """The batches of that epoch from number `start` on, the same each time."""
        ...


def described(train: Batches) -> dict[str, Any]:
    """By what a loader is known again; OptionError for none, or one without batches."""
    if not callable(getattr(train, "batches", None)) or not len(train):
        raise OptionError(
            f"fit: train is a {type(train).__name__}, expected a DataLoader with at least one "
            f"batch: nnx.data.DataLoader(dataset, batch_size=100, shuffle=True)"
        )
    known: dict[str, Any] = {"rows": len(getattr(train, "dataset", ())), "batches": len(train)}
    known |= {name: getattr(train, name, None) for name in DESCRIBES}
    transform = getattr(train, "transform", None)
    return known if transform is None else known | {"transform": _spelt(transform)}


def _spelt(f: Any) -> str:
    """A transform by what it does, the same in another process: no address in memory."""
    spelt = repr(f)
    return spelt if " at 0x" not in spelt else getattr(f, "__qualname__", type(f).__qualname__)


def whole(name: str, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise OptionError(f"Trainer: {name}={value!r}, expected an int of at least 1")


def functions(given: Mapping[str, Any]) -> None:
    """Raise OptionError for the first that cannot be called."""
    for name, value in given.items():
        if value is not None and not callable(value):
            raise OptionError(
                f"Trainer: {name} is {value!r}, expected a function, such as "
                f"{EXAMPLES.get(name.partition('[')[0], METRICS)}"
            )
        if isinstance(value, type):
            raise OptionError(
                f"Trainer: {name} is the class {value.__name__}, expected a function: write "
                f"{value.__name__}()"
            )


def trained(model: Layer, optimizer: Optimizer) -> None:
    """The optimizer has parameters of this model: else training would change another."""
    if not isinstance(optimizer, Optimizer):
        raise OptionError(
            f"Trainer: the optimizer is {optimizer!r}, expected one made of the model's "
            f"parameters: nnx.optim.Adam(model.parameters())"
        )
    ours = set(model.parameters())
    if not any(p in ours for group in optimizer.param_groups for p in group["params"]):
        raise OptionError(
            f"Trainer: the {type(optimizer).__name__} has none of the model's {len(ours)} "
            f"parameters; make it of them: nnx.optim.Adam(model.parameters())"
        )


def rate(schedule: Schedule, now: Progress, base: float) -> float:
    """What the schedule makes of a learning rate."""
    made = base * schedule(now)
    if not 0 <= made < math.inf:
        raise OptionError(
            f"Trainer: the schedule gave {made / base if base else made} at step {now.step}, "
            f"expected a finite factor >= 0"
        )
    return made
