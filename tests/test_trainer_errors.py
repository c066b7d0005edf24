"""What a trainer refuses: options out of range, what is no loader, no optimizer, not its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from training import network, shuffled, trainer

import nnx
from nnx.data import ArrayDataset, DataLoader


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, "Trainer: patience=0, expected an int of at least 1"),
        ({"save_every": 1.5}, "Trainer: save_every=1.5, expected an int of at least 1"),
        ({"schedule": 0.1}, "Trainer: schedule is 0.1, expected a function, such as sche"),
        ({"loss": "mse"}, "Trainer: loss is 'mse', expected a function, such as loss=nnx.mean_sq"),
        ({"metrics": {"a": 1}}, "Trainer: a is 1, expected a function, such as metrics={'accuracy"),
        (
            {"loss": nnx.layers.MeanSquaredError},
            r"Trainer: loss is the class MeanSquaredError, expected .*: write MeanSquaredError\(\)",
        ),
        ({"on_step": [print, 3]}, r"Trainer: on_step\[1\] is 3, expected a function"),
        (
            {"schedule": lambda now: -float(now.step)},
            "the schedule gave -1.0 at step 1, expected a finite factor >= 0",
        ),
        ({"monitor": "test_los"}, "monitor='test_los': history has epoch, step, train_loss, tr"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(nnx.OptionError, match=message):
        trainer(**options).fit(shuffled(), epochs=1)


def test_an_optimizer_of_another_model() -> None:
    with pytest.raises(nnx.OptionError, match="the SGD has none of the model's 4 parameters; make"):
        nnx.Trainer(network(), nnx.optim.SGD(network().parameters()))


def test_what_is_no_optimizer() -> None:
    with pytest.raises(nnx.OptionError, match=r"optimizer is .*SGD.*, expected one made of the"):
        nnx.Trainer(network(), nnx.optim.SGD)  # type: ignore[arg-type]


def test_what_is_no_loader() -> None:
    with pytest.raises(nnx.OptionError, match="train is a list, expected a DataLoader with at le"):
        trainer().fit([(1, 2)], epochs=1)  # type: ignore[arg-type]
    empty = DataLoader(ArrayDataset(np.zeros((0, 64)), np.zeros(0, int)), 10)
    with pytest.raises(nnx.OptionError, match="train is a DataLoader, expected a DataLoader with"):
        trainer().fit(empty, epochs=1)
    with pytest.raises(nnx.OptionError, match="epochs=0, expected an int of at least 1"):
        trainer().fit(shuffled(), epochs=0)


def test_a_loader_that_gives_fewer_batches_than_it_says() -> None:
    class Short(DataLoader):
        def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
            return iter(list(super().batches(epoch, start))[:-2])

    loader = Short(nnx.data.load("digits"), 100)
    with pytest.raises(nnx.OptionError, match=r"gave 13 batches in an epoch, len\(train\) is 15"):
        trainer().fit(loader, epochs=1)
