"""Functions of functions: `grad`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from . import tape
from .backward import gradients
from .errors import OptionError, ShapeError
from .tensor import Tensor, leaf, tensor

_inside: ContextVar[bool] = ContextVar("nnx_inside_grad", default=False)


def grad(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """The function that gives d f / d argument.

    f         returns a scalar, made of its arguments by nnx's functions and Python's operators
    argnums   which positional argument(s); a tuple gives a tuple of gradients

    Called on arrays or Python numbers the derivative is an array or a number. Called on a Tensor,
    or inside a function that `grad` differentiates, it is a Tensor with a history, so
    `grad(grad(f))` is the second derivative. An argument that f does not use has a gradient of
    zeros. A `no_grad()` around the call is ignored, one inside f is respected.
    """
    wanted = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def derivative(*args: Any, **kwargs: Any) -> Any:
        if any(not -len(args) <= i < len(args) for i in wanted):
            raise OptionError(f"grad: argnums={argnums}, but {len(args)} arguments were given")
        tensors = list(args)
        for i in wanted:
            tensors[i] = _variable(args[i])
        higher = _inside.get() or any(isinstance(a, Tensor) for a in args)
        chosen = [tensors[i] for i in wanted]
        with _recorded():
            y = f(*tensors, **kwargs)
            grads = _gradients(y, chosen, higher)
        out = tuple(g if higher or not isinstance(g, Tensor) else g.data for g in grads)
        return out[0] if isinstance(argnums, int) else out

    return derivative


def _variable(given: Any) -> Tensor:
    if isinstance(given, Tensor):
        return given if given.requires_grad else leaf(given.data)
    return leaf(given)


@contextmanager
def _recorded() -> Iterator[None]:
    """A grad inside this one gives Tensors: its result is part of what is differentiated here."""
    recording, inside = tape._recording.set(True), _inside.set(True)
    try:
        yield
    finally:
        tape._recording.reset(recording)
        _inside.reset(inside)


def _gradients(y: Any, chosen: list[Tensor], higher: bool) -> list[Any]:
    if not isinstance(y, Tensor):
        return [_zeros(t) for t in chosen]
    if y.size != 1:
        raise ShapeError(
            f"grad: the function returned shape {y.shape}, expected a scalar; return its .sum(), "
            f"or one entry"
        )
    found = gradients(y, wrt=chosen, create_graph=higher) if y.requires_grad else {}
    return [found[id(t)][1] if id(t) in found else _zeros(t) for t in chosen]


def _zeros(t: Tensor) -> Tensor:
    """Also where 0 * t would be NaN."""
    backend = t.backend
    return tensor(backend.result(backend.call(_zeros_like, (t._data,), {})))


def _zeros_like(xp: Any, x: Any) -> Any:
    return xp.zeros_like(x)
