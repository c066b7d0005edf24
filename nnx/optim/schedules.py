"""Learning rates that change during training.

A schedule is a plain function: from where training is to the factor by which each parameter group's
own rate is multiplied for the next step. Write your own as `lambda now: 0.5 ** now.epoch`.

    nnx.Trainer(model, optimizer, schedule=schedules.warmup(2, then=schedules.cosine()))
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import OptionError


class Progress(NamedTuple):
    """Where training is, before a step.

    step              how many steps are done
    steps_per_epoch   batches of an epoch
    epochs            how many epochs training is to have
    """

    step: int
    steps_per_epoch: int
    epochs: int

    @property
    def epoch(self) -> float:
        """Epochs done, with the part of the one that runs."""
        return self.step / self.steps_per_epoch

    @property
    def part(self) -> float:
        """The part of all steps that is done, 0..1."""
        return self.step / (self.steps_per_epoch * self.epochs)


Schedule = Callable[[Progress], float]


def constant() -> Schedule:
    """1."""
    return lambda now: 1.0


def step(epochs: float, gamma: float = 0.1) -> Schedule:
    """gamma^n after n times so many epochs."""
    _positive("step", epochs=epochs, gamma=gamma)
    nearly = 1e-9  # a tenth of an epoch is no float
    return lambda now: float(gamma ** math.floor(now.epoch / epochs + nearly))


def exponential(gamma: float = 0.95) -> Schedule:
    """gamma^epoch, a little less at each step."""
    _positive("exponential", gamma=gamma)
    return lambda now: float(gamma**now.epoch)


def cosine(end: float = 0.0) -> Schedule:
    """end + (1 - end) (1 + cos(pi part)) / 2, from 1 down to nearly `end` at the last step.

    Loshchilov and Hutter (2017), equation 5, without restarts.
    """
    if not 0 <= end < 1:
        raise OptionError(f"cosine: end={end!r}, expected a part of the rate, in [0, 1)")
    return lambda now: _between(1.0, end, now.part)


def warmup(epochs: float = 1.0, then: Schedule | None = None) -> Schedule:
    """Up to 1 in equal steps over the first epochs, times what another schedule gives.

    Goyal et al. (2017), section 2.2.
    """
    _positive("warmup", epochs=epochs)
    after = constant() if then is None else then

    def factor(now: Progress) -> float:
        return min(1.0, (now.step + 1) / (epochs * now.steps_per_epoch)) * after(now)

    return factor


def one_cycle(rise: float = 0.3, start: float = 0.04, end: float = 4e-6) -> Schedule:
    """From `start` up to 1 in the first part `rise` of all steps, then down to `end`.

    Both ways half a cosine. Smith and Topin (2018); numbers and shape are PyTorch's OneCycleLR's.
    """
    _positive("one_cycle", rise=rise, start=start, end=end)
    if rise >= 1:
        raise OptionError(f"one_cycle: rise={rise!r}, expected a part of all steps, below 1")

    def factor(now: Progress) -> float:
        steps = now.steps_per_epoch * now.epochs
        peak = max(rise * steps - 1, 0)
        if now.step > peak:
            return _between(1.0, end, (now.step - peak) / (steps - 1 - peak))
        return _between(start, 1.0, now.step / peak) if peak else 1.0

    return factor


def _between(a: float, b: float, part: float) -> float:
    """From a to b along half a cosine."""
    return b + (a - b) * (1 + math.cos(math.pi * part)) / 2


def _positive(what: str, **given: float) -> None:
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise OptionError(f"{what}: {name}={value!r}, expected a number")
        if not 0 < value < math.inf:
            raise OptionError(f"{what}: {name}={value!r}, expected a number above 0")


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "cosine": cosine,
    "step": step,
    "exponential": exponential,
    "one-cycle": one_cycle,
    "warmup": warmup,
}


def named(text: str) -> Schedule:
    """The schedule that `nnx train --schedule` names.

    "cosine"; "step:10,0.5" is step(10, 0.5); "warmup:2+cosine" is warmup(2, then=cosine()).
    """
    first, plus, rest = text.partition("+")
    name, colon, values = first.partition(":")
    try:
        make: Any = SCHEDULES[name]
        given = [float(v) for v in values.split(",")] if colon else []
        code = make.__code__
        numbers = [p for p in code.co_varnames[: code.co_argcount] if p != "then"]
        if len(given) > len(numbers) or (plus and name != "warmup"):
            raise KeyError(text)
        options: dict[str, Any] = dict(zip(numbers, given, strict=False))
        if plus:
            options["then"] = named(rest)
        made: Schedule = make(**options)
        return made
    except (KeyError, ValueError, TypeError) as error:
        if isinstance(error, OptionError):
            raise
        raise OptionError(
            f"unknown schedule {text!r}; expected one of {', '.join(SCHEDULES)}, with numbers such "
            f"as step:10,0.5 (see nnx.optim.schedules), or warmup:2+cosine"
        ) from error
