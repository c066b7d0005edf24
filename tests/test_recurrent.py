"""RNN, LSTM and GRU against PyTorch: layers, directions, lengths, states."""

from __future__ import annotations

import tracemalloc
from typing import Any

import against_torch
import numpy as np
import pytest
from against_torch import agree, put, replays, torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nnx
from nnx import layers as L

settings.register_profile("recurrent", max_examples=20, deadline=None)
settings.load_profile("recurrent")
KINDS = {
    "tanh": (L.RNN, torch.nn.RNN, {}), "relu": (L.RNN, torch.nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (L.LSTM, torch.nn.LSTM, {}), "gru": (L.GRU, torch.nn.GRU, {}),
}  # fmt: skip


def pair(kind: str, n_in: int, n_hidden: int, layers: int, both: bool) -> Any:
    """A layer, PyTorch's, and the pairs of their gradients."""
    ours, theirs, options = KINDS[kind]
    layer = ours(
        n_in, n_hidden, layers=layers, bidirectional=both, return_state=True, dtype="float64",
        **options,
    )  # fmt: skip
    other = theirs(
        n_in, n_hidden, layers, bidirectional=both, batch_first=True, dtype=torch.float64, **options
    )
    pairs: list[tuple[Any, Any]] = []
    for i, cells in enumerate(layer.layers):
        for cell in cells:
            at = f"l{i}_reverse" if cell.reverse else f"l{i}"
            named = {"W": f"weight_ih_{at}", "U": f"weight_hh_{at}", "b": f"bias_ih_{at}"}
            second = getattr(other, f"bias_hh_{at}")
            torch.nn.init.zeros_(second)
            if kind == "gru":
                named["b_U"] = f"bias_hh_{at}"
            for name, of in named.items():
                p, q = getattr(cell, name), getattr(other, of)
                put(q, p.numpy().T)
                pairs.append((p, lambda q=q: q.grad.T if q.grad.ndim == 2 else q.grad))
    return layer, other, pairs


@pytest.mark.parametrize(("n", "n_hidden"), [(8, 16), (9, 20), (33, 48), (40, 200)])
@pytest.mark.parametrize("both", [False, True])
def test_wide_lstms(n: int, n_hidden: int, both: bool) -> None:
    """Whose products go by a few columns at a time, where they fit."""
    rng = np.random.default_rng(0)
    layer, other, pairs = pair("lstm", 3, n_hidden, 1, both)
    x = rng.normal(size=(n, 6, 3))
    t, u = nnx.Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = layer(t)[0], other(u)[0]
    dy = rng.normal(size=y.shape)
    y.backward(dy)
    z.backward(torch.tensor(dy))
    np.testing.assert_allclose(y.numpy(), z.detach(), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(t.grad, u.grad, rtol=1e-9, atol=1e-11)
    for p, grad in pairs:
        np.testing.assert_allclose(p.grad, grad(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@given(
    st.integers(1, 4), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2),
    st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_against_torch(
    kind: str, n: int, steps: int, n_in: int, n_hidden: int, layers: int, both: bool, padded: bool,
    begun: bool, training: bool, seed: int,
) -> None:  # fmt: skip
    nnx.seed(seed)
    rng = np.random.default_rng(seed)
    layer, other, pairs = pair(kind, n_in, n_hidden, layers, both)
    layer.train(training)
    x = rng.normal(size=(n, steps, n_in))
    shape = (layers * (1 + both), n, n_hidden)
    states = [rng.normal(size=shape) for _ in range(layer.states)] if begun else []
    lengths = rng.integers(1, steps + 1, n) if padded else None

    def theirs(x: Any, *rest: Any) -> Any:
        given = [s for s in rest if isinstance(s, torch.Tensor) and s.dtype == torch.float64]
        state = None if not given else given[0] if len(given) == 1 else tuple(given)
        if lengths is None:
            return other(x, state)
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            x, torch.tensor(lengths), batch_first=True, enforce_sorted=False
        )
        y, last = other(packed, state)
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=steps)
        return y, last

    class Flat(L.Layer):
        """States one by one, as the comparison hands them on."""

        constants = ("lengths",)

        def __init__(self) -> None:
            self.layer = layer
            self.training = training

        def forward(self, x: Any, lengths: Any, *states: Any) -> Any:
            state = None if not states else states[0] if len(states) == 1 else states
            y, last = self.layer(x, state, lengths)
            return (y, last) if layer.states == 1 else (y, *last)

    agree(Flat(), lambda x, _, *states: theirs(x, *states), [x, lengths, *states], pairs)


X = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [None, np.array([5, 2, 3])])
def test_captured_steps_are_eager_ones(kind: str, lengths: Any) -> None:
    make, _, options = KINDS[kind]
    replays(
        lambda: make(4, 3, layers=2, bidirectional=True, dropout=0.2, **options), X, None, lengths
    )


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_sequence_of_layers_by_hand(kind: str) -> None:
    make, _, options = KINDS[kind]
    net = L.Sequential(make(4, 6, **options), L.Linear(6, 2))
    y = net.forward(X)
    assert y.shape == (3, 5, 2) and net.backward(np.ones_like(y)).shape == X.shape


def test_a_later_step_takes_no_more_memory() -> None:
    layer = L.LSTM(4, 8, layers=2)
    step = against_torch._step(layer, nnx.optim.Adam(layer.parameters(), lr=1e-3))
    peaks = []
    for _ in range(6):
        tracemalloc.start()
        step(X)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks[2:]) <= peaks[1] * 1.02


