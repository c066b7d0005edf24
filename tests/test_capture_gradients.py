"""Gradients that somebody holds, sets, returns or gives as an argument, beside a replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from capture_tools import batches, both, equal, model, trainer, values

import nnx
from nnx import optim
from nnx.capture import capture

VIEWS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda g: g,
    "transposed": lambda g: g.T,
    "row": lambda g: g[1],
    "view of a view": lambda g: g.T[::2][:, 1:],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("held_at", [(0,), (1,), (2, 3), (0, 1, 2, 3, 4)])
def test_a_view_of_a_gradient_that_is_held(view: Any, held_at: tuple[int, ...]) -> None:
    """As in eager execution until a plan is there; and nothing that is computed changes by it."""

    def make(wrap: Any) -> Any:
        net = model()
        step = wrap(trainer(net, optim.SGD(net.parameters(), 0.1)))
        losses, held = [], []
        for i, (x, t) in enumerate(batches(8)):
            losses.append(float(step(x, t)))
            if i in held_at:
                grad = view(net[0].W.grad)
                held.append((grad, grad.copy()))
        if wrap is not capture:
            assert all(np.array_equal(g, expected) for g, expected in held)
        return net, losses

    both(make)


def test_a_gradient_that_is_only_returned() -> None:
    """The function does not compute it: it is returned as it is at each call."""

    def make(wrap: Any) -> Any:
        net = model()
        optim.SGD(net.parameters(), 0.1)
        step = wrap(lambda x: (nnx.sum(net(nnx.Tensor(x))), net[0].W.grad))
        net[0].W.take_gradient(np.zeros(net[0].W.shape, "f4"))
        found = []
        for i in range(6):
            if i < 4:
                net[0].W.grad[...] = i
            else:  # another array than its slot
                net[0].W.grad = np.full(net[0].W.shape, i, "f4")
            loss, grad = step(np.full((2, 12), float(i), "f4"))
            found.append((loss.data, grad.copy()))
        return found

    for (loss, grad), (replayed, regrad) in zip(make(lambda f: f), make(capture), strict=True):
        assert np.array_equal(loss, replayed) and np.array_equal(grad, regrad)


def test_a_gradient_of_its_own_as_an_argument() -> None:
    """As large as an argument that is read where it lies: the replay overwrites it."""

    def make(wrap: Any) -> Any:
        W = nnx.Parameter(np.ones((64, 64), "f4"))

        def f(x: Any, g: Any) -> Any:
            W.grad = None
            nnx.sum(nnx.Tensor(x) * W * W).backward()
            return nnx.sum(nnx.Tensor(g) * 2.0)

        step, rng, found = wrap(f), np.random.default_rng(0), []
        grad = np.zeros((64, 64), "f4")
        for _ in range(6):
            found.append(float(step(rng.standard_normal((64, 64)).astype("f4"), grad)))
            grad = W.grad
        return found

    assert make(lambda f: f) == make(capture)


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("kind", ["held", "set", "set and accumulated", "gone"])
def test_gradients_that_others_touch(kind: str, check: bool) -> None:
    def run(wrap: Any) -> Any:
        net = model()
        opt = optim.Adam(net.parameters())
        whole = trainer(net, opt)

        def added(x: Any, t: Any) -> Any:
            loss = nnx.softmax_cross_entropy(net(nnx.Tensor(x)), t)
            loss.backward()
            opt.step()
            return loss

        step, found, held = wrap(added if "accumulated" in kind else whole), [], []
        for i, (x, t) in enumerate(batches(10)):
            p = net[2].W
            if i >= 3:
                if kind == "held":
                    held.append(p.grad)
                elif kind == "gone":
                    p.grad = None
                else:
                    p.grad = np.full(p.shape, i / 10, "f4")
            found.append(float(step(x, t)))
        return [*values(net), *(p.grad for p in net.parameters()), found]

    assert equal(run(lambda f: f), run(lambda f: capture(f, check=check)))


@pytest.mark.parametrize("zero", ["before", "after"])
def test_an_empty_parameter_among_others(zero: str) -> None:
    def make(wrap: Any) -> Any:
        net = model()
        empty = nnx.Parameter(np.zeros((0, 5), "f4"))
        opt = optim.Adam([*net.parameters(), empty])

        def f(x: Any, t: Any) -> Any:
            if zero == "before":
                opt.zero_grad()
            y = net(nnx.Tensor(x))
            loss = nnx.softmax_cross_entropy(nnx.concat([y, empty]), t)
            loss.backward()
            opt.step()
            if zero == "after":
                opt.zero_grad()
            return loss

        step = wrap(f)
        return net, [float(step(x, t)) for x, t in batches(6)]

    both(make)


@pytest.mark.parametrize("check", [False, True])
def test_a_gradient_with_a_history_that_the_function_leaves_alone(check: bool) -> None:
    W = nnx.Parameter(np.ones((3, 2)))
    step = capture(lambda x: nnx.Tensor(x) @ W, check=check)
    for i in range(5):
        W.grad = None
        nnx.sum(W * W * float(i)).backward(create_graph=True)
        x = np.full((2, 3), float(i))
        assert np.array_equal(step(x).data, x @ W.data)
        assert np.array_equal(W.grad.data, W.data * 2 * i)
    assert "1 plan>" in repr(step)


@pytest.mark.parametrize("check", [False, True])
def test_steps_by_gradients_with_a_history(check: bool) -> None:
    def run(wrap: Any) -> Any:
        W = nnx.Parameter(np.ones((3, 2)))
        opt = optim.SGD([W], 0.1)
        step = wrap(lambda: opt.step())
        for i in range(8):
            W.grad = None
            nnx.sum(W * W * float(i)).backward(create_graph=i < 6)
            step()
            if i % 2:
                step()
        return [W.data, nnx.to_numpy(W.grad)]

    assert equal(run(lambda f: f), run(lambda f: capture(f, check=check)))
