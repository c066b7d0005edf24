"""Every layer: explicit backward, the tape and PyTorch give the same; Linear and its helpers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nnx
from nnx import layers as L

ACTIVATIONS: list[tuple[L.Layer, Callable[[Any, Any], Any]]] = [
    (L.Relu(), lambda F, x: F.relu(x)),
    (L.LeakyRelu(), lambda F, x: F.leaky_relu(x, 0.01)),
    (L.LeakyRelu(0.3), lambda F, x: F.leaky_relu(x, 0.3)),
    (L.Sigmoid(), lambda F, x: F.sigmoid(x)),
    (L.Tanh(), lambda F, x: F.tanh(x)),
    (L.Softplus(), lambda F, x: F.softplus(x)),
    (L.Elu(0.7), lambda F, x: F.elu(x, 0.7)),
    (L.Gelu(), lambda F, x: F.gelu(x)),
    (L.Gelu("tanh"), lambda F, x: F.gelu(x, approximate="tanh")),
    (L.Silu(), lambda F, x: F.silu(x)),
    (L.Softmax(), lambda F, x: F.softmax(x, -1)),
    (L.Softmax(0), lambda F, x: F.softmax(x, 0)),
    (L.LogSoftmax(), lambda F, x: F.log_softmax(x, -1)),
    (L.LogSoftmax(1), lambda F, x: F.log_softmax(x, 1)),
]
IDS = np.array([0, 2, 1, 2, 3])
WEIGHT = [0.5, 1.0, 2.0, 4.0]
SOFT = np.random.default_rng(5).dirichlet(np.ones(4), 5)
REAL = np.random.default_rng(6).normal(size=(5, 4))


def _entropy(**options: Any) -> Callable[[Any, Any, Any], Any]:
    return lambda F, x, t: F.cross_entropy(x, t, **options)


LOSSES: list[tuple[L.Layer, Any, Callable[[Any, Any, Any], Any]]] = [
    (L.MeanSquaredError(), REAL, lambda F, y, t: F.mse_loss(y, t)),
    (L.MeanSquaredError("sum"), REAL, lambda F, y, t: F.mse_loss(y, t, reduction="sum")),
    (L.MeanAbsoluteError(), REAL, lambda F, y, t: F.l1_loss(y, t)),
    (L.Huber(0.5), REAL, lambda F, y, t: F.huber_loss(y, t, delta=0.5)),
    (L.Huber(), REAL, lambda F, y, t: F.huber_loss(y, t)),
    (
        L.SigmoidCrossEntropy(),
        (REAL > 0).astype(float),
        lambda F, x, t: F.binary_cross_entropy_with_logits(x, t),
    ),
    (L.SoftmaxCrossEntropy(), IDS, _entropy()),
    (L.SoftmaxCrossEntropy(), SOFT, _entropy()),
    (L.SoftmaxCrossEntropy(reduction="sum"), IDS, _entropy(reduction="sum")),
    (L.SoftmaxCrossEntropy(reduction="none"), IDS, _entropy(reduction="none")),
    (L.SoftmaxCrossEntropy(label_smoothing=0.1), IDS, _entropy(label_smoothing=0.1)),
    (L.SoftmaxCrossEntropy(ignore_index=2), IDS, _entropy(ignore_index=2)),
]


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def tape(layer: L.Layer, dout: Any, x: Any, *rest: Any) -> tuple[Any, Any]:
    """Value and input gradient by recording."""
    leaf = nnx.Tensor(x, requires_grad=True)
    y = layer(leaf, *rest)
    y.backward(dout)
    return y.data, leaf.grad


@pytest.mark.parametrize(("layer", "oracle"), ACTIVATIONS, ids=lambda v: repr(v)[:24])
def test_activation(layer: L.Layer, oracle: Any, torch: Any) -> None:
    x, dout = rng().normal(size=(5, 4)) * 2, rng().normal(size=(5, 4))
    theirs = torch.tensor(x, requires_grad=True)
    expected = oracle(torch.nn.functional, theirs)
    expected.backward(torch.tensor(dout))
    y = layer.forward(x)
    dx = layer.backward(dout)
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(dx, theirs.grad.numpy(), rtol=1e-11, atol=1e-14)
    for got, same in zip(tape(layer, dout, x), (y, dx), strict=True):
        np.testing.assert_array_equal(got, same)


@pytest.mark.parametrize(("layer", "oracle"), ACTIVATIONS, ids=lambda v: repr(v)[:24])
def test_activation_keeps_float32(layer: L.Layer, oracle: Any) -> None:
    y = layer.forward(rng().normal(size=(3, 4)).astype(np.float32))
    assert y.dtype == np.float32 and layer.backward(np.ones_like(y)).dtype == np.float32


@pytest.mark.parametrize(("layer", "t", "oracle"), LOSSES, ids=lambda v: repr(v)[:24])
def test_loss(layer: L.Layer, t: Any, oracle: Any, torch: Any) -> None:
    x = rng().normal(size=(5, 4))
    theirs = torch.tensor(x, requires_grad=True)
    expected = oracle(torch.nn.functional, theirs, torch.tensor(t))
    expected.backward(torch.ones_like(expected))
    y = layer.forward(x, t)
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(layer.backward(), theirs.grad.numpy(), rtol=1e-11, atol=1e-15)
    value, dx = tape(layer, np.ones_like(y), x, t)
    np.testing.assert_array_equal(value, y)
    np.testing.assert_array_equal(dx, layer.backward())


def test_class_weights_of_a_loss(torch: Any) -> None:
    x = rng().normal(size=(5, 4)).astype(np.float32)
    theirs = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        theirs, torch.tensor(IDS), weight=torch.tensor(WEIGHT)
    )
    expected.backward()
    loss = L.SoftmaxCrossEntropy(weight=WEIGHT)
    np.testing.assert_allclose(loss.forward(x, IDS), expected.item(), rtol=1e-6)
    np.testing.assert_allclose(loss.backward(), theirs.grad.numpy(), rtol=1e-5, atol=1e-7)
    assert loss.forward(x.astype(np.float64), IDS).dtype == np.float64


def test_categorical_crossentropy_has_its_own_derivative() -> None:
    y, t = SOFT, np.eye(4)[IDS]
    loss = L.CategoricalCrossentropy()
    assert float(loss.forward(y, t)) == pytest.approx(float(np.mean(-t * np.log(y))))
    np.testing.assert_allclose(loss.backward(), -t / y / 20, rtol=1e-12)


def test_a_losses_target_is_a_constant_by_position_and_by_name() -> None:
    loss, x = L.SoftmaxCrossEntropy(), rng().normal(size=(5, 4))
    loss.forward(x, IDS)
    dx = loss.backward()
    assert dx.shape == (5, 4)
    loss.forward(t=IDS, x=x)
    np.testing.assert_array_equal(loss.backward(), dx)


def test_linear(torch: Any) -> None:
    linear, x = L.Linear(6, 3), rng().normal(size=(2, 5, 6)).astype(np.float32)
    theirs = torch.nn.Linear(6, 3)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(linear.W.numpy().T.copy()))
        theirs.bias.copy_(torch.tensor(linear.b.numpy() + 1))
    linear.b.data = linear.b.numpy() + 1
    input_ = torch.tensor(x, requires_grad=True)
    expected, dout = theirs(input_), rng().normal(size=(2, 5, 3)).astype(np.float32)
    expected.backward(torch.tensor(dout))
    np.testing.assert_allclose(linear.forward(x), expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    dx = linear.backward(dout)
    np.testing.assert_allclose(dx, input_.grad.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(linear.dW, theirs.weight.grad.numpy().T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(linear.db, theirs.bias.grad.numpy(), rtol=1e-4, atol=1e-5)
    assert linear.dW is linear.W.grad and linear.db is linear.b.grad


def test_linear_options() -> None:
    plain = L.Linear(3, 2, bias=False)
    assert plain.b is None and plain.db is None and len(plain.parameters()) == 1
    assert repr(plain) == "Linear(3, 2, bias=False)"
    x = np.ones((4, 3), np.float32)
    np.testing.assert_allclose(plain.forward(x), x @ plain.W.numpy(), rtol=1e-6)
    made = L.Linear(3, 2, W_init=nnx.init.ones, b_init=nnx.init.constant(0.5), dtype="float64")
    assert made.W.dtype == np.float64 and made.W.requires_grad
    np.testing.assert_array_equal(made.forward(np.ones((1, 3))), [[3.5, 3.5]])
    assert L.Linear(3, 2).W.dtype == np.float32
    np.testing.assert_array_equal(L.Linear(3, 2).b.numpy(), [0, 0])


def test_flatten() -> None:
    flatten, x = L.Flatten(), rng().normal(size=(2, 3, 4))
    np.testing.assert_array_equal(flatten.forward(x), x.reshape(2, 12))
    np.testing.assert_array_equal(flatten.backward(x.reshape(2, 12)), x)
    assert flatten.forward(np.ones((0, 3, 4))).shape == (0, 12)
    assert flatten.forward(np.ones(5)).shape == (5, 1)


def test_unflatten() -> None:
    layer, x = L.Unflatten(3, 4), rng().normal(size=(2, 12))
    np.testing.assert_array_equal(layer.forward(x), x.reshape(2, 3, 4))
    np.testing.assert_array_equal(layer.backward(x.reshape(2, 3, 4)), x)
    assert layer.forward(np.ones((0, 12))).shape == (0, 3, 4)
    assert repr(layer) == "Unflatten(3, 4)"


def test_dropout_drops_and_scales() -> None:
    nnx.seed(0)
    dropout, x = L.Dropout(0.25), np.ones((100, 100), np.float32)
    y = dropout.forward(x)
    assert y.dtype == np.float32
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert np.mean(y == 0) == pytest.approx(0.25, abs=0.02)
    dx = dropout.backward(np.full_like(x, 2))
    np.testing.assert_array_equal(dx, 2 * y)
    assert (dropout.forward(x) != y).any()


def test_dropout_follows_the_seed() -> None:
    dropout, x = L.Dropout(), np.ones((8, 8))
    nnx.seed(3)
    first = dropout.forward(x)
    nnx.seed(3)
    np.testing.assert_array_equal(dropout.forward(x), first)
    nnx.seed(4)
    assert (dropout.forward(x) != first).any()


def test_dropout_passes_in_eval_and_at_p_0() -> None:
    x = rng().normal(size=(4, 4))
    np.testing.assert_array_equal(L.Dropout(0.9).eval().forward(x), x)
    np.testing.assert_array_equal(L.Dropout(0.9).eval()(nnx.Tensor(x)).numpy(), x)
    none = L.Dropout(0)
    np.testing.assert_array_equal(none.forward(x), x)
    np.testing.assert_array_equal(none.backward(x), x)


@pytest.mark.parametrize("p", [1, 1.5, -0.1, float("nan"), "half", None])
def test_dropout_refuses_a_probability_out_of_range(p: float) -> None:
    with pytest.raises(nnx.OptionError, match=r"Dropout: p=.*expected a probability in \[0, 1\)"):
        L.Dropout(p)


def test_sequential() -> None:
    one, two = L.Linear(3, 4), L.Linear(4, 2)
    net = L.Sequential(one, L.Tanh(), two)
    assert len(net) == 3 and net[0] is one and list(net)[2] is two
    assert repr(net) == "Sequential(Linear(3, 4), Tanh(), Linear(4, 2))"
    x = rng().normal(size=(5, 3)).astype(np.float32)
    y = net.forward(x)
    h = np.tanh(x @ one.W.numpy() + one.b.numpy())
    np.testing.assert_allclose(y, h @ two.W.numpy() + two.b.numpy(), rtol=1e-5, atol=1e-6)
    dout = rng().normal(size=(5, 2)).astype(np.float32)
    dx = net.backward(dout)
    dh = dout @ two.W.numpy().T * (1 - h * h)
    np.testing.assert_allclose(dx, dh @ one.W.numpy().T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.W.grad, x.T @ dh, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(L.Sequential().forward(x), x)


def test_a_subclass_of_sequential_may_hold_more() -> None:
    class Net(L.Sequential):
        def __init__(self) -> None:
            super().__init__(L.Linear(2, 2))
            self.scale = nnx.Parameter([2.0])

        def forward(self, x: Any) -> Any:
            return super().forward(x) * self.scale

    assert [n for n, _ in Net().named_parameters()] == ["0.W", "0.b", "scale"]
    assert Net().forward(np.ones((1, 2), np.float32)).shape == (1, 2)


def test_residual() -> None:
    inner = L.Linear(3, 3)
    residual, x = L.Residual(inner), rng().normal(size=(4, 3)).astype(np.float32)
    W, dout = inner.W.numpy(), rng().normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_allclose(residual.forward(x), x + x @ W, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(residual.backward(dout), dout + dout @ W.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(inner.dW, x.T @ dout, rtol=1e-4, atol=1e-5)
    assert repr(residual) == "Residual(Linear(3, 3))"


def test_nan_passes_through_and_empty_batches_work() -> None:
    net = L.Sequential(L.Linear(3, 4), L.Relu(), L.Linear(4, 2))
    x = np.ones((2, 3), np.float32)
    x[1, 0] = np.nan
    y = net.forward(x)
    assert np.isfinite(y[0]).all() and np.isnan(y[1]).all()
    empty = np.ones((0, 3), np.float32)
    assert net.forward(empty).shape == (0, 2)
    assert net.backward(np.ones((0, 2), np.float32)).shape == (0, 3)
    np.testing.assert_array_equal(net[0].W.grad, np.zeros((3, 4)))
