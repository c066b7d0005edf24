"""A user's own layer, in both styles: on Tensors with the tape, on bare arrays by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnx
from nnx import layers as L
from nnx import optim


class Own(L.Layer):
    """Nested containers, a parameter used twice, broadcasting, operators and a layer twice."""

    def __init__(self) -> None:
        r = np.random.default_rng(7)
        self.blocks = [L.Linear(4, 4, dtype="float64"), [L.Tanh()]]
        self.heads = {"a": L.Linear(4, 3, dtype="float64"), "b": (L.Linear(4, 3, dtype="float64"),)}
        self._scale = nnx.Parameter(r.normal(size=(4,)))
        self.shift = nnx.Parameter(r.normal(size=(1, 3)))

    def forward(self, x: Any) -> Any:
        h = self.blocks[1][0](self.blocks[0](x) * self._scale)
        h = nnx.maximum(self.blocks[0](h), 0.1) + x * self._scale
        return self.heads["a"](h) * self.shift - 2 * self.heads["b"][0](h) / (1 + self.shift**2)


def data() -> tuple[Any, Any]:
    r = np.random.default_rng(8)
    return r.normal(size=(5, 4)), r.normal(size=(5, 3))


def numeric(net: L.Layer, x: Any, dout: Any, array: Any) -> Any:
    """Central difference of sum(dout * net(x)) for the entries of `array`."""
    out = np.zeros_like(array)
    for i in np.ndindex(array.shape):
        was = array[i]
        for sign in (1, -1):
            array[i] = was + sign * 1e-6
            out[i] += sign * float(np.sum(dout * net.forward(x))) / 2e-6
        array[i] = was
    return out


def test_explicit_backward_of_an_own_layer() -> None:
    net, (x, dout) = Own(), data()
    net.forward(x)
    dx = net.backward(dout)
    got = {name: p.grad.copy() for name, p in net.named_parameters()}
    assert set(got) == {
        "blocks.0.W", "blocks.0.b", "heads.a.W", "heads.a.b", "heads.b.0.W", "heads.b.0.b",
        "_scale", "shift",
    }  # fmt: skip
    np.testing.assert_allclose(dx, numeric(net, x, dout, x), rtol=0, atol=1e-7)
    for name, p in net.named_parameters():
        np.testing.assert_allclose(got[name], numeric(net, x, dout, p.data), rtol=0, atol=1e-7)


def test_both_styles_agree() -> None:
    net, (x, dout) = Own(), data()
    y = net.forward(x)
    np.testing.assert_array_equal(net(x), y)
    dx = net.backward(dout)
    by_hand = [p.grad for p in net.parameters()]
    net.zero_grad()
    leaf = nnx.Tensor(x, requires_grad=True)
    out = net(leaf)
    assert isinstance(out, nnx.Tensor)
    np.testing.assert_array_equal(out.data, y)
    np.testing.assert_array_equal(net.forward(leaf).data, y)
    out.backward(dout)
    np.testing.assert_array_equal(leaf.grad, dx)
    for p, g in zip(net.parameters(), by_hand, strict=True):
        np.testing.assert_array_equal(p.grad, g)


def test_explicit_overwrites_and_the_tape_accumulates() -> None:
    net, (x, dout) = Own(), data()
    net.forward(x)
    net.backward(dout)
    once = [p.grad.copy() for p in net.parameters()]
    net.backward(dout)
    for p, g in zip(net.parameters(), once, strict=True):
        np.testing.assert_array_equal(p.grad, g)
    net(nnx.Tensor(x)).backward(dout)
    for p, g in zip(net.parameters(), once, strict=True):
        np.testing.assert_allclose(p.grad, 2 * g, rtol=1e-14)


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam], ids=["SGD", "Adam"])
def test_a_step_after_either_style_is_the_same(make: Any) -> None:
    x, t = data()[0], np.array([0, 1, 2, 1, 0])
    trained = []
    for explicit in (True, False):
        nnx.seed(2)
        net, loss = Own(), L.SoftmaxCrossEntropy()
        opt = make(net.parameters(), lr=0.05)
        for _ in range(3):
            if explicit:
                loss.forward(net.forward(x), t)
                net.backward(loss.backward())
            else:
                opt.zero_grad()
                loss(net(nnx.Tensor(x)), t).backward()
            opt.step()
        trained.append(net.state_dict())
    before = Own().state_dict()
    for name, value in trained[0].items():
        np.testing.assert_array_equal(value, trained[1][name])
        assert (value != before[name]).any()


def test_gradients_are_in_memory_of_their_own() -> None:
    """x + a + b: dout itself is the gradient of all three, which must not share it."""

    class Sum(L.Layer):
        def __init__(self) -> None:
            self.a, self.b = nnx.Parameter([1.0, 2.0]), nnx.Parameter([3.0, 4.0])

        def forward(self, x: Any) -> Any:
            return x + self.a + self.b

    net, dout = Sum(), np.ones(2, np.float32)
    net.forward(np.ones(2, np.float32))
    net.backward(dout)
    net.a.grad *= 10
    np.testing.assert_array_equal(net.b.grad, [1, 1])
    np.testing.assert_array_equal(dout, [1, 1])


def test_a_layer_used_twice() -> None:
    linear = L.Linear(3, 3, dtype="float64")
    net = L.Sequential(linear, L.Tanh(), linear)
    assert len(net.parameters()) == 2
    x, dout = np.random.default_rng(0).normal(size=(2, 4, 3))
    net.forward(x)
    net.backward(dout)
    got = linear.W.grad.copy()
    np.testing.assert_allclose(got, numeric(net, x, dout, linear.W.data), rtol=0, atol=1e-7)


def test_several_inputs_and_outputs() -> None:
    class Two(L.Layer):
        def forward(self, a: Any, b: Any, *, scale: float = 1.0) -> Any:
            return a * b * scale, {"sum": a + b}["sum"]

    layer, a, b = Two(), np.array([1.0, 2.0]), np.array([3.0, 5.0])
    product, total = layer.forward(a, b, scale=2.0)
    np.testing.assert_array_equal(product, [6, 20])
    np.testing.assert_array_equal(total, [4, 7])
    da, db = layer.backward((np.ones(2), 10 * np.ones(2)))
    np.testing.assert_array_equal(da, [16, 20])
    np.testing.assert_array_equal(db, [12, 14])
    layer.forward(b=b, a=a)
    np.testing.assert_array_equal(layer.backward()[0], [4, 6])
    with pytest.raises(nnx.ShapeError, match="2 outputs, 1 gradients given"):
        layer.backward((np.ones(2),))


def test_an_input_that_is_not_used_has_zeros() -> None:
    class First(L.Layer):
        def forward(self, a: Any, b: Any) -> Any:
            return a * 2

    layer = First()
    layer.forward(np.ones(2), np.ones(3))
    np.testing.assert_array_equal(layer.backward(np.ones(2))[1], np.zeros(3))


def test_a_parameter_without_a_gradient_and_a_frozen_one() -> None:
    net = L.Sequential(L.Linear(2, 2), L.Linear(2, 2))
    net[0].W.requires_grad = False
    net.unused = nnx.Parameter([1.0])
    net.forward(np.ones((1, 2), np.float32))
    net.backward(np.ones((1, 2), np.float32))
    assert net[0].W.grad is None and net.unused.grad is None
    assert net[0].b.grad is not None and net[1].W.grad is not None


def test_super_forward_and_inheritance() -> None:
    class Base(L.Layer):
        def __init__(self) -> None:
            self.w = nnx.Parameter([3.0])

        def forward(self, x: Any) -> Any:
            return x * self.w

    class Child(Base):
        def forward(self, x: Any) -> Any:
            return super().forward(x) + 1

    class Grandchild(Child):
        pass

    layer = Grandchild()
    assert layer.forward(np.float32([2.0])).tolist() == [7.0]
    assert layer.backward(np.float32([1.0])).tolist() == [3.0]
    assert layer.w.grad.tolist() == [2.0]


def test_train_and_eval_reach_nested_layers() -> None:
    class Holder(L.Layer):
        def __init__(self) -> None:
            self.parts = {"x": [L.Sequential(L.Dropout(0.9), L.Residual(L.Dropout(0.9)))]}

    net = Holder()
    layers = [layer for _, layer in net.named_layers()]
    assert [name for name, _ in net.named_layers()] == [
        "", "parts.x.0", "parts.x.0.0", "parts.x.0.1", "parts.x.0.1.layer",
    ]  # fmt: skip
    assert all(layer.training for layer in layers)
    assert net.eval() is net and not any(layer.training for layer in layers)
    assert net.train() is net and all(layer.training for layer in layers)


def test_eval_and_no_grad_keep_nothing() -> None:
    net, (x, dout) = Own(), data()
    y = net.forward(x)
    net.eval()
    np.testing.assert_array_equal(net.forward(x), y)
    message = r"in Own\(.*backward\(\) before forward\(\).*after eval\(\), under no_grad\(\)"
    with pytest.raises(nnx.StateError, match=message):
        net.backward(dout)
    net.train()
    with nnx.no_grad():
        np.testing.assert_array_equal(net.forward(x), y)
        assert not net(nnx.Tensor(x)).requires_grad
    with pytest.raises(nnx.StateError, match=message):
        net.backward(dout)
    net.forward(x)
    net.backward(dout)


def test_arrays_in_a_list() -> None:
    class Join(L.Layer):
        def forward(self, xs: Any, axis: int = 0) -> Any:
            return nnx.concat(xs, axis=axis) * 2

    join, a, b = Join(), np.array([1.0, 2.0]), np.array([3.0])
    np.testing.assert_array_equal(join.forward([a, b]), [2, 4, 6])
    da, db = join.backward(np.array([1.0, 10.0, 100.0]))
    assert (da.tolist(), db.tolist()) == ([2, 20], [200])
    leaf = nnx.Tensor(a, requires_grad=True)
    join((leaf, nnx.Tensor(b))).sum().backward()
    assert leaf.grad.tolist() == [2, 2]


def test_a_forward_from_a_mixin() -> None:
    class Doubled:
        def forward(self, x: Any) -> Any:
            return x * 2

    class Layer(Doubled, L.Layer):
        pass

    layer = Layer()
    assert layer.forward(np.ones(1)).tolist() == [2]
    assert layer.backward(np.ones(1)).tolist() == [2]


def test_constants_are_bare_in_both_modes() -> None:
    class Kinds(L.Layer):
        constants = ("t",)

        def forward(self, x: Any, t: Any) -> Any:
            assert isinstance(x, nnx.Tensor) and isinstance(t, np.ndarray)
            return x * 2

    layer = Kinds()
    for mode in (True, False):
        layer.train(mode).forward(np.ones(2), np.ones(2))
        layer.train(mode).forward(np.ones(2), t=np.ones(2))