def test_dropout_between_layers_in_training_only() -> None:
    layer = L.GRU(4, 6, layers=2, dropout=0.5)
    assert not np.array_equal(layer.forward(X), layer.forward(X))
    layer.eval()
    assert np.array_equal(layer.forward(X), layer.forward(X))


U, H = np.zeros((3, 12), np.float32), np.zeros((2, 3), np.float32)
GATES = np.zeros((4, 2, 12), np.float32)
ERRORS: list[tuple[Any, type[nnx.NnxError], str]] = [
    (lambda: nnx.lstm(GATES, U[:, :9], H, H), nnx.ShapeError,
     "lstm: U has shape (3, 9), expected (H, 4 H)"),
    (lambda: nnx.rnn(GATES, U, H), nnx.ShapeError, "rnn: U has shape (3, 12), expected (H, H)"),
    (lambda: nnx.lstm(GATES[..., :9], U, H, H), nnx.ShapeError,
     "lstm: x has shape (4, 2, 9), expected (T, N, 12) with T at least 1, because U has shape "
     "(3, 12)"),
    (lambda: nnx.lstm(GATES, U, H, H[:1]), nnx.ShapeError,
     "lstm: c has shape (1, 3), expected (2, 3), because x has shape (4, 2, 12) and U (3, 12)"),
    (lambda: nnx.gru(GATES[..., :9], U[:, :9], H, H), nnx.ShapeError,
     "gru: b has shape (2, 3), expected (9,), because U has shape (3, 9)"),
    (lambda: nnx.lstm(GATES, U, H, H, np.array([1.0, 2.0], np.float32)), nnx.DtypeError,
     "lstm: lengths have shape (2,) and dtype float32, expected (2,) ints, one for each sequence"),
    (lambda: nnx.lstm(GATES, U, H, H, np.array([4, 5])), nnx.LabelError,
     "lstm: lengths[1] is 5, expected 0..4: x has 4 steps"),
    (lambda: nnx.rnn(GATES, U, H, nonlinearity="sin"), nnx.OptionError,
     "rnn: nonlinearity='sin', expected 'tanh' or 'relu'"),
    (lambda: L.LSTM(4, 3)(X[0]), nnx.ShapeError,
     "in LSTM(4, 3): x has shape (5, 4), expected (N, T, 4) with T at least 1"),
    (lambda: L.LSTM(4, 3)(X, X), nnx.ShapeError,
     "in LSTM(4, 3): state has shapes [(3, 5, 4)], expected 2 arrays (h, c) of shape (1, 3, 3): "
     "(layers x directions, N, n_hidden)"),
    (lambda: L.GRU(4, 3, layers=2, bidirectional=True)(X, X), nnx.ShapeError,
     "in GRU(4, 3, layers=2, bidirectional=True): state has shapes [(3, 5, 4)], expected an array "
     "of shape (4, 3, 3): (layers x directions, N, n_hidden)"),
    (lambda: L.GRU(4, 0), nnx.OptionError, "GRU: n_hidden=0, expected an int of at least 1"),
    (lambda: L.RNN(4, 2, dropout=1.0), nnx.OptionError,
     "RNN: dropout=1.0, expected a probability in [0, 1)"),
    (lambda: L.RNN(4, 2, nonlinearity="sin"), nnx.OptionError,
     "RNN: nonlinearity='sin', expected 'tanh' or 'relu'"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS, ids=lambda v: str(v)[:40])
def test_messages(call: Any, kind: type[nnx.NnxError], message: str) -> None:
    with pytest.raises(kind) as error:
        call()
    assert str(error.value) == message
