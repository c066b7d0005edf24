"""Recurrent layers: RNN, LSTM, GRU, of several layers and both directions."""

from __future__ import annotations

from typing import Any, ClassVar

from .. import init, ops
from ..arrays import asarray
from ..backend import backend_of
from ..errors import ShapeError
from ..ops._geometry import checked
from ..ops._options import given_shape, one_of, probability
from ..tensor import Parameter
from .base import Layer
from .linear import Dropout


class _Recurrent(Layer):
    """x (N, T, n_in) -> y (N, T, n_hidden), or 2 n_hidden where bidirectional.

    gates, states   how many of each a cell has
    """

    constants: ClassVar[tuple[str, ...]] = ("lengths",)
    gates: ClassVar[int] = 1
    states: ClassVar[int] = 1

    def __init__(
        self, n_in: int, n_hidden: int, *, layers: int = 1, bidirectional: bool = False,
        dropout: float = 0.0, return_state: bool = False, dtype: str = "float32",
    ) -> None:  # fmt: skip
        name = type(self).__name__
        for option, value in (("n_in", n_in), ("n_hidden", n_hidden), ("layers", layers)):
            checked(name, option, value, 1, 1)
        probability(name, "dropout", dropout)
        self.n_in, self.n_hidden, self.return_state = n_in, n_hidden, return_state
        directions = (False, True) if bidirectional else (False,)
        width = len(directions) * n_hidden
        self.layers = [
            [_Cell(width if i else n_in, n_hidden, self.gates, r, dtype) for r in directions]
            for i in range(layers)
        ]
        self.dropout = Dropout(dropout)

    def forward(self, x: Any, state: Any = None, lengths: Any = None) -> Any:
        shape = given_shape("x", x)
        if len(shape) != 3 or shape[2] != self.n_in or not shape[1]:
            raise ShapeError(f"x has shape {shape}, expected (N, T, {self.n_in}) with T at least 1")
        begin, last = self._begin(x, state), list[list[Any]]()
        y = ops.permute_dims(x, (1, 0, 2))  # from here on time comes first
        for i, cells in enumerate(self.layers):
            if i:
                y = self.dropout(y)
            found = []
            for cell in cells:
                a = ops.affine(y, cell.W, cell.b)
                out, *ends = self._run(cell, a, [s[len(last)] for s in begin], lengths)
                found.append(out)
                last.append(ends)
            y = found[0] if len(found) == 1 else ops.concat(*found, axis=2)
        y = ops.permute_dims(y, (1, 0, 2))
        if not self.return_state:
            return y
        ends = [ops.stack(*parts, axis=0) for parts in zip(*last, strict=True)]
        return y, ends[0] if self.states == 1 else tuple(ends)

    def _run(self, cell: _Cell, a: Any, state: list[Any], lengths: Any) -> Any:
        """The cell's op over all steps; a: what the inputs bring to its gates."""
        raise NotImplementedError

    def _begin(self, x: Any, state: Any) -> list[Any]:
        """Each of the states (cells, N, n_hidden); zeros where none is given."""
        shape = (sum(map(len, self.layers)), x.shape[0], self.n_hidden)
        if state is None:
            data = getattr(x, "__nnx_data__", x)
            return [backend_of(data).zeros(shape, data.dtype)] * self.states
        given = list(state) if isinstance(state, (tuple, list)) else [state]
        shapes = [given_shape("state", s) for s in given]
        if shapes != [shape] * self.states:
            what = f"{self.states} arrays (h, c)" if self.states > 1 else "an array"
            raise ShapeError(
                f"state has shapes {shapes}, expected {what} of shape {shape}: (layers x "
                f"directions, N, n_hidden)"
            )
        return given

    def __repr__(self) -> str:
        parts = [str(self.n_in), str(self.n_hidden)]
        parts += [f"layers={len(self.layers)}"] * (len(self.layers) > 1)
        parts += ["bidirectional=True"] * (len(self.layers[0]) > 1)
        return f"{type(self).__name__}({', '.join(parts)})"


