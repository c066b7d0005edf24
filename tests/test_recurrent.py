"""RNN, LSTM and GRU against PyTorch: layers, directions, lengths, states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from against_torch import agree, put, torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nnx
from nnx import layers as L
from nnx.capture import capture
from nnx.random import generator

SETTINGS = settings(max_examples=25, deadline=None, derandomize=True)
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
@SETTINGS
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
def test_in_a_sequence_of_layers_by_hand(kind: str) -> None:
    make, _, options = KINDS[kind]
    net = L.Sequential(make(4, 6, **options), L.Linear(6, 2))
    y = net.forward(X)
    assert y.shape == (3, 5, 2) and net.backward(np.ones_like(y)).shape == X.shape


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_is_handed_from_step_to_step(kind: str) -> None:
    """Training on pieces of a long sequence: replayed steps begin where the last one ended."""
    make, _, options = KINDS[kind]
    pieces = np.random.default_rng(1).normal(size=(8, 3, 5, 4)).astype(np.float32)
    found = []
    for wrap in (lambda f: f, capture):
        nnx.seed(0)
        layer = make(4, 3, layers=2, return_state=True, **options)
        optimizer = nnx.optim.Adam(layer.parameters(), lr=0.01)

        def step(x: Any, *state: Any, layer: Any = layer, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            y, last = layer(nnx.Tensor(x), state)
            loss = nnx.mean(y * y)
            loss.backward()
            optimizer.step()
            return loss.data, [s.data for s in (last if layer.states > 1 else [last])]

        run, state, losses = wrap(step), [np.zeros((2, 3, 3), np.float32)] * layer.states, []
        for x in pieces:
            loss, state = run(x, *state)
            losses.append(float(loss))
        found.append([losses, *(p.numpy().copy() for p in layer.parameters()), *state])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(np.abs(s).max() > 0 for s in state)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_of_what_one_layer_hands_to_the_next(kind: str) -> None:
    """The masks are drawn here again, from the same seed."""
    make, _, options = KINDS[kind]
    deep = make(4, 6, layers=2, bidirectional=True, dropout=0.4, dtype="float64", **options)
    x = X.astype("float64")
    nnx.seed(5)
    y = deep.forward(x)
    nnx.seed(5)
    drawn = nnx.get_backend().uniform((5, 3, 12), np.dtype("float64"), generator())
    for cells in deep.layers:
        one = make(cells[0].W.shape[0], 6, bidirectional=True, dtype="float64", **options)
        one.layers = [cells]
        x = one.forward(x)
        if cells is deep.layers[0]:
            x = np.where(drawn.transpose(1, 0, 2) >= 0.4, x / 0.6, 0)
    np.testing.assert_allclose(y, x, rtol=1e-12)


def test_dropout_between_layers_in_training_only() -> None:
    layer = L.GRU(4, 6, layers=2, dropout=0.5)
    assert not np.array_equal(layer.forward(X), layer.forward(X))
    layer.eval()
    assert np.array_equal(layer.forward(X), layer.forward(X))
