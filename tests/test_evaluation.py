"""Evaluation and prediction, by hand and against PyTorch."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from training import digits, network

import nnx
from nnx import layers as L
from nnx import train
from nnx.data import ArrayDataset, DataLoader
from nnx.train.evaluation import Evaluator


class Fixed(L.Layer):
    """Gives its inputs back: they are the logits."""

    def forward(self, x: Any) -> Any:
        return x


LOGITS = np.array([[9, 0, 0], [0, 9, 0], [9, 0, 0], [0, 0, 9], [0, 0, 9], [9, 0, 0]], np.float32)
LABELS = np.array([0, 1, 1, 1, 2, 1])


@pytest.mark.parametrize("batch_size", [1, 4, 6])
def test_evaluation_by_hand(batch_size: int) -> None:
    result = train.evaluate(Fixed(), DataLoader(ArrayDataset(LOGITS, LABELS, 3), batch_size))
    assert result.confusion.tolist() == [[1, 0, 0], [2, 1, 1], [0, 0, 1]]
    assert result.confusion.dtype == np.int64
    assert result.accuracy == 0.5 and result.errors == 3
    assert result.most_confused(5) == [(1, 0, 2), (1, 2, 1)]
    assert result.most_confused(1) == [(1, 0, 2)]
    expected = torch.nn.functional.cross_entropy(torch.tensor(LOGITS), torch.tensor(LABELS))
    assert math.isclose(result.loss, float(expected), rel_tol=1e-6)


def test_evaluation_of_nothing() -> None:
    empty = ArrayDataset(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), 3)
    with pytest.raises(nnx.OptionError, match="the data set is empty, expected at least one row"):
        train.evaluate(Fixed(), DataLoader(empty, 10))


def test_evaluation_puts_modes_back_and_drops_nothing() -> None:
    model = L.Sequential(L.Dropout(0.9), L.Relu())
    model.layers[1].eval()
    data = DataLoader(ArrayDataset(LOGITS, LABELS, 3), 6)
    assert train.evaluate(model, data).errors == 3
    assert [layer.training for layer in model] == [True, False]
    with pytest.raises(nnx.NnxError):
        train.evaluate(L.Sequential(L.Linear(4, 3)), data)
    assert model.training


def test_what_an_evaluation_has() -> None:
    result = train.evaluate(
        Fixed(), DataLoader(ArrayDataset(LOGITS, LABELS, 3), 4),
        metrics={"top2": lambda y, t: nnx.metrics.top_k_accuracy(y, t, 2)},
    )  # fmt: skip
    assert set(result.scores) == {"loss", "top2"} and result.loss == result.scores["loss"]
    many = np.zeros((2, 101), np.float32)
    result = train.evaluate(Fixed(), DataLoader(ArrayDataset(many, np.array([1, 100])), 2))
    assert result.confusion is None
    with pytest.raises(nnx.OptionError, match=r"no confusion matrix: it needs outputs .* C <= 100"):
        result.most_confused(1)


def test_replayed_evaluations_are_eager_ones() -> None:
    model, batches = network(), digits("test", 100)
    kept = Evaluator(model, nnx.softmax_cross_entropy, {"accuracy": nnx.metrics.accuracy}, False)
    eager = train.evaluate(model, batches, metrics={"accuracy": nnx.metrics.accuracy})
    for _ in range(3):
        again = kept(batches)
        assert again.scores == eager.scores
        np.testing.assert_array_equal(again.confusion, eager.confusion)
    assert "2 plans" in repr(kept._captured)  # the last batch has one of its own


@pytest.mark.parametrize("batch_size", [1, 100, 359, 1000])
def test_predictions(batch_size: int) -> None:
    model, x = network(), digits("test").dataset.x[: 50 if batch_size == 1 else None]
    y = train.predict(model, x, batch_size)
    W1, b1, W2, b2 = (p.numpy() for p in model.parameters())
    np.testing.assert_allclose(y, np.maximum(x @ W1 + b1, 0) @ W2 + b2, rtol=1e-4, atol=1e-5)
    assert model.training
    np.testing.assert_array_equal(train.predict(model, x.astype("float64"), batch_size), y)


def test_predictions_from_elsewhere(strict: str) -> None:
    model = network()
    x = digits("test").dataset.x[:3]
    expected = train.predict(model, x)
    np.testing.assert_array_equal(train.predict(model, x.tolist()), expected)
    np.testing.assert_array_equal(train.predict(model, nnx.Tensor(x)), expected)
    with nnx.use_backend(strict):
        x = nnx.asarray(x)
    np.testing.assert_allclose(train.predict(model, x, batch_size=2), expected, rtol=1e-5)


@pytest.mark.parametrize("x", [np.zeros((0, 64), np.float32), np.float32(3)])
def test_nothing_to_predict(x: Any) -> None:
    with pytest.raises(nnx.ShapeError, match=r"predict: x has shape .*, expected at least one row"):
        train.predict(network(), x)


def test_meter() -> None:
    meter = train.Meter(("loss", "accuracy"), nnx.get_backend())
    assert all(math.isnan(mean) for mean in meter.means().values())
    meter.add(4, [np.float32(2.0), np.float32(0.5)])
    meter.add(2, [np.float32(5.0), np.float32(1.0)])
    assert meter.rows == 6 and meter.means() == {"loss": 3.0, "accuracy": 4 / 6}
    other = train.Meter(("loss", "accuracy"), nnx.get_backend())
    other.restore(meter.state())
    assert other.means() == meter.means()
    with pytest.raises(nnx.StateError, match="it has loss, accuracy, expected loss"):
        train.Meter(("loss",), nnx.get_backend()).restore(meter.state())


def test_summing_does_not_wait_for_the_device(strict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only reading the means may turn an array into a number."""
    with nnx.use_backend(strict) as backend:
        monkeypatch.setattr(type(backend), "on_host", False)
        loss = nnx.asarray(2.0)
        meter = train.Meter(("loss",), backend)
        with monkeypatch.context() as forbidden:

            def waits(_: object) -> NoReturn:
                raise AssertionError("an array was read")

            for name in ("__float__", "__int__", "__bool__", "__index__"):
                forbidden.setattr(type(loss), name, waits)
            for _ in range(2):
                meter.add(6, [loss])
    assert meter.means() == {"loss": 2.0} and meter.rows == 12
