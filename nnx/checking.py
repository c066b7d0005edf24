"""Comparing derivatives with differences: the test of an op, a layer or a function of your own."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import random
from .arrays import asarray, to_numpy
from .backward import gradients
from .errors import GradientError, OptionError
from .layers import Layer
from .op import Op
from .ops import sum as total
from .tensor import Tensor

Host = np.ndarray[Any, Any]
STEP = 6e-6  # the cube root of float64's rounding: where a central difference errs least
KINK = 1e-3  # by which slopes at both sides differ where there is no derivative


@dataclass(frozen=True)
class Row:
    """What was found for one argument or parameter.

    error       the largest |derivative - difference| of the entries looked at
    index       where that is
    derivative, difference   there
    sides       the slopes to the left and to the right there
    """

    name: str
    shape: tuple[int, ...]
    entries: int
    error: float
    index: tuple[int, ...]
    derivative: float
    difference: float
    sides: tuple[float, float]
    ok: bool

    def __str__(self) -> str:
        size = math.prod(self.shape)
        place = f"[{', '.join(map(str, self.index))}]" if self.shape else ""
        text = (
            f"  {'ok ' if self.ok else 'BAD'}  {self.name:<12} {self.shape!s:<14} "
            f"{self.entries} of {size} entries, largest error {self.error:.1e} at {place}: "
            f"derivative {self.derivative:.8g}, difference {self.difference:.8g}"
        )
        left, right = self.sides
        if not self.ok and abs(left - right) > KINK * max(1, abs(left), abs(right)):
            text += f" ({left:.4g} to the left, {right:.4g} to the right: no derivative there)"
        return text


@dataclass(frozen=True, repr=False)
class Gradcheck:
    """A report to print; true if all derivatives agree."""

    what: str
    order: int
    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        which = "second derivatives" if self.order == 2 else "derivatives"
        state = "agree with" if self.ok else "differ from"
        return "\n".join([f"{self.what}: {which} {state} differences", *map(str, self.rows)])

    def __repr__(self) -> str:
        return str(self)


def gradcheck(
    f: Callable[..., Any],
    *inputs: Any,
    order: int = 1,
    wrt: Sequence[int] | None = None,
    entries: int = 100,
    rtol: float = 1e-5,
    atol: float = 1e-7,
    raises: bool = True,
    **attrs: Any,
) -> Gradcheck:
    """Compare the derivatives of f with central differences, in float64.

    f        an op, a layer, or a function of Tensors; it gives a Tensor or a tuple of Tensors. A
             layer is copied, cast to float64, and its parameters are checked too
    inputs   arrays, Tensors or numbers; floats become float64
    order    1, or 2 for the derivatives of the derivatives
    wrt      positions of the inputs to differentiate by; all floats by default, except those that
             the op or the layer takes for constants
    entries  how many of each array, drawn at random where there are more
    attrs    passed on to f

    With s the sum of f's outputs times random numbers, an entry agrees if

        |ds/dx - (s(x + h) - s(x - h)) / 2h| <= atol max(1, |s|) + rtol max of both,  h = 6e-6

    Random numbers that f draws (dropout) are the same each time. Raises GradientError with the
    report if an entry does not agree (unless `raises` is False: then the report is false), and
    OptionError for an f whose results differ from call to call, or that depends on nothing.
    """
    if order not in (1, 2):
        raise OptionError(f"gradcheck: order={order!r}, expected 1 or 2")
    what = getattr(f, "name", None) or getattr(f, "__name__", None) or repr(f).partition("\n")[0]
    if isinstance(f, Layer):
        f = copy.deepcopy(f).astype("float64")
    args, leaves = _leaves(f, inputs, wrt)
    run: Callable[[], tuple[Tensor, ...]] = lambda: _outputs(f(*args, **attrs))  # noqa: E731
    if order == 2:
        run = _derivatives(run, list(leaves.values()))
    report = Gradcheck(what, order, tuple(_rows(run, leaves, entries, rtol, atol)))
    if raises and not report:
        raise GradientError(str(report))
    return report


def _leaves(
    f: Any, inputs: Sequence[Any], wrt: Sequence[int] | None
) -> tuple[list[Any], dict[str, Tensor]]:
    """The arguments, and the Tensors to differentiate by, with names for the report."""
    args: list[Any] = list(inputs)
    leaves: dict[str, Tensor] = {}
    names = _names(f, len(inputs))
    for i, given in enumerate(inputs):
        value = getattr(given, "__nnx_data__", given)
        if isinstance(value, float) or "float" in str(getattr(value, "dtype", "")):
            args[i] = Tensor(asarray(value, "float64"))
            if names[i] is not None if wrt is None else i in wrt:
                args[i] = leaves[names[i] or f"input {i}"] = Tensor(args[i].data, True)
    if isinstance(f, Layer):
        leaves.update((name, p) for name, p in f.named_parameters() if p.requires_grad)
    if not leaves:
        raise OptionError("gradcheck: there is nothing to differentiate by: give a float array")
    return args, leaves


def _names(f: Any, count: int) -> list[str | None]:
    """Of the inputs; None for constants."""
    if isinstance(f, Op):
        arrays, variadic = f.signature.arrays, f.signature.variadic
        of = [arrays[0] if variadic else arrays[i] for i in range(min(count, len(arrays)))]
        of = [arrays[0]] * count if variadic else of
        kept = [name if name in f.differentiable else None for name in of]
        if variadic:
            kept = [name and f"{name}[{i}]" for i, name in enumerate(kept)]
        return [*kept, *[None] * (count - len(kept))]
    if isinstance(f, Layer):
        forward = type(f).forward
        code = getattr(forward, "__wrapped__", forward).__code__
        given = code.co_varnames[1 : code.co_argcount]
        named = [given[i] if i < len(given) else f"input {i}" for i in range(count)]
        return [None if name in f.constants else name for name in named]
    return [f"input {i}" for i in range(count)]


def _outputs(y: Any) -> tuple[Tensor, ...]:
    found = y if isinstance(y, (tuple, list)) else (y,)
    if not all(isinstance(v, Tensor) for v in found):
        raise OptionError(
            f"gradcheck: f gave {type(y).__name__}, expected a Tensor or a tuple of Tensors, "
            f"computed from its arguments by nnx's functions"
        )
    return tuple(found)


def _derivatives(
    run: Callable[[], tuple[Tensor, ...]], leaves: list[Tensor]
) -> Callable[[], tuple[Tensor, ...]]:
    """The function that gives first derivatives, as Tensors with a history."""

    def first() -> tuple[Tensor, ...]:
        s = _weighted(run(), seed=1)
        found = gradients(s, wrt=leaves, create_graph=True) if s.requires_grad else {}
        return tuple(found[id(t)][1] if id(t) in found else 0 * t for t in leaves)

    return first


def _weighted(outputs: tuple[Tensor, ...], seed: int) -> Tensor:
    """s: the sum of all outputs times random numbers, the same for the same shapes."""
    rng = np.random.default_rng(seed)
    parts = [
        total(y * asarray(np.asarray(rng.normal(size=y.shape)), backend=y.backend)) for y in outputs
    ]
    s: Tensor = parts[0]
    for part in parts[1:]:
        s = s + part
    return s


def _rows(
    run: Callable[[], tuple[Tensor, ...]],
    leaves: dict[str, Tensor],
    entries: int,
    rtol: float,
    atol: float,
) -> list[Row]:
    def s() -> Tensor:
        with random.using(np.random.default_rng(0)):
            return _weighted(run(), seed=0)

    def value() -> float:
        return float(to_numpy(s().data))

    y = s()
    base = float(to_numpy(y.data))
    again = value()
    if not math.isclose(again, base, rel_tol=1e-14, abs_tol=0) and again == again:
        raise OptionError(
            "gradcheck: f gives another result when it is called again; fix what is random in it "
            "(draw from nnx's generator, as nnx.dropout does)"
        )
    found = gradients(y, wrt=list(leaves.values())) if y.requires_grad else {}
    rng, rows = np.random.default_rng(2), []
    for name, t in leaves.items():
        x = np.array(to_numpy(t.data))
        g = np.array(to_numpy(found[id(t)][1])) if id(t) in found else np.zeros_like(x)
        places = rng.permutation(x.size)[:entries] if x.size > entries else range(x.size)
        looked = [_compare(t, x, int(i), value, base) for i in places]
        rows.append(_row(name, x, g, list(map(int, places)), looked, base, rtol, atol))
    return rows


def _compare(
    t: Tensor, x: Host, i: int, value: Callable[[], float], base: float
) -> tuple[float, float, float]:
    """The central difference at entry i, and the slopes to its left and right."""

    def at(step: float) -> float:
        changed = x.copy()
        changed.reshape(-1)[i] += step
        t.data = asarray(changed, backend=t.backend)
        return value()

    h = STEP * max(1.0, abs(float(x.reshape(-1)[i])))
    low, high = at(-h), at(h)
    t.data = asarray(x.copy(), backend=t.backend)
    return (high - low) / (2 * h), (base - low) / h, (high - base) / h


def _row(
    name: str,
    x: Host,
    g: Host,
    places: list[int],
    looked: list[tuple[float, float, float]],
    base: float,
    rtol: float,
    atol: float,
) -> Row:
    if not places:
        return Row(name, x.shape, 0, 0.0, (), 0.0, 0.0, (0.0, 0.0), True)
    derivative, difference = g.reshape(-1)[places], np.array([n for n, _, _ in looked])
    errors = np.abs(derivative - difference)
    allowed = atol * max(1.0, abs(base)) + rtol * np.maximum(abs(derivative), abs(difference))
    excess = np.where(np.isfinite(errors), errors / allowed, math.inf)
    worst = int(np.argmax(excess))
    return Row(
        name, x.shape, len(places), float(errors[worst]),
        tuple(int(i) for i in np.unravel_index(places[worst], x.shape)),
        float(derivative[worst]), float(difference[worst]), looked[worst][1:],
        bool(excess[worst] <= 1),
    )  # fmt: skip
