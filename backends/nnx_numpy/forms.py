"""Functions of NumPy, and Python's operators, as calls that write a result that is there."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from nnx.calls import Run

Array = np.ndarray[Any, Any]

OPERATORS: dict[Any, np.ufunc] = {
    operator.add: np.add, operator.sub: np.subtract, operator.mul: np.multiply,
    operator.truediv: np.true_divide, operator.floordiv: np.floor_divide, operator.mod: np.mod,
    operator.matmul: np.matmul, operator.and_: np.bitwise_and, operator.or_: np.bitwise_or,
    operator.xor: np.bitwise_xor, operator.lshift: np.left_shift,
    operator.rshift: np.right_shift, operator.pos: np.positive,
    operator.neg: np.negative, operator.abs: np.absolute, operator.invert: np.invert,
    operator.lt: np.less, operator.le: np.less_equal, operator.gt: np.greater,
    operator.ge: np.greater_equal, operator.eq: np.equal, operator.ne: np.not_equal,
}  # fmt: skip
REDUCTIONS = {np.sum: np.add.reduce, np.max: np.maximum.reduce, np.min: np.minimum.reduce}
TAKE_OUT = (np.prod, np.any, np.all, np.argmax, np.argmin, np.clip, np.concatenate, np.stack)
FILLED: dict[Any, Callable[..., Any]] = {
    np.zeros: lambda *a, **k: 0, np.zeros_like: lambda *a, **k: 0,
    np.ones: lambda *a, **k: 1, np.ones_like: lambda *a, **k: 1,
    np.full: lambda shape, fill_value, **k: fill_value,
    np.full_like: lambda a, fill_value, **k: fill_value,
}  # fmt: skip
SHORT = (-1, 0, 0.5, 1, 2)  # exponents with short cuts
CREATORS = (*FILLED, np.arange, np.eye, np.linspace)


def form(f: Any, out: Array, args: tuple[Any, ...], attrs: dict[str, Any]) -> list[Run] | None:
    """The calls that write `f(*args, **attrs)` to `out`, bit for bit; None if none is known."""
    if isinstance(f, np.ufunc) and f.nout == 1:
        return [(f, args, {**attrs, "out": out})]
    special = SPECIAL.get(f)
    found = special(out, *args, **attrs) if special is not None else None
    if found is None and f in TAKE_OUT:
        return [(f, args, {**attrs, "out": out})]
    return found


def _where(out: Array, condition: Any, a: Any, b: Any) -> list[Run] | None:
    if getattr(condition, "dtype", None) != np.bool_:
        return None
    return [(np.copyto, (out, b), {}), (np.copyto, (out, a), {"where": condition})]


def _astype(out: Array, x: Any, *args: Any, **kwargs: Any) -> list[Run]:
    return [(np.copyto, (out, x), {"casting": "unsafe"})]


def _reshape(out: Array, x: Array, *args: Any, **kwargs: Any) -> list[Run] | None:
    return [(np.copyto, (out.reshape(x.shape), x), {})] if out.flags.c_contiguous else None


def _getitem(out: Array, x: Array, index: Any) -> list[Run] | None:
    """One entry, which NumPy gives as a scalar, is copied from a view; other copies are general."""
    parts = index if isinstance(index, tuple) else (index,)
    if out.ndim or any(isinstance(i, (np.ndarray, list)) for i in parts):
        return None
    return [(np.copyto, (out, x[(*parts, ...)]), {})]


def _pow(out: Array, x: Any, y: Any) -> list[Run] | None:
    """`x ** 2` has short cuts, which `x **= 2` has too and `np.power` has not on every version.

    Other powers are those of x where it lies: NumPy's loop over a contiguous copy rounds otherwise.
    """
    if isinstance(x, np.ndarray) and type(y) in (int, float) and y in SHORT and _alike(x, out):
        return [(np.copyto, (out, x), {}), (operator.ipow, (out, y), {})]
    scalar = any(isinstance(v, np.ndarray) and v.ndim == 0 for v in (x, y))
    return None if scalar else [(np.power, (x, y), {"out": out})]


def _alike(a: Array, b: Array) -> bool:
    return bool(a.shape == b.shape and a.dtype == b.dtype)


def _mean(
    out: Array, x: Any, axis: Any = None, *, keepdims: bool = False, **other: Any
) -> list[Run] | None:
    """As NumPy computes it: a sum, divided by the count as an integer array would be."""
    if other or x.dtype.kind != "f" or x.dtype.itemsize < 4 or not x.size:
        return None
    count = np.intp(x.size // out.size)
    options = {"axis": axis, "keepdims": keepdims, "out": out}
    return [
        (np.add.reduce, (x,), options),
        (np.true_divide, (out, count), {"out": out, "casting": "unsafe"}),
    ]


def _reduction(reduce: Callable[..., Any]) -> Callable[..., list[Run]]:
    def form(out: Array, x: Any, axis: Any = None, **options: Any) -> list[Run]:
        return [(reduce, (x,), {"axis": axis, **options, "out": out})]

    return form


def _fill(value: Callable[..., Any]) -> Callable[..., list[Run] | None]:
    def form(out: Array, *args: Any, **attrs: Any) -> list[Run] | None:
        v = value(*args, **attrs)
        return None if isinstance(v, np.ndarray) else [(np.copyto, (out, v), {})]

    return form


SPECIAL: dict[Any, Callable[..., list[Run] | None]] = {
    np.where: _where, np.astype: _astype, np.reshape: _reshape, np.mean: _mean,
    operator.getitem: _getitem, operator.pow: _pow,
    **{f: _reduction(r) for f, r in REDUCTIONS.items()},
    **{f: _fill(v) for f, v in FILLED.items()},
}  # fmt: skip
