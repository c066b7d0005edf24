"""Ids as vectors, and where in a sequence they stand."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from .. import init, ops
from ..arrays import asarray
from ..buffer import Buffer
from ..errors import ShapeError
from ..ops._geometry import checked
from ..ops._options import given_shape
from ..ops.embedding import check_ints, check_padding
from ..tensor import Parameter
from .base import Layer


class Embedding(Layer):
    """y = W[ids]: a learned row for each of `size` ids.   Bengio et al. (2003)

    ids: ints of any shape, W: (size, dim), y: (*ids.shape, dim)

    padding   an id whose row is zeros and stays so: the filler of short sequences

    W is drawn by `W_init` (standard normal by default). Raises LabelError on ids outside
    0..size-1.
    """

    constants: ClassVar[tuple[str, ...]] = ("ids",)

    def __init__(
        self, size: int, dim: int, *, padding: int | None = None,
        W_init: init.Initializer = init.normal(std=1.0),  # noqa: B008 - it has no state
        dtype: str = "float32",
    ) -> None:  # fmt: skip
        checked("Embedding", "size", size, 1, 1)
        checked("Embedding", "dim", dim, 1, 1)
        check_padding("Embedding", padding, size)
        self.padding = padding
        W = init.drawn(W_init, (size, dim))
        if padding is not None:
            W[padding] = 0
        self.W = Parameter(asarray(W, dtype))

    def forward(self, ids: Any) -> Any:
        check_ints(self.W.backend, ids)  # before floats of another width are refused for that
        return ops.embedding(self.W, ids, padding=self.padding)

    def __repr__(self) -> str:
        size, dim = self.W.shape
        padding = "" if self.padding is None else f", padding={self.padding}"
        return f"Embedding({size}, {dim}{padding})"


class LearnedPositions(Layer):
    """y = x + P, a learned vector for each place.   Gehring et al. (2017)

    x: (..., L, dim) with L <= length, P: (length, dim)
    """

    def __init__(
        self, length: int, dim: int, *,
        P_init: init.Initializer = init.normal(std=0.02),  # noqa: B008 - it has no state
        dtype: str = "float32",
    ) -> None:  # fmt: skip
        checked("LearnedPositions", "length", length, 1, 1)
        checked("LearnedPositions", "dim", dim, 1, 1)
        self.P = Parameter(asarray(init.drawn(P_init, (length, dim)), dtype))

    def forward(self, x: Any) -> Any:
        return x + _first_rows(self.P, x)

    def __repr__(self) -> str:
        return "LearnedPositions({}, {})".format(*self.P.shape)


class SinusoidalPositions(Layer):
    """y = x + P, P[t, 2i] = sin(t / 10000^(2i / dim)), P[t, 2i + 1] = cos of the same.

    x: (..., L, dim) with L <= length; P: a Buffer (length, dim).   Vaswani et al. (2017)
    """

    def __init__(self, length: int, dim: int, *, dtype: str = "float32") -> None:
        checked("SinusoidalPositions", "length", length, 1, 1)
        checked("SinusoidalPositions", "dim", dim, 1, 1)
        rates = np.exp(-math.log(10000) / dim * np.arange(0, dim, 2))
        angles = np.arange(length)[:, None] * rates
        P = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, -1)[:, :dim]
        self.P = Buffer(asarray(np.ascontiguousarray(P), dtype))

    def forward(self, x: Any) -> Any:
        return x + _first_rows(self.P, x)

    def __repr__(self) -> str:
        return "SinusoidalPositions({}, {})".format(*self.P.shape)


def _first_rows(P: Any, x: Any) -> Any:
    """A row of P for each place of x."""
    (length, dim), shape = P.shape, given_shape("x", x)
    if len(shape) < 2 or shape[-1] != dim or shape[-2] > length:
        raise ShapeError(
            f"x has shape {shape}, expected (..., L, {dim}) with L at most {length}, the number of "
            f"positions"
        )
    return P if shape[-2] == length else P[: shape[-2]]
