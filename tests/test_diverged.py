"""A loss that is not finite: the step, the place, and the way back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training import bits, digits, network, shuffled, trainer

import nnx
from nnx import layers as L
from nnx import train
from nnx.data import ArrayDataset, DataLoader
from nnx.layers.observe import observed

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's overflow


def message_of(run: train.Trainer, loader: DataLoader | None = None, **options: Any) -> str:
    with pytest.raises(nnx.DivergedError) as error:
        run.fit(loader or shuffled(), epochs=3, **options)
    assert isinstance(error.value, ArithmeticError)
    return str(error.value)


class Scale(L.Layer):
    """exp(factor x), which a large factor makes infinite."""

    def __init__(self) -> None:
        self.factor = nnx.Parameter(np.ones((), np.float32))

    def forward(self, x: Any) -> Any:
        return nnx.exp(x * self.factor)


@pytest.mark.parametrize("eager", [False, True])
def test_a_rate_that_is_too_high(eager: bool, tmp_path: Path) -> None:
    run = trainer(optimizer="sgd", eager=eager, folder=tmp_path / "run")
    run.optimizer.param_groups[0]["lr"] = 1e12
    start = bits(run.model)
    message = message_of(run)
    assert message.startswith("training diverges: the loss is ")
    assert "(epoch 1, batch " in message and "First not finite: the output of layer" in message
    assert "Choose a smaller learning rate (lr, --lr), or clip gradients (clip_norm, " in message
    assert f"checkpoint, after step 0 (in {tmp_path / 'run'}" in message
    assert bits(run.model) == start and run.step == run.batch == 0


def test_the_layer_and_the_step_are_found() -> None:
    """A parameter is damaged before batch 6 of epoch 2, by what gives the batches."""
    nnx.seed(0)
    model = L.Sequential(L.Linear(64, 8), L.Sequential(Scale(), L.Relu()), L.Linear(8, 10))

    class Damaging(DataLoader):
        def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
            for i, batch in enumerate(super().batches(epoch, start), start):
                if (epoch, i) == (1, 5):
                    model[1][0].factor.data = np.full((), 1e6, np.float32)
                yield batch

    run = nnx.Trainer(model, nnx.optim.SGD(model.parameters(), lr=1e-6))
    message = message_of(run, Damaging(nnx.data.load("digits"), 100, shuffle=True, seed=0))
    assert "in step 21 (epoch 2, batch 6)" in message
    assert "First not finite: the output of layer '1.0', Scale(factor=()), in step 21" in message
    assert "again those of the last checkpoint, after step 15 (in memory)" in message
    assert (run.epoch, run.batch, run.step) == (1, 0, 15)


def test_nan_in_the_data() -> None:
    images = nnx.data.load("digits")
    x = images.x.copy()
    x[777, 5] = math.nan
    loader = DataLoader(ArrayDataset(x, images.t, 10), 100)
    message = message_of(trainer(), loader)
    assert "in step 8 (epoch 1, batch 8)" in message
    assert "First not finite: the inputs of the batch (row 77), in step 8" in message
    assert "Mend the data: np.isfinite(x) tells where" in message and "rate" not in message


class Wrong(L.Layer):
    """x, with a gradient that is not finite: sqrt at 0."""

    def __init__(self) -> None:
        self.b = nnx.Parameter(np.zeros(20, np.float32))

    def forward(self, x: Any) -> Any:
        return x + nnx.sqrt(self.b * self.b)


def test_a_gradient() -> None:
    model = network()
    model.layers.insert(1, Wrong())
    run = nnx.Trainer(model, nnx.optim.SGD(model.parameters(), lr=0.1))
    message = message_of(run)
    assert "First not finite: the gradient of '1.b', in step 1" in message
    assert "the loss is nan in step 2" in message


def test_an_update() -> None:
    model = network()
    run = nnx.Trainer(model, nnx.optim.SGD(model.parameters(), lr=3e38))
    for group in run.optimizer.param_groups:
        group["lr"] = 1e300  # infinite as float32
    message = message_of(run)
    assert "First not finite: the parameter '0.W' after the update, in step 1" in message


def test_the_loss_alone() -> None:
    def loss(y: Any, t: Any) -> Any:
        return nnx.softmax_cross_entropy(y, t) * nnx.asarray(3e38) * nnx.asarray(10.0)

    message = message_of(trainer(loss=loss, metrics={}))
    assert "First not finite: the loss, in step 1" in message


def test_a_run_that_cannot_be_repeated() -> None:
    """Nothing is claimed that was not seen."""
    run, calls = trainer(eager=True), [0]
    learn = run._learn

    def once(x: Any, t: Any) -> Any:
        calls[0] += 1
        values = learn(x, t)
        return [values[0] * math.inf, *values[1:]] if calls[0] == 3 else values

    run._learn = once  # type: ignore[method-assign]
    assert "First not finite: where cannot be told: the run is not the same" in message_of(run)


def test_after_divergence_it_goes_on_from_the_last_good_state() -> None:
    run = trainer(optimizer="sgd")
    run.fit(shuffled(), epochs=1)
    good = bits(run.model)
    run.optimizer.param_groups[0]["lr"] = 1e12
    run.save()
    message_of(run)
    assert bits(run.model) == good
    run.optimizer.param_groups[0]["lr"] = 0.1
    run.fit(shuffled(), epochs=2)
    whole = trainer(optimizer="sgd")
    whole.fit(shuffled(), epochs=2)
    assert bits(run.model) == bits(whole.model)


def test_observed_layers() -> None:
    model, seen = network(), []
    x = nnx.Tensor(digits().dataset.x[:2])
    with observed(model, lambda name, layer, y: seen.append((name, type(layer), y.shape))):
        y = model(x)
        with pytest.raises(nnx.ShapeError, match="in Linear"):
            model(nnx.Tensor(digits().dataset.x[:2, :3]))
    model(x)
    assert seen == [
        ("0", L.Linear, (2, 20)), ("1", L.Relu, (2, 20)), ("2", L.Dropout, (2, 20)),
        ("3", L.Linear, (2, 10)), ("", L.Sequential, y.shape),
    ]  # fmt: skip
    assert not any("forward" in vars(layer) for _, layer in model.named_layers())
