"""Captured methods, and copies of captured functions."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from capture_tools import batches, equal, model, trainer, values

import nnx
from nnx import layers as L
from nnx import optim
from nnx.capture import capture

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
COPIES = {
    "shallow": copy.copy,
    "deep": copy.deepcopy,
    "pickled": lambda v: pickle.loads(pickle.dumps(v)),
}
copied_each_way = pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)


class Plain:
    def __init__(self, scale: float) -> None:
        self.W = nnx.Parameter(np.full((3, 2), scale, np.float32))

    @nnx.capture
    def product(self, x: Any) -> Any:
        """x W"""
        return nnx.Tensor(x) @ self.W

    def expected(self) -> Any:
        return X @ self.W.data


class Doubled(Plain):
    def product(self, x: Any) -> Any:
        return super().product(x) * 2.0


class DoubledInside(Plain):
    @nnx.capture
    def product(self, x: Any) -> Any:
        return super().product(x) * 2.0


class Trained(L.Layer):
    def __init__(self) -> None:
        self.net = model()
        self.optimizer = optim.SGD(self.net.parameters(), 0.1)

    def forward(self, x: Any) -> Any:
        return self.net(x)

    @nnx.capture
    def step(self, x: Any, t: Any) -> Any:
        return trainer(self.net, self.optimizer)(x, t)


def test_each_instance_has_plans_of_its_own() -> None:
    a, b = Plain(1.0), Plain(2.0)
    for _ in range(4):
        for x in (a, b):
            assert np.array_equal(x.product(X).data, x.expected())
    for x in (a, b):
        assert x.product is x.product and "1 plan>" in repr(x.product)
        assert x.product.plan().kernels == {"matmul": 1}
    assert "0 plans" in repr(Plain.product)
    assert a.product.__name__ == "product" and a.product.__doc__ == "x W"


def test_the_options_are_those_of_the_decorator() -> None:
    class Checked:
        f = capture(lambda self, x: nnx.exp(x), check=True, max_plans=3, fuse="fast")

    f = Checked().f
    assert (f.check, f.max_plans, f.fuse) == (True, 3, "fast")


@pytest.mark.parametrize("kind", [Doubled, DoubledInside])
def test_a_subclass_calls_the_captured_method_of_its_base(kind: type[Plain]) -> None:
    a = kind(1.5)
    for _ in range(4):
        assert np.array_equal(a.product(X).data, a.expected() * 2)


@copied_each_way
def test_a_copy_of_an_instance_has_its_own_plans(copied: Callable[[Any], Any]) -> None:
    a = Plain(1.0)
    for _ in range(3):
        a.product(X)
    b = copied(a)
    b.W = nnx.Parameter(a.W.data * 3)
    for _ in range(4):
        for x in (a, b):
            assert np.array_equal(x.product(X).data, x.expected())
    assert a.product is not b.product and "1 plan>" in repr(a.product)


def test_a_method_of_a_layer_trains_as_the_plain_one() -> None:
    captured, eager = Trained(), Trained()
    step = trainer(eager.net, eager.optimizer)
    for x, t in batches(6):
        assert float(captured.step(x, t)) == float(step(x, t))
    assert equal(values(captured), values(eager)) and "1 plan>" in repr(captured.step)
    assert list(captured.state_dict()) == list(eager.state_dict())
    assert len(captured.parameters()) == 4 and repr(captured) == repr(eager)


@pytest.mark.parametrize("how", ["deep", "pickled"])
def test_a_copy_of_a_layer_goes_on_by_itself(how: str) -> None:
    data = batches(8)
    a = Trained()
    for x, t in data[:4]:
        a.step(x, t)
    b = COPIES[how](a)
    assert equal(values(a), values(b))
    for x, t in data[4:]:
        assert float(a.step(x, t)) == float(b.step(x, t))
    assert equal(values(a), values(b)) and not np.shares_memory(a.net[0].W.data, b.net[0].W.data)
    b.load_state_dict({k: v * 0 for k, v in b.state_dict().items()})
    assert np.all(values(b)[0] == 0) and np.any(values(a)[0] != 0)


def test_what_is_no_function_is_no_method() -> None:
    class Holder:
        predict = capture(model())

    assert Holder().predict is Holder.predict


@copied_each_way
def test_a_copy_of_a_captured_function_has_no_plans(copied: Callable[[Any], Any]) -> None:
    step = capture(model().eval(), max_plans=3, fuse="fast", check=True)
    (x, _), *_ = batches(1)
    for _ in range(3):
        expected = step(x)
    again = copied(step)
    assert "1 plan>" in repr(step) and "0 plans" in repr(again)
    assert (again.check, again.max_plans, again.fuse) == (True, 3, "fast")
    for _ in range(3):
        assert np.array_equal(again(x), expected)
    shared = again.fn.layers[0].W is step.fn.layers[0].W
    assert shared == (copied is copy.copy)
