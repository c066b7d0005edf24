"""What is refused of sequences, ids, masks, lengths and states, with the sizes that were given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnx
from nnx import layers as L

X = np.zeros((3, 5, 4), np.float32)
IDS = np.zeros((3, 5), np.int64)
ZERO = np.zeros((2, 5, 4), np.float32)
U, H = np.zeros((3, 12), np.float32), np.zeros((2, 3), np.float32)
GATES = np.zeros((4, 2, 12), np.float32)

ATTENTION: list[tuple[Any, type[nnx.NnxError], str]] = [
    (lambda: L.MultiHeadAttention(10, 3), nnx.OptionError,
     "MultiHeadAttention(10, 3): a width of 10 does not fall into 3 heads; expected a multiple of "
     "3, such as 12"),
    (lambda: L.MultiHeadAttention(4, 0), nnx.OptionError,
     "MultiHeadAttention: heads=0, expected an int of at least 1"),
    (lambda: L.TransformerBlock(4, 3), nnx.OptionError,
     "MultiHeadAttention(4, 3): a width of 4 does not fall into 3 heads; expected a multiple of 3, "
     "such as 6"),
    (lambda: L.MultiHeadAttention(4, 2)(ZERO, mask=[[True]]), nnx.DtypeError,
     "in MultiHeadAttention(4, 2): mask is a list, expected an array: nnx.asarray(mask)"),
    (lambda: L.MultiHeadAttention(4, 2)(ZERO, [[1.0]]), nnx.DtypeError,
     "in MultiHeadAttention(4, 2): context is a list, expected an array: nnx.asarray(context)"),
    (lambda: L.MultiHeadAttention(4, 2)(ZERO[:, :0]), nnx.ShapeError,
     "in MultiHeadAttention(4, 2): attention: q has shape (2, 2, 0, 2), k (2, 2, 0, 2), v "
     "(2, 2, 0, 2); expected at least one key"),
    (lambda: L.MultiHeadAttention(4, 2, dropout=1), nnx.OptionError,
     "MultiHeadAttention: dropout=1, expected a probability in [0, 1)"),
    (lambda: L.MultiHeadAttention(6, 2)(ZERO), nnx.ShapeError,
     "in MultiHeadAttention(6, 2): x has shape (2, 5, 4), expected (..., length, 6)"),
    (lambda: L.MultiHeadAttention(4, 2)(ZERO, ZERO[..., :3]), nnx.ShapeError,
     "in MultiHeadAttention(4, 2): context has shape (2, 5, 3), expected (..., length, 4)"),
    (lambda: L.MultiHeadAttention(4, 2)(ZERO, None, np.ones(5, bool)), nnx.ShapeError,
     "in MultiHeadAttention(4, 2): mask has shape (5,), expected (L, S), or 3 axes (..., L, S) as "
     "x has, or 4 axes (..., heads, L, S)"),
    (lambda: L.MultiHeadAttention(4, 2)(ZERO, None, np.ones((5, 6), bool)), nnx.ShapeError,
     "in MultiHeadAttention(4, 2): attention: mask has shape (5, 6), expected one that broadcasts "
     "to (2, 2, 5, 5) = (..., L, S), because q has shape (2, 2, 5, 2), k (2, 2, 5, 2), v "
     "(2, 2, 5, 2)"),
    (lambda: L.MultiHeadAttention(4, 2)(ZERO, None, np.ones((5, 5), np.int64)), nnx.DtypeError,
     "in MultiHeadAttention(4, 2): attention: mask is int64, expected bool, True where a query "
     "may look: write mask != 0; numbers to add to the scores are `bias`"),
    (lambda: nnx.attention(ZERO, ZERO[..., :3], ZERO), nnx.ShapeError,
     "attention: q has shape (2, 5, 4), k (2, 5, 3), v (2, 5, 4); expected (..., L, E), (..., S, "
     "E) and (..., S, D): queries and keys of one width E > 0"),
    (lambda: nnx.attention(ZERO, ZERO[:, :3], ZERO), nnx.ShapeError,
     "attention: q has shape (2, 5, 4), k (2, 3, 4), v (2, 5, 4); expected (..., L, E), (..., S, "
     "E) and (..., S, D): a value for each of the S keys"),
    (lambda: nnx.attention(ZERO, ZERO[:, :0], ZERO[:, :0]), nnx.ShapeError,
     "attention: q has shape (2, 5, 4), k (2, 0, 4), v (2, 0, 4); expected at least one key"),
    (lambda: nnx.attention(np.zeros((3, 5, 4), np.float32), ZERO, ZERO), nnx.ShapeError,
     "attention: q has shape (3, 5, 4), k (2, 5, 4), v (2, 5, 4); expected (..., L, E), (..., S, "
     "E) and (..., S, D), with leading axes that broadcast"),
    (lambda: nnx.attention(ZERO, ZERO, ZERO, drawn=np.zeros((5, 5), np.float32)), nnx.ShapeError,
     "attention: drawn has shape (5, 5), expected (2, 5, 5)"),
    (lambda: nnx.attention(ZERO, ZERO, ZERO, p=1.0), nnx.OptionError,
     "attention: p=1.0, expected a probability of dropping in [0, 1)"),
    (lambda: nnx.attention(ZERO, ZERO, ZERO, rows=0), nnx.OptionError,
     "attention: rows=0, expected at least 1"),
    (lambda: L.Embedding(7, 4)(np.array([[1, 7]])), nnx.LabelError,
     "in Embedding(7, 4): embedding: id 7 at ids[0, 1], expected 0..6: the vocabulary has 7 ids"),
    (lambda: L.Embedding(7, 4)(np.array(-1)), nnx.LabelError,
     "in Embedding(7, 4): embedding: id -1, expected 0..6: the vocabulary has 7 ids"),
    (lambda: L.Embedding(7, 4)(ZERO), nnx.DtypeError,
     "in Embedding(7, 4): embedding: the ids are float32, expected an array of ints: "
     "nnx.asarray(ids, 'int64')"),
    (lambda: L.Embedding(7, 4)(3), nnx.DtypeError,
     "in Embedding(7, 4): embedding: the ids are int, expected an array of ints: "
     "nnx.asarray(ids, 'int64')"),
    (lambda: L.Embedding(7, 4)([1, 2]), nnx.DtypeError,
     "in Embedding(7, 4): embedding: the ids are list, expected an array of ints: "
     "nnx.asarray(ids, 'int64')"),
    (lambda: L.Embedding(7, 4)(np.ones(2)), nnx.DtypeError,
     "in Embedding(7, 4): embedding: the ids are float64, expected an array of ints: "
     "nnx.asarray(ids, 'int64')"),
    (lambda: L.Embedding(7, 4)(np.array([True])), nnx.DtypeError,
     "in Embedding(7, 4): embedding: the ids are bool, expected an array of ints: "
     "nnx.asarray(ids, 'int64')"),
    (lambda: L.Embedding(7, 4)(np.array([200], np.uint8)), nnx.LabelError,
     "in Embedding(7, 4): embedding: id 200 at ids[0], expected 0..6: the vocabulary has 7 ids"),
    (lambda: L.Embedding(7, 4, padding=1.0), nnx.OptionError,
     "Embedding: padding=1.0, expected an id in 0..6"),
    (lambda: L.Embedding(0, 4), nnx.OptionError,
     "Embedding: size=0, expected an int of at least 1"),
    (lambda: L.Embedding(7, 4, padding=7), nnx.OptionError,
     "Embedding: padding=7, expected an id in 0..6"),
    (lambda: nnx.embedding(ZERO, np.array([0])), nnx.ShapeError,
     "embedding: W has shape (2, 5, 4), expected (V, D): a row per id"),
    (lambda: nnx.embedding(ZERO[0], np.array([0]), padding=9), nnx.OptionError,
     "embedding: padding=9, expected an id in 0..4"),
    (lambda: L.LearnedPositions(4, 4)(ZERO), nnx.ShapeError,
     "in LearnedPositions(4, 4): x has shape (2, 5, 4), expected (..., L, 4) with L at most 4, the "
     "number of positions"),
    (lambda: L.SinusoidalPositions(5, 3)(ZERO), nnx.ShapeError,
     "in SinusoidalPositions(5, 3): x has shape (2, 5, 4), expected (..., L, 3) with L at most 5, "
     "the number of positions"),
    (lambda: L.GPT(7, context=4, layers=1, heads=1, width=4)(IDS), nnx.ShapeError,
     "in GPT(7, context=4, layers=1, heads=1, width=4): ids have shape (3, 5), expected (N, L) "
     "with L in 1..4, the context"),
    (lambda: L.GPT(7, context=4, layers=1, heads=1, width=4)(IDS[:, :0]), nnx.ShapeError,
     "in GPT(7, context=4, layers=1, heads=1, width=4): ids have shape (3, 0), expected (N, L) "
     "with L in 1..4, the context"),
    (lambda: L.GPT(7, context=4, layers=1, heads=1, width=4)([[1]]), nnx.DtypeError,
     "in GPT(7, context=4, layers=1, heads=1, width=4): ids is a list, expected an array: "
     "nnx.asarray(ids)"),
]  # fmt: skip

RECURRENT: list[tuple[Any, type[nnx.NnxError], str]] = [
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
     "lstm: lengths have shape (2,) and dtype float32, expected (2,) ints, one for each sequence: "
     "nnx.asarray(lengths, 'int64')"),
    (lambda: nnx.lstm(GATES, U, H, H, np.array([4])), nnx.DtypeError,
     "lstm: lengths have shape (1,) and dtype int64, expected (2,) ints, one for each sequence: "
     "nnx.asarray(lengths, 'int64')"),
    (lambda: nnx.lstm(GATES, U, H, H, 4), nnx.DtypeError,
     "lstm: lengths have shape () and dtype int, expected (2,) ints, one for each sequence: "
     "nnx.asarray(lengths, 'int64')"),
    (lambda: nnx.lstm(GATES, U, H, H, np.array([-1, 4])), nnx.LabelError,
     "lstm: lengths[0] is -1, expected 0..4: x has 4 steps"),
    (lambda: nnx.lstm(GATES[:0], U, H, H), nnx.ShapeError,
     "lstm: x has shape (0, 2, 12), expected (T, N, 12) with T at least 1, because U has shape "
     "(3, 12)"),
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
    (lambda: L.GRU(4, 3)([[0.0]]), nnx.DtypeError,
     "in GRU(4, 3): x is a list, expected an array: nnx.asarray(x)"),
    (lambda: L.GRU(4, 3)(X, [[[0.0]]]), nnx.DtypeError,
     "in GRU(4, 3): state is a list, expected an array: nnx.asarray(state)"),
    (lambda: L.GRU(4, 3, layers=0), nnx.OptionError,
     "GRU: layers=0, expected an int of at least 1"),
    (lambda: L.GRU(4, 3, dropout="half"), nnx.OptionError,
     "GRU: dropout='half', expected a probability in [0, 1)"),
    (lambda: L.GRU(4, 0), nnx.OptionError, "GRU: n_hidden=0, expected an int of at least 1"),
    (lambda: L.RNN(4, 2, dropout=1.0), nnx.OptionError,
     "RNN: dropout=1.0, expected a probability in [0, 1)"),
    (lambda: L.RNN(4, 2, nonlinearity="sin"), nnx.OptionError,
     "RNN: nonlinearity='sin', expected 'tanh' or 'relu'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "kind", "message"), [*ATTENTION, *RECURRENT], ids=lambda v: str(v)[:40]
)
def test_messages(call: Any, kind: type[nnx.NnxError], message: str) -> None:
    with pytest.raises(kind) as error:
        call()
    assert str(error.value) == message


@pytest.mark.parametrize("kind", [L.RNN, L.LSTM, L.GRU])
@pytest.mark.parametrize("both", [False, True])
def test_an_empty_batch(kind: Any, both: bool) -> None:
    layer = kind(4, 3, layers=2, bidirectional=both)
    y = layer.forward(X[:0])
    assert y.shape == (0, 5, 6 if both else 3)
    assert layer.backward(np.ones_like(y)).shape == (0, 5, 4)
    assert not any(p.grad.any() for p in layer.parameters())


@pytest.mark.parametrize("make", [
    lambda: (L.Embedding(7, 4), IDS[:0]), lambda: (L.LearnedPositions(5, 4), X[:0]),
    lambda: (L.MultiHeadAttention(4, 2, dropout=0.1), X[:0]),
    lambda: (L.TransformerBlock(4, 2), X[:0]),
    lambda: (L.GPT(7, context=5, layers=1, heads=1, width=4), IDS[:0]),
])  # fmt: skip
def test_an_empty_batch_of_attention(make: Any) -> None:
    layer, x = make()
    y = layer.forward(x)
    assert y.shape[:2] == (0, 5)
    layer.backward(np.ones_like(y))
    assert not any(p.grad.any() for p in layer.parameters())


@pytest.mark.parametrize("kind", [L.RNN, L.LSTM, L.GRU])
def test_a_sequence_of_length_0_leaves_the_state(kind: Any) -> None:
    """PyTorch refuses it; here its steps are all padding."""
    layer = kind(4, 3, return_state=True)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 5, 4)).astype(np.float32)
    state = [rng.normal(size=(1, 3, 3)).astype(np.float32) for _ in range(layer.states)]
    y, last = layer.forward(x, state, np.array([0, 5, 3]))
    assert not y[0].any() and y[1].all() and y[2, :3].all() and not y[2, 3:].any()
    for before, after in zip(state, last if layer.states > 1 else [last], strict=True):
        np.testing.assert_array_equal(after[:, 0], before[:, 0])
