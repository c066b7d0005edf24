"""Models and optimizers by name."""

from __future__ import annotations

import numpy as np
import pytest
from training import digits

import nnx
from nnx import layers as L
from nnx import train


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


def test_lenet() -> None:
    """As many parameters as LeNet-5 with its maps all joined: LeCun et al. count 60,000."""
    model = train.build_model("lenet", 784, 10)
    assert sum(p.size for p in model.parameters()) == 61_706
    assert model(np.zeros((2, 784), np.float32)).shape == (2, 10)
    with pytest.raises(nnx.OptionError, match=r"takes images of 28x28.* these have 64 numbers"):
        train.build_model("lenet", 64, 10)


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
    first, last = nnx.Trainer(model, optimizer).fit(digits("train", 50), epochs=2)
    assert last["train_loss"] < first["train_loss"] < 2.4


def test_momentum_and_nesterov_are_what_they_are_called() -> None:
    parameters = train.build_model("linear", 4, 3).parameters()
    group = train.build_optimizer("nesterov", parameters, 0.3).param_groups[0]
    assert (group["momentum"], group["nesterov"], group["lr"]) == (0.9, True, 0.3)
    group = train.build_optimizer("momentum", parameters).param_groups[0]
    assert (group["momentum"], group["nesterov"]) == (0.9, False)


def test_unknown_optimizer() -> None:
    with pytest.raises(nnx.OptionError, match="unknown optimizer 'lion'; expected one of sgd, mom"):
        train.build_optimizer("lion", [])
