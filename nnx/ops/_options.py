"""Checks of attributes that several ops share."""

from __future__ import annotations

from typing import Any

from ..errors import DtypeError, OptionError, ShapeError


def one_of(op: str, name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        choices = " or ".join(map(repr, allowed))
        raise OptionError(f"{op}: {name}={value!r}, expected {choices}")


def probability(op: str, name: str, value: Any) -> None:
    if not hasattr(value, "__float__") or not 0 <= value < 1:
        raise OptionError(f"{op}: {name}={value!r}, expected a probability in [0, 1)")


def given_shape(name: str, x: Any) -> tuple[int, ...]:
    """An array's shape, for layers that read it before an op does."""
    if not hasattr(x, "shape"):
        raise DtypeError(
            f"{name} is a {type(x).__qualname__}, expected an array: nnx.asarray({name})"
        )
    return tuple(x.shape)


def shape_of(x: Any) -> tuple[int, ...]:
    """() for a number, as for None."""
    return tuple(getattr(x, "shape", ()))


def axis_of(op: str, axis: Any, ndim: int) -> None:
    if not hasattr(axis, "__index__") or not -ndim <= axis < ndim:
        raise ShapeError(f"{op}: axis={axis!r}, expected an int for an array of {ndim} axes")
