"""Optimizers, each in one launch over a parameter (or a model's flat buffer) and its state.

Same values to the last bit as the portable kernels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from nnx.calls import calls
from nnx.optim import kernels
from nnx.update import Update

from .launch import THREADS, Source, blocks_for, computing, per_pack, threads_for
from .table import Array, Run, overrides, plain

_source = Source("optim.cu", "--fmad=false")


def _number(n: Any) -> tuple[Any, float]:
    """A number of a step by value, or where a replay has written it."""
    return (n, 0.0) if hasattr(n, "dtype") else (None, float(n))


def _launch(run: Run, update: Update, args: Any, attrs: Any, factor: Array | None) -> bool:
    """The update's kernel takes arrays, the factor, each number twice, options, the size."""
    count = len(update.positions) + 1  # the targets and the gradient; the step's numbers follow
    p, *others = args[:count]
    if not (plain(p) and all(plain(p, a) for a in others)):
        return False
    if any(hasattr(n, "dtype") and n.dtype != p.dtype for n in args[count:]):
        return False
    numbers = [part for n in args[count:] for part in _number(n)]
    values = [attrs[name] for name in update.signature.attributes]
    values = [int(v) if isinstance(v, bool) else float(v) for v in values]
    blocks = blocks_for(p.size, per_pack(p))
    kernel = _source(update.name, p.dtype)
    run(kernel, blocks, THREADS, *args[:count], factor, *numbers, *values, p.size)
    return True


def _register(update: Update) -> None:
    """The update by its kernel, and the same after clipping."""

    def kernel(run: Run, *args: Any, **attrs: Any) -> bool | None:
        return _launch(run, update, args, attrs, None) or None

    def clip_and_update(run: Run, *, factor: Array, **named: Any) -> bool:
        args = [named[name] for name in update.signature.arrays]
        return factor.dtype == args[0].dtype and _launch(run, update, args, named, factor)

    kernel.__name__ = update.name
    overrides.replace(update, calls(kernel))
    clip_and_update.__name__ = f"clip_and_{update.name}"
    arrays = " ".join(update.signature.arrays)
    overrides.fusion((kernels.scale, "g factor ->"), (update, f"{arrays} ->"))(clip_and_update)


for each in (
    kernels.sgd, kernels.momentum, kernels.adagrad, kernels.rmsprop, kernels.rmsprop_momentum,
    kernels.rmsprop_centered, kernels.rmsprop_centered_momentum, kernels.adam, kernels.adamw,
):  # fmt: skip
    _register(each)


@overrides.update(kernels.scale)
@calls
def _scale(run: Run, g: Array, factor: Array) -> bool | None:
    if not plain(g) or factor.dtype != g.dtype:
        return None
    run(_source("scale", g.dtype), blocks_for(g.size), THREADS, g, factor, g.size)
    return True


@overrides.update(kernels.clip)
@calls
def _clip(run: Run, g: Array, *, value: float) -> bool | None:
    if not plain(g):
        return None
    run(_source("clip", g.dtype), blocks_for(g.size), THREADS, g, float(value), g.size)
    return True


@overrides.forward(kernels.norm)
@calls
def _norm(run: Run, *grads: Array) -> Array | None:
    if not all(plain(g) and g.dtype == grads[0].dtype for g in grads):
        return None
    y, starts = run.new((), grads[0].dtype), [0]
    for g in grads:
        starts.append(starts[-1] + min(blocks_for(g.size, 8), 512))
    parts = run.empty((starts[-1],), computing(y))
    for g, (start, end) in zip(grads, pairwise(starts), strict=True):
        run(_source("squares", g.dtype), end - start, THREADS, g, parts[start:end], g.size)
    run(_source("grad_norm", y.dtype), 1, threads_for(starts[-1]), parts, y, starts[-1])
    return y


@overrides.forward(kernels.factor)
@calls
def _factor(run: Run, norm: Array, *, max_norm: float) -> Array | None:
    if not plain(norm) or norm.ndim:
        return None
    y = run.new((), norm.dtype)
    run(_source("factor", y.dtype), 1, 1, norm, y, float(max_norm))
    return y
