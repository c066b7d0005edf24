"""Multi-head attention."""

from __future__ import annotations

from typing import Any, ClassVar

from .. import init, ops
from ..backend import backend_of
from ..errors import OptionError, ShapeError
from ..ops._geometry import checked
from ..ops._options import given_shape, probability
from ..random import generator
from .base import Layer
from .linear import Linear


class MultiHeadAttention(Layer):
    """Each head attends with its own part of queries, keys and values.   Vaswani et al. (2017)

        q, k, v = x W + b, cut into `heads` of dim / heads each
        y = concat(softmax(q k' / sqrt(dim / heads)) v of each head) W_out + b_out

    x         (..., L, dim)
    context   (..., S, dim), from which keys and values are made; x itself by default
    mask      bool, True where a query may look: (L, S), (N, L, S) for all heads alike, or with a
              head's axis (N, heads, L, S); axes of length 1 broadcast: (N, 1, S) hides padding
    y         (..., L, dim)

    causal    no query looks at keys behind its own place
    dropout   probability of dropping a weight, in training

    `qkv` and `out` are Linear, drawn by `W_init` and, if given, `W_out_init`.
    """

    constants: ClassVar[tuple[str, ...]] = ("mask",)

    def __init__(
        self, dim: int, heads: int, *, causal: bool = False, dropout: float = 0.0,
        bias: bool = True, W_init: init.Initializer = init.glorot_uniform,
        W_out_init: init.Initializer | None = None, dtype: str = "float32",
    ) -> None:  # fmt: skip
        checked("MultiHeadAttention", "dim", dim, 1, 1)
        checked("MultiHeadAttention", "heads", heads, 1, 1)
        if dim % heads:
            raise OptionError(
                f"MultiHeadAttention({dim}, {heads}): a width of {dim} does not fall into {heads} "
                f"heads; expected a multiple of {heads}, such as {heads * -(-dim // heads)}"
            )
        probability("MultiHeadAttention", "dropout", dropout)
        self.dim, self.heads, self.causal, self.dropout = dim, heads, causal, dropout
        self.qkv = Linear(dim, 3 * dim, bias=bias, W_init=W_init, dtype=dtype)
        self.out = Linear(dim, dim, bias=bias, W_init=W_out_init or W_init, dtype=dtype)

    def forward(self, x: Any, context: Any = None, mask: Any = None) -> Any:
        for name, a in (("x", x), ("context", x if context is None else context)):
            shape = given_shape(name, a)
            if len(shape) < 2 or shape[-1] != self.dim:
                raise ShapeError(f"{name} has shape {shape}, expected (..., length, {self.dim})")
        q, k, v = (self._split(a) for a in self._projected(x, context))
        y = ops.attention(
            q, k, v, None, self._mask(mask, len(q.shape)), self._drawn(q, k),
            causal=self.causal, p=self.dropout,
        )  # fmt: skip
        return self.out.forward(ops.reshape(_swapped(y), tuple(x.shape)))

    def _projected(self, x: Any, context: Any) -> Any:
        """Queries, keys, values: of one matrix product where all are made of x."""
        if context is None:
            return ops.split(self.qkv.forward(x), 3, axis=-1)
        W, b, n = self.qkv.W, self.qkv.b, self.dim
        q = ops.affine(x, W[:, :n], None if b is None else b[:n])
        kv = ops.affine(context, W[:, n:], None if b is None else b[n:])
        return (q, *ops.split(kv, 2, axis=-1))

    def _split(self, x: Any) -> Any:
        """(..., L, dim) as (..., heads, L, dim / heads)"""
        shape = (*x.shape[:-1], self.heads, self.dim // self.heads)
        return _swapped(ops.reshape(x, shape))

    def _mask(self, mask: Any, ndim: int) -> Any:
        """With an axis for the heads."""
        if mask is None or len(given_shape("mask", mask)) in (2, ndim):
            return mask
        if len(mask.shape) == ndim - 1:
            return ops.expand_dims(mask, axis=-3)
        raise ShapeError(
            f"mask has shape {tuple(mask.shape)}, expected (L, S), or {ndim - 1} axes (..., L, S) "
            f"as x has, or {ndim} axes (..., heads, L, S)"
        )

    def _drawn(self, q: Any, k: Any) -> Any:
        if not self.training or self.dropout == 0:
            return None
        data = getattr(q, "__nnx_data__", q)
        shape = (*q.shape[:-1], k.shape[-2])
        return backend_of(data).uniform(shape, data.dtype, generator())

    def __repr__(self) -> str:
        parts = [str(self.dim), str(self.heads), *["causal=True"] * self.causal]
        return f"MultiHeadAttention({', '.join(parts)})"


def _swapped(x: Any) -> Any:
    """The second and third last axes in one another's place."""
    n = len(x.shape)
    return ops.permute_dims(x, (*range(n - 3), n - 2, n - 3, n - 1))