class _Cell(Layer):
    """The weights of one layer in one direction, drawn from U(-k, k), k = 1 / sqrt(n_hidden)."""

    def __init__(self, n_in: int, n_hidden: int, gates: int, reverse: bool, dtype: str) -> None:
        self.reverse, k = reverse, n_hidden**-0.5
        draw, width = init.uniform(low=-k, high=k), gates * n_hidden

        def drawn(*shape: int) -> Parameter:
            return Parameter(asarray(init.drawn(draw, shape), dtype))

        self.W, self.U, self.b = drawn(n_in, width), drawn(n_hidden, width), drawn(width)
        self.b_U = drawn(width) if gates == 3 else None


class RNN(_Recurrent):
    """h_t = tanh(x_t W + b + h_{t-1} U), or relu.   Elman (1990)

    x         (N, T, n_in)
    state     (layers x directions, N, n_hidden) before the first step; zeros by default
    lengths   (N,) ints: steps from there on are padding, of which y is 0
    y         (N, T, n_hidden), of both directions (N, T, 2 n_hidden)

    layers          one on top of the other
    bidirectional   each layer also goes from the last step to the first
    dropout         of what one layer hands to the next, in training
    return_state    give (y, state) with the state after the last step: of padded ones their own

    `layers[i][direction]` has W (n_in, n_hidden), U (n_hidden, n_hidden), b (n_hidden,).
    """

    def __init__(
        self, n_in: int, n_hidden: int, *, nonlinearity: str = "tanh", layers: int = 1,
        bidirectional: bool = False, dropout: float = 0.0, return_state: bool = False,
        dtype: str = "float32",
    ) -> None:  # fmt: skip
        one_of("RNN", "nonlinearity", nonlinearity, ("tanh", "relu"))
        self.nonlinearity = nonlinearity
        super().__init__(
            n_in, n_hidden, layers=layers, bidirectional=bidirectional, dropout=dropout,
            return_state=return_state, dtype=dtype,
        )  # fmt: skip

    def _run(self, cell: Any, a: Any, state: list[Any], lengths: Any) -> Any:
        (h,) = state
        return ops.rnn(a, cell.U, h, lengths, nonlinearity=self.nonlinearity, reverse=cell.reverse)


class LSTM(_Recurrent):
    """Long short-term memory.   Hochreiter and Schmidhuber (1997), Gers et al. (2000)

        i, f, o = sigmoid and g = tanh of the parts i, f, g, o of x_t W + b + h_{t-1} U
        c_t = f c_{t-1} + i g;  h_t = o tanh(c_t)

    x: (N, T, n_in), y: (N, T, n_hidden), or 2 n_hidden. Options and lengths are RNN's. The state is
    (h, c), each (layers x directions, N, n_hidden).
    `layers[i][direction]` has W (n_in, 4 n_hidden), U (n_hidden, 4 n_hidden), b (4 n_hidden,) for
    the gates i, f, g, o in this order.
    """

    gates, states = 4, 2

    def _run(self, cell: Any, a: Any, state: list[Any], lengths: Any) -> Any:
        h, c = state
        return ops.lstm(a, cell.U, h, c, lengths, reverse=cell.reverse)


class GRU(_Recurrent):
    """Gated recurrent units, the reset gate after the product.   Cho et al. (2014)

        r, z = sigmoid of the first two parts of a + s;  a = x_t W + b, s = h_{t-1} U + b_U
        n = tanh(a + r s), of the third parts;  h_t = (1 - z) n + z h_{t-1}

    x: (N, T, n_in), y: (N, T, n_hidden), or 2 n_hidden. Options, lengths and state are RNN's.
    `layers[i][direction]` has W (n_in, 3 n_hidden), b (3 n_hidden,) for the input,
    U (n_hidden, 3 n_hidden), b_U (3 n_hidden,) for the state: gates r, z, n in this order.
    """

    gates = 3

    def _run(self, cell: Any, a: Any, state: list[Any], lengths: Any) -> Any:
        (h,) = state
        return ops.gru(a, cell.U, cell.b_U, h, lengths, reverse=cell.reverse)
