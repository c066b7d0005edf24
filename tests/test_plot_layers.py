"""Pictures of a model: its weights and what its layers put out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_plot import drawn, refused, title

import nnx
from nnx import layers as L
from nnx import plot


def test_weights() -> None:
    model = L.Sequential(L.Linear(4, 3), L.Linear(3, 2))
    W = np.array([[1, 0, 2], [0, 0, 0], [0, 0.5, 0], [0, 0, -3]], "float32")
    model.layers[0].W.data = nnx.asarray(W)
    figure = plot.weights(model)
    assert [ax.get_title() for ax in drawn(figure)] == ["2", "0", "1"]
    assert title(figure) == "0.W: 3 units, largest norm first"
    image = drawn(figure)[0].images[0]
    assert image.get_array().tolist() == [[2, 0], [0, -3]]
    low, high = image.get_clim()
    assert low == -high and 2.9 < high <= 3
    assert len(figure.axes) == 4 and figure.axes[3].get_ylabel() == "weight"
    figure = plot.weights(model, count=1, image_shape=(1, 4))
    assert title(figure) == "0.W: 1 of 3 units, largest norm first"
    assert drawn(figure)[0].images[0].get_array().shape == (1, 4)


class Kernels(L.Layer):
    """A weight (out, in, height, width), as convolutions have."""

    def __init__(self, W: Any) -> None:
        self.b, self.W = nnx.Parameter(np.zeros(2, "float32")), nnx.Parameter(W)


def test_weights_of_a_convolution() -> None:
    W = np.zeros((2, 3, 1, 2), "float32")
    W[1, 0, 0, 1], W[1, 2, 0, 0] = 4, -8
    figure = plot.weights(Kernels(W))
    assert [ax.get_title() for ax in figure.axes] == ["1", "0"], "no colour bar"
    pixels = figure.axes[0].images[0].get_array()
    assert pixels[0, 0].tolist() == [0.5, 0.5, 0] and pixels[0, 1, 0] == pytest.approx(0.75, 0.02)
    figure = plot.weights(Kernels(W[:, :1]))
    assert drawn(figure)[0].images[0].get_array().tolist() == [[0, 4]] and len(figure.axes) == 3
    assert "image_shape is (2, 1, 2); expected (height, width) or (1 or 3," in refused(
        plot.weights, Kernels(W[:, :2])
    )
    assert "its parameters: b (2,), W (2, 3, 2)" in refused(plot.weights, Kernels(W[:, :, 0]))


def test_weights_of_other_things() -> None:
    assert (
        "Relu has no first weight of shape (in, out), as L.Linear(784, 100) has, or (out, in"
        in refused(plot.weights, L.Relu())
    )
    assert "a row of 3 numbers is no square image" in refused(plot.weights, L.Linear(3, 2))
    for image_shape in (4, (4,), (2.0, 2.0)):
        assert f"has 4 numbers, image_shape is {image_shape}; expected (height, width)" in refused(
            plot.weights, L.Linear(4, 2), image_shape=image_shape
        )
    assert "weights: count=True, expected an int" in refused(
        plot.weights, L.Linear(4, 2), count=True
    )


def test_activations(backend: nnx.Backend) -> None:
    model = L.Sequential(L.Linear(2, 2), L.Sequential(L.Relu(), L.Dropout(0.5)))
    model.layers[0].W.data = nnx.asarray([[1.0, -1.0], [0.0, 0.0]])
    figure = plot.activations(model, nnx.asarray([[1.0, 2.0], [3.0, 4.0]]), bins=4)
    assert [ax.get_title() for ax in figure.axes] == [
        "input\nmean 2.5, sd 1.12",
        "0 Linear\nmean 0, sd 2.24",
        "1.0 Relu\nmean 1, sd 1.22, 50 % zeros",
        "1.1 Dropout\nmean 1, sd 1.22, 50 % zeros",
    ]
    assert [patch.get_height() for patch in figure.axes[2].patches] == [2, 1, 0, 1]
    assert model.training and model.layers[1].layers[1].training


def test_activations_that_are_not_finite_and_of_many_layers() -> None:
    figure = plot.activations(L.Relu(), np.array([[1.0, np.inf, np.nan]]))
    assert figure.axes[0].get_title() == "input\n2 of 3 not finite"
    figure = plot.activations(L.Sequential(*[L.Relu() for _ in range(30)]), [[1.0, 2.0]])
    assert len(figure.axes) == 24 and title(figure) == "the first 24 of 31"
    assert "activations: bins=0, expected" in refused(plot.activations, L.Relu(), [1.0], bins=0)


@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_activations_of_other_numbers(dtype: str) -> None:
    """Floats become the model's own, as in `predict`."""
    figure = plot.activations(L.Sequential(L.Relu()), np.ones((2, 2), dtype))
    assert figure.axes[1].get_title() == "0 Relu\nmean 1, sd 0"
    model = L.Linear(2, 1)
    if dtype == "float64":
        assert len(plot.activations(model, np.ones((2, 2), dtype)).axes) == 2


def test_what_is_no_model() -> None:
    for f, given in ((plot.weights, ()), (plot.activations, ([1.0],)), (plot.mistakes, ([1.0],))):
        assert refused(f, "net", *given) == (
            f"OptionError: {f.__name__}: model is a str, expected a layer, such as "
            f"L.Sequential(L.Linear(784, 10))"
        )
