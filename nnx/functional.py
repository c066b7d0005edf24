"""Functions of functions: `grad`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .backward import gradients
from .errors import OptionError, ShapeError
from .tensor import Tensor, leaf


def grad(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """The function that gives d f / d argument.

    f         returns a scalar, made of its arguments by nnx's functions and Python's operators
    argnums   which positional argument(s); a tuple gives a tuple of gradients

    Called on arrays or Python numbers the derivative is an array or a number; called on Tensors
    it is a Tensor with a history, so `grad(grad(f))` is the second derivative. An argument that f
    does not use has a gradient of zeros.
    """
    wanted = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def derivative(*args: Any, **kwargs: Any) -> Any:
        if any(not -len(args) <= i < len(args) for i in wanted):
            raise OptionError(f"grad: argnums={argnums}, but {len(args)} arguments were given")
        tensors = list(args)
        for i in wanted:
            given = args[i]
            tensors[i] = given if isinstance(given, Tensor) else leaf(given)
            if not tensors[i].requires_grad:
                tensors[i] = leaf(tensors[i].data)
        y = f(*tensors, **kwargs)
        if not isinstance(y, Tensor):
            return _answer([0 * t for t in _chosen(tensors, wanted)], args, wanted, argnums)
        if y.size != 1:
            raise ShapeError(
                f"grad: the function returned shape {y.shape}, expected a scalar; return its "
                f".sum(), or one entry"
            )
        higher = any(isinstance(args[i], Tensor) for i in wanted)
        chosen = _chosen(tensors, wanted)
        found = gradients(y, wrt=chosen, create_graph=higher) if y.requires_grad else {}
        grads = [found[id(t)][1] if id(t) in found else 0 * t for t in chosen]
        return _answer(grads, args, wanted, argnums)

    return derivative


def _chosen(tensors: list[Any], wanted: tuple[int, ...]) -> list[Tensor]:
    return [tensors[i] for i in wanted]


def _answer(
    grads: list[Any], args: tuple[Any, ...], wanted: tuple[int, ...], argnums: int | tuple[int, ...]
) -> Any:
    """Tensors for Tensors, bare values for bare values."""
    out = tuple(
        g if isinstance(args[i], Tensor) or not isinstance(g, Tensor) else g.data
        for g, i in zip(grads, wanted, strict=True)
    )
    return out[0] if isinstance(argnums, int) else out
