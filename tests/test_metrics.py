"""Metrics on the backend's arrays; counting in plain Python is the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import nnx
from nnx import metrics

ROWS = st.integers(1, 8)


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Scores without ties, and class ids."""
    n, c = draw(ROWS), draw(st.integers(1, 6))
    y = np.stack([draw(st.permutations(range(c))) for _ in range(n)]).astype(np.float32)
    return y, draw(hnp.arrays(np.int64, n, elements=st.integers(0, c - 1)))


@settings(deadline=None, derandomize=True)
@given(predictions(), st.data())
def test_against_counting(given: tuple[Any, Any], data: st.DataObject) -> None:
    y, t = given
    k = data.draw(st.integers(1, y.shape[1]))
    order = [sorted(range(len(row)), key=lambda j, row=row: -row[j]) for row in y.tolist()]
    hits = sum(o[0] == c for o, c in zip(order, t.tolist(), strict=True))
    among = sum(c in o[:k] for o, c in zip(order, t.tolist(), strict=True))
    assert float(metrics.accuracy(y, t)) == pytest.approx(hits / len(t))
    assert float(metrics.top_k_accuracy(y, t, k)) == pytest.approx(among / len(t))
    counts = np.zeros((y.shape[1], y.shape[1]), int)
    for o, c in zip(order, t.tolist(), strict=True):
        counts[c, o[0]] += 1
    found = metrics.confusion_matrix(y, t)
    assert found.dtype == np.int64 and found.tolist() == counts.tolist()
    one_hot = np.eye(y.shape[1], dtype=np.float32)[t]
    assert float(metrics.accuracy(y, one_hot)) == pytest.approx(hits / len(t))
    assert metrics.confusion_matrix(y, one_hot).tolist() == counts.tolist()


@pytest.mark.parametrize("metric", [metrics.accuracy, metrics.confusion_matrix])
def test_sequences_are_rows_one_after_another(metric: Any) -> None:
    rng = np.random.default_rng(0)
    y, t = rng.normal(size=(3, 4, 5)).astype(np.float32), rng.integers(0, 5, (3, 4))
    rows = nnx.to_numpy(metric(y.reshape(12, 5), t.reshape(12)))
    one_hot = np.eye(5, dtype=np.float32)[t]
    for targets in (t, one_hot):
        np.testing.assert_array_equal(nnx.to_numpy(metric(y, targets)), rows)


def test_tensors_of_any_backend(strict: str) -> None:
    with nnx.use_backend(strict):
        y, t = nnx.Tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]), nnx.Tensor([1, 1, 1])
        assert float(metrics.accuracy(y, t)) == pytest.approx(2 / 3)
        assert float(metrics.top_k_accuracy(y, t, 1)) == pytest.approx(2 / 3)
        assert nnx.to_numpy(metrics.confusion_matrix(y, t)).tolist() == [[0, 0], [1, 2]]
        even = metrics.perplexity(nnx.Tensor([[0.0, 0.0], [1.0, 1.0]]), nnx.Tensor([0, 1]))
        assert float(even) == pytest.approx(2) and nnx.get_backend().owns(even)


def test_ties_go_to_the_first_class_in_accuracy_and_to_the_row_in_top_k() -> None:
    y, t = np.zeros((1, 4), np.float32), np.array([2])
    assert float(metrics.accuracy(y, t)) == 0
    assert float(metrics.top_k_accuracy(y, t, 1)) == 1


Y = np.zeros((3, 4), np.float32)


@pytest.mark.parametrize(
    ("y", "t", "error", "message"),
    [
        (Y, np.zeros(2, int), nnx.ShapeError, r"accuracy: y has shape \(3, 4\) and t \(2,\); exp"),
        (Y[0], np.zeros(4, int), nnx.ShapeError, r"expected scores \(\.\.\., C\)"),
        (Y[:0], np.zeros(0, int), nnx.ShapeError, "at least one row"),
        (
            Y,
            np.zeros((3, 3), np.float32),
            nnx.ShapeError,
            r"class ids \(\.\.\.\) or targets \(\.\.\., C\)",
        ),
        (Y, np.zeros(3, np.float32), nnx.DtypeError, "t has dtype float32, expected class ids as"),
    ],
)
def test_errors(y: Any, t: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        metrics.accuracy(y, t)


@pytest.mark.parametrize("k", [0, 5, True, 1.0])
def test_k_out_of_range(k: Any) -> None:
    with pytest.raises(nnx.OptionError, match=r"top_k_accuracy: k=.*, expected an int in 1\.\.4"):
        metrics.top_k_accuracy(Y, np.zeros(3, int), k)
