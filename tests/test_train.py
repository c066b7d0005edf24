"""The training loop as functions; PyTorch is the oracle for losses and whole runs."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

import nnx
from nnx import layers as L
from nnx import train
from nnx.data import ArrayDataset, DataLoader


def digits(split: str, batch_size: int = 100, *, shuffle: bool = False) -> DataLoader:
    return DataLoader(nnx.data.load("digits", split=split), batch_size, shuffle=shuffle, seed=0)


def run(seed: int, **options: Any) -> tuple[L.Layer, list[train.Epoch]]:
    nnx.seed(seed)
    model = train.build_model("mlp:50", 64, 10)
    optimizer = train.build_optimizer("momentum", model.parameters())
    batches = digits("train", 32, shuffle=True)
    return model, list(train.fit(model, optimizer, batches, digits("test"), **options))


@pytest.mark.parametrize(
    ("spec", "shapes"),
    [
        ("linear", [(64, 10)]),
        ("mlp:100", [(64, 100), (100, 10)]),
        ("mlp:512,256", [(64, 512), (512, 256), (256, 10)]),
    ],
)
def test_models(spec: str, shapes: list[tuple[int, int]]) -> None:
    model = train.build_model(spec, 64, 10)
    assert [x.W.shape for x in model if isinstance(x, L.Linear)] == shapes
    assert [type(x) for x in model][1::2] == [L.Relu] * (len(shapes) - 1)
    assert type(model[-1]) is L.Linear


@pytest.mark.parametrize(
    "spec",
    ["", "mlp", "mlp:", "mlp:0", "mlp:-3", "mlp:1.5", "mlp:10,", "mlp:\u00b2", "linear:", "cnn:8"],
)
def test_unknown_model(spec: str) -> None:
    with pytest.raises(nnx.OptionError, match=r"unknown model .* expected 'linear', or 'mlp:'"):
        train.build_model(spec, 64, 10)


@pytest.mark.parametrize("name", train.OPTIMIZERS)
def test_every_optimizer_lowers_the_loss(name: str) -> None:
    nnx.seed(0)
    model = train.build_model("mlp:20", 64, 10)
    optimizer = train.build_optimizer(name, model.parameters(), weight_decay=1e-4)
    assert optimizer.param_groups[0]["weight_decay"] == 1e-4
    assert optimizer.param_groups[0]["lr"] == train.OPTIMIZERS[name][1]
    first, last = train.fit(model, optimizer, digits("train", 50), digits("test"), epochs=2)
    assert last.train_loss < first.train_loss < 2.4


def test_momentum_and_nesterov_are_what_they_are_called() -> None:
    parameters = train.build_model("linear", 4, 3).parameters()
    group = train.build_optimizer("nesterov", parameters, 0.3).param_groups[0]
    assert (group["momentum"], group["nesterov"], group["lr"]) == (0.9, True, 0.3)
    group = train.build_optimizer("momentum", parameters).param_groups[0]
    assert (group["momentum"], group["nesterov"]) == (0.9, False)


def test_unknown_optimizer_and_schedule() -> None:
    with pytest.raises(nnx.OptionError, match="unknown optimizer 'lion'; expected one of sgd, mom"):
        train.build_optimizer("lion", [])
    with pytest.raises(nnx.OptionError, match="unknown schedule 'warm'; expected one of const"):
        train.learning_rate("warm", 0.1, 0, 10)


def test_cosine_is_pytorchs() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for step in range(20):
        expected = optimizer.param_groups[0]["lr"]
        assert math.isclose(train.learning_rate("cosine", 0.3, step, 20), expected, rel_tol=1e-9)
        assert train.learning_rate("constant", 0.3, step, 20) == 0.3
        optimizer.step()
        schedule.step()


def test_two_epochs_are_pytorchs() -> None:
    """The same weights, batches and cosine rates: the same losses, accuracies and weights."""
    nnx.seed(0)
    model = train.build_model("mlp:16", 64, 10).astype("float64")
    twin = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))
    twin.double()
    with torch.no_grad():
        for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
            theirs.copy_(torch.tensor(mine.numpy().T))
    data = nnx.data.load("digits")
    batches = DataLoader(data, 64, shuffle=True, seed=3, dtype="float64")
    held_out = DataLoader(nnx.data.load("digits", split="test"), 100, dtype="float64")
    optimizer = train.build_optimizer("momentum", model.parameters())
    epochs = list(train.fit(model, optimizer, batches, held_out, epochs=2, schedule="cosine"))

    sgd = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    steps = 2 * len(batches)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=steps)
    again = DataLoader(data, 64, shuffle=True, seed=3, dtype="float64")
    for epoch in epochs:
        losses, hits = [], 0
        for x, t in again:
            y, target = twin(torch.tensor(x)), torch.tensor(t)
            losses += torch.nn.functional.cross_entropy(y, target, reduction="none").tolist()
            hits += int((y.argmax(1) == target).sum())
            sgd.zero_grad()
            loss: Any = torch.nn.functional.cross_entropy(y, target)
            loss.backward()
            sgd.step()
            schedule.step()
        assert math.isclose(epoch.train_loss, sum(losses) / len(losses), rel_tol=1e-9)
        assert epoch.train_accuracy == hits / len(losses)
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(mine.numpy().T, theirs.detach().numpy(), rtol=0, atol=1e-12)


def test_digits_are_learnt() -> None:
    model, epochs = run(0, epochs=10, schedule="cosine")
    last = epochs[-1]
    assert last.train_accuracy > 0.97
    assert last.test_accuracy > 0.9
    assert [e.epoch for e in epochs] == list(range(1, 11))
    assert last.lr < 1e-4 < epochs[0].lr <= 0.1
    assert last.images_per_second > 0 and last.seconds > 0
    assert train.evaluate(model, digits("test", 7)).accuracy == last.test_accuracy


def test_same_seed_same_result() -> None:
    (a, first), (b, second), (c, _) = run(1, epochs=2), run(1, epochs=2), run(2, epochs=2)
    for name, x in a.state_dict().items():
        assert x.tobytes() == b.state_dict()[name].tobytes()
    assert [e.test_loss for e in first] == [e.test_loss for e in second]
    assert a.state_dict()["0.W"].tobytes() != c.state_dict()["0.W"].tobytes()


def test_a_captured_run_equals_an_eager_one() -> None:
    a, captured = run(1, epochs=2, schedule="cosine")
    b, eager = run(1, epochs=2, schedule="cosine", eager=True)
    for name, x in a.state_dict().items():
        assert x.tobytes() == b.state_dict()[name].tobytes()
    assert [(e.train_loss, e.train_accuracy) for e in captured] == [
        (e.train_loss, e.train_accuracy) for e in eager
    ]


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
    with pytest.raises(nnx.OptionError, match="the data set is empty, expected at least one image"):
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


def test_meter() -> None:
    meter = train.Meter()
    assert math.isnan(meter.loss) and math.isnan(meter.accuracy)
    meter.add(np.float32(2.0), LOGITS[:4], LABELS[:4])
    meter.add(np.float32(5.0), LOGITS[4:], LABELS[4:])
    assert meter.images == 6 and meter.loss == (2 * 4 + 5 * 2) / 6 and meter.accuracy == 0.5


def test_summing_does_not_wait_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only reading the sums may turn an array into a number."""
    strict = pytest.importorskip("array_api_strict")
    monkeypatch.setattr(train, "backend_of", lambda _: SimpleNamespace(xp=strict))
    logits, t = strict.asarray(LOGITS), strict.asarray(LABELS)
    meter = train.Meter()
    with monkeypatch.context() as forbidden:

        def waits(_: object) -> NoReturn:
            raise AssertionError("an array was read")

        for name in ("__float__", "__int__", "__bool__", "__index__"):
            forbidden.setattr(type(t), name, waits)
        for _ in range(2):
            meter.add(strict.asarray(2.0), logits, t)
        counts = train._confusions(logits, t)
    assert (meter.loss, meter.accuracy, meter.images) == (2.0, 0.5, 12)
    assert np.asarray(counts).tolist() == [[1, 0, 0], [2, 1, 1], [0, 0, 1]]


def test_meter_is_shown_after_each_batch() -> None:
    seen: list[tuple[int, int]] = []
    run(0, epochs=2, on_batch=lambda epoch, meter: seen.append((epoch, meter.images)))
    count = len(nnx.data.load("digits"))
    batches = [*range(32, count, 32), count]
    assert seen == [(e, n) for e in (1, 2) for n in batches]
