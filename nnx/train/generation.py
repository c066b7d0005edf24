"""Text that a trained model goes on with."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from ..arrays import asarray, to_numpy
from ..data.dataset import check_int
from ..errors import DataError, DtypeError, OptionError, ShapeError
from ..layers import Layer
from ..random import generator
from .evaluation import Evaluator

HostArray = np.ndarray[Any, Any]


def generate(
    model: Layer, ids: Any, count: int, *, context: int, temperature: float = 1.0,
    top_k: int | None = None, rng: np.random.Generator | None = None,
) -> HostArray:  # fmt: skip
    """The ids that a model goes on with: (count,), int64.

    model         of ids (1, L) to logits (1, L, V), each from the ids up to its place alone (GPT)
    ids           to begin with, at least one
    context       the longest sequence that the model takes; of more ids the last ones count
    temperature   each id is drawn from softmax(logits / temperature); 0 takes the likeliest
    top_k         draw among so many of the likeliest
    rng           draws; nnx.seed's generator by default

    Raises ShapeError for no ids, OptionError for options out of range, DataError where the model's
    logits are not finite.
    """
    if not isinstance(temperature, Real) or not 0 <= temperature < float("inf"):
        raise OptionError(f"generate: temperature={temperature!r}, expected a number >= 0")
    for name, value, least in (("count", count, 0), ("context", context, 1), ("top_k", top_k, 1)):
        if value is not None:
            check_int("generate", name, value, least)
    given = to_numpy(asarray(ids))
    if given.ndim != 1 or not given.size:
        raise ShapeError(f"generate: ids have shape {given.shape}, expected (n,) with n >= 1")
    if given.dtype.kind not in "iu":
        raise DtypeError(f"generate: the ids are {given.dtype}, expected ints")
    evaluator, rng = Evaluator(model, None, {}, eager=False), rng or generator()
    found = list(map(int, given))
    window = np.zeros((1, context), np.int64)
    for _ in range(count):
        last = found[-context:]
        window[0, : len(last)] = last  # what comes behind them they do not see
        y = to_numpy(evaluator.predict(window, 1))
        if y.shape[:2] != window.shape or y.ndim != 3:
            raise ShapeError(
                f"generate: of ids {window.shape} the model makes {y.shape}, expected logits "
                f"(1, {context}, V): a number for each id that may come next"
            )
        found.append(_drawn(y[0, len(last) - 1].astype(np.float64), temperature, top_k, rng))
    return np.array(found[given.size :], np.int64)


def _drawn(
    logits: HostArray, temperature: float, top_k: int | None, rng: np.random.Generator
) -> int:
    if not np.isfinite(logits.max()):
        raise DataError(
            "generate: the model's logits are not finite: its parameters may be damaged, or its "
            "training diverged"
        )
    if temperature == 0:
        return int(logits.argmax())
    if top_k is not None and top_k < logits.size:
        logits = np.where(logits < np.sort(logits)[-top_k], -np.inf, logits)
    with np.errstate(over="ignore"):
        p = np.exp((logits - logits.max()) / temperature)
    return int(rng.choice(p.size, p=p / p.sum()))
