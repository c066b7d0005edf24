"""Clipping gradients between `backward()` and `step()`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..arrays import asarray
from ..backend import Array, Backend, backend_of
from ..errors import MixedBackendsError
from ..flat import gradient, neighbours
from ..tensor import Parameter, Tensor
from . import kernels, options, states


def clip_grad_norm(parameters: Any, max_norm: float) -> Array:
    """Scale all gradients by min(1, max_norm / (norm + 1e-6)), norm the 2-norm of them all.

    parameters   Parameters, such as `net.parameters()`; those frozen or without a gradient do not
                 count
    max_norm     >= 0; math.inf only measures

    Returns the norm before scaling, a 0-d array on the parameters' backend: nothing waits for the
    device until it is read, as by `float(norm)`. A norm of infinity makes finite gradients 0, of
    NaN all NaN. Gradients change in place; one from `backward(create_graph=True)` loses its
    history. Raises OptionError for a negative max_norm, MixedBackendsError for two backends.
    Pascanu, Mikolov and Bengio (2013), algorithm 1.
    """
    what = "clip_grad_norm"
    allowed = (lambda v: v >= 0, "a number >= 0")
    max_norm = float(options.number(what, "max_norm", max_norm, allowed))
    due, backend = _due(what, parameters)
    if backend is None:
        return asarray(0.0)
    # One by one: its last bits must not depend on which lie side by side.
    norm: Array = kernels.norm.compute(tuple([p.grad for p in due]), {})[2]
    if max_norm < math.inf:
        factor = kernels.factor.compute((norm,), {"max_norm": max_norm})[2]
        _each(due, lambda g: kernels.scale(g, factor))
    return norm


def clip_grad_value(parameters: Any, value: float) -> None:
    """Cut every entry of every gradient to -value .. value, in place; NaN stays NaN.

    Raises OptionError for a negative value.
    """
    what = "clip_grad_value"
    value = float(options.number(what, "value", value, options.NOT_NEGATIVE))
    _each(_due(what, parameters)[0], lambda g: kernels.clip(g, value=value))


def _each(due: list[Parameter], f: Callable[[Array], Array]) -> None:
    """Change gradients in place, or by arrays that hold the new values."""
    for near in neighbours(due):
        held = f(gradient(near))
        if near[0].grad is not near[0].slot:
            near[0].grad = held


def _due(what: str, parameters: Any) -> tuple[list[Parameter], Backend | None]:
    """The parameters to be clipped, with bare gradients that fit; and their backend."""
    due: list[Parameter] = []
    backend: Backend | None = None
    for i, p in enumerate(options.parameters(what, parameters)):
        g = p.grad
        if g is None or not p.requires_grad:
            continue
        if backend is None:
            backend = backend_of(p.data)
        if not backend.owns(p.data):
            raise MixedBackendsError(
                f"{what}: parameter {i} is of backend {backend_of(p.data).name!r}, those before it "
                f"of {backend.name!r}; move the model with model.to({backend.name!r})"
            )
        bare = g.data if isinstance(g, Tensor) else g
        if not backend.owns(bare) or bare.shape != p.shape or bare.dtype != p.dtype:
            raise states.misfit(what, i, p, bare)
        due.append(p)
    for p in due:
        if isinstance(p.grad, Tensor):  # others may hold its array: a graph does
            p.grad = p.grad.backend.copy(p.grad.data)
    return due, backend
