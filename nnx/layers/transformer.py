"""A transformer's block, and a small language model made of such blocks."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from .. import init, ops
from ..errors import ShapeError
from ..ops._geometry import checked
from ..ops._options import given_shape
from .activations import Gelu
from .attention import MultiHeadAttention
from .base import Layer
from .embedding import Embedding, LearnedPositions
from .linear import Dropout, Linear, Sequential
from .norm import LayerNorm


class TransformerBlock(Layer):
    """Attention, then two Linear layers with a Gelu between, each added to what it is given.

        x = x + attention(norm1(x))
        y = x + mlp(norm2(x))                     Vaswani et al. (2017), Xiong et al. (2020)

    x, y: (..., L, dim); mask: as in MultiHeadAttention

    hidden       the width between the Linear layers, 4 dim by default
    dropout      of the attention's weights and of what is added, in training
    norm_first   False: x = norm1(x + attention(x)), y = norm2(x + mlp(x)), as the paper of 2017
    bias         of the Linear and LayerNorm layers
    W_init       of weights; `W_out_init` of those whose output is added
    """

    constants: ClassVar[tuple[str, ...]] = ("mask",)

    def __init__(
        self, dim: int, heads: int, *, hidden: int | None = None, causal: bool = False,
        dropout: float = 0.0, norm_first: bool = True, bias: bool = True,
        W_init: init.Initializer = init.glorot_uniform,
        W_out_init: init.Initializer | None = None, dtype: str = "float32",
    ) -> None:  # fmt: skip
        hidden = 4 * dim if hidden is None else hidden
        W_out_init = W_out_init or W_init
        self.norm1 = LayerNorm(dim, bias=bias, dtype=dtype)
        self.attention = MultiHeadAttention(
            dim, heads, causal=causal, dropout=dropout, bias=bias, W_init=W_init,
            W_out_init=W_out_init, dtype=dtype,
        )  # fmt: skip
        self.norm2 = LayerNorm(dim, bias=bias, dtype=dtype)
        self.mlp = Sequential(
            Linear(dim, hidden, bias=bias, W_init=W_init, dtype=dtype), Gelu(),
            Dropout(dropout), Linear(hidden, dim, bias=bias, W_init=W_out_init, dtype=dtype),
        )  # fmt: skip
        self.dropout = Dropout(dropout)
        self.norm_first = norm_first

    def forward(self, x: Any, mask: Any = None) -> Any:
        if self.norm_first:
            x = x + self.dropout(self.attention(self.norm1(x), mask=mask))
            return x + self.dropout(self.mlp(self.norm2(x)))
        x = self.norm1(x + self.dropout(self.attention(x, mask=mask)))
        return self.norm2(x + self.dropout(self.mlp(x)))

    def __repr__(self) -> str:
        return f"TransformerBlock({self.attention.dim}, {self.attention.heads})"


class GPT(Layer):
    """A language model: logits of the next id at each place, from the ids up to there.

        x = tokens(ids) + positions;  x = block(x) for each;  y = norm(x) tokens.W'

    ids: ints (N, L) with L <= context, y: (N, L, size)   Radford et al. (2019)

    size      of the vocabulary
    context   the longest sequence
    layers, heads, width   how many TransformerBlocks, and what of
    dropout   in training

    Weights are drawn from N(0, 0.02^2), those whose output is added from N(0, 0.02^2 / 2 layers).
    There are no biases, and the last layer's weights are the first's (Press and Wolf, 2017).
    """

    constants: ClassVar[tuple[str, ...]] = ("ids",)

    def __init__(
        self, size: int, *, context: int, layers: int, heads: int, width: int,
        dropout: float = 0.0, dtype: str = "float32",
    ) -> None:  # fmt: skip
        checked("GPT", "layers", layers, 1, 1)
        small, smaller = init.normal(std=0.02), init.normal(std=0.02 / math.sqrt(2 * layers))
        self.context = context
        self.tokens = Embedding(size, width, W_init=small, dtype=dtype)
        self.positions = LearnedPositions(context, width, P_init=small, dtype=dtype)
        self.dropout = Dropout(dropout)
        self.blocks = [
            TransformerBlock(
                width, heads, causal=True, dropout=dropout, bias=False, W_init=small,
                W_out_init=smaller, dtype=dtype,
            )
            for _ in range(layers)
        ]  # fmt: skip
        self.norm = LayerNorm(width, bias=False, dtype=dtype)

    def forward(self, ids: Any) -> Any:
        shape = given_shape("ids", ids)
        if len(shape) != 2 or not 0 < shape[1] <= self.context:
            raise ShapeError(
                f"ids have shape {shape}, expected (N, L) with L in 1..{self.context}, the context"
            )
        x = self.dropout(self.positions(self.tokens(ids)))
        for block in self.blocks:
            x = block(x)
        return ops.affine(self.norm(x), ops.matrix_transpose(self.tokens.W))

    def __repr__(self) -> str:
        size, width = self.tokens.W.shape
        heads = self.blocks[0].attention.heads
        return (
            f"GPT({size}, context={self.context}, layers={len(self.blocks)}, heads={heads}, "
            f"width={width})"
        )
