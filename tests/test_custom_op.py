"""Ops that a user writes: extras, joint derivatives, attributes, tuples, names that nnx has too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import nnx
from nnx import Tensor
from nnx.op import REGISTRY, op


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


def make_layer_norm() -> Any:
    @op
    def layer_norm(xp, x, gamma, beta, *, eps=1e-5):  # type: ignore[no-untyped-def]
        centred = x - xp.mean(x, axis=-1, keepdims=True)
        inv = 1 / xp.sqrt(xp.mean(centred * centred, axis=-1, keepdims=True) + eps)
        h = centred * inv
        return gamma * h + beta, {"h": h, "inv": inv}

    @layer_norm.d("x", "gamma", "beta")
    def _(xp, dy, gamma, h, inv):  # type: ignore[no-untyped-def]
        g = dy * gamma
        mean = xp.mean(g, axis=-1, keepdims=True)
        dx = (g - mean - h * xp.mean(g * h, axis=-1, keepdims=True)) * inv
        return dx, dy * h, dy

    return layer_norm


def leaf(data: Any) -> Tensor:
    return Tensor(nnx.asarray(np.array(data, "float64")), requires_grad=True)


def arrays() -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(s) for s in ((4, 3), (3,), (3,))]


@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_extras_joint_derivatives_and_attributes(eps: float, backend: nnx.Backend) -> None:
    """First and second derivatives against PyTorch; the second recompute the extras."""
    torch = pytest.importorskip("torch")
    layer_norm, dout = make_layer_norm(), np.random.default_rng(1).standard_normal((4, 3))
    ours = [leaf(a) for a in arrays()]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays()]

    def total(*args: Any) -> Any:
        return nnx.sum(layer_norm(*args, eps=eps) * nnx.asarray(dout))

    grads = nnx.grad(total, (0, 1, 2))(*ours)
    y = torch.nn.functional.layer_norm(theirs[0], (3,), *theirs[1:], eps)
    expected = torch.autograd.grad((y * torch.tensor(dout)).sum(), theirs, create_graph=True)
    for a, b in zip(grads, expected, strict=True):
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-11, atol=1e-13)
    nnx.sum(grads[0] ** 3 + grads[1]).backward()
    (expected[0] ** 3 + expected[1]).sum().backward()
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        np.testing.assert_allclose(nnx.to_numpy(a.grad), b.grad.numpy(), rtol=1e-10, atol=1e-11)


def test_only_the_gradients_wanted(backend: nnx.Backend) -> None:
    """A joint derivative may compute more than was asked for; only what was asked for arrives."""
    x, gamma, beta = arrays()
    parameter = leaf(gamma)
    y = make_layer_norm()(nnx.asarray(x), parameter, nnx.asarray(beta))
    y.sum().backward()
    assert tuple(parameter.grad.shape) == (3,)


def test_a_user_s_relu_does_not_replace_ours(backend: nnx.Backend) -> None:
    """Not by name, not in the derivatives of others, not in the operators."""

    @op
    def relu(xp, x):  # type: ignore[no-untyped-def]
        """|x|"""
        return xp.abs(x)

    @relu.d("x")
    def _(xp, dy, x):  # type: ignore[no-untyped-def]
        return dy * xp.sign(x)

    @op
    def multiply(xp, x1, x2):  # type: ignore[no-untyped-def]
        return x1 - x2

    assert {k for k in REGISTRY if k.endswith(".relu")} == {
        "nnx.ops.activation.relu",
        f"{__name__}.relu",
    }
    x = leaf([-2.0, 3.0])
    assert relu(x).numpy().tolist() == [2.0, 3.0]
    assert nnx.relu(x).numpy().tolist() == [0.0, 3.0]
    assert (x * x).numpy().tolist() == [4.0, 9.0]
    g = nnx.grad(lambda x: nnx.sum(nnx.grad(lambda x: nnx.sum(nnx.exp(x)))(x)))(x)
    np.testing.assert_allclose(g.numpy(), np.exp([-2.0, 3.0]))
    assert nnx.grad(lambda x: nnx.sum(relu(x)))(x).numpy().tolist() == [-1.0, 1.0]


def test_a_tuple_result_with_extras(backend: nnx.Backend) -> None:
    @op
    def polar(xp, x, y):  # type: ignore[no-untyped-def]
        r = xp.sqrt(x * x + y * y)
        return (r, x / r), {"r": r}

    @polar.d("x", "y")
    def _(xp, dy, x, y, r):  # type: ignore[no-untyped-def]
        dr, dc = dy
        cos, sin = x / r, y / r
        return dr * cos + dc * sin * sin / r, dr * sin - dc * sin * cos / r

    x, y = leaf([3.0]), leaf([4.0])
    r, cos = polar(x, y)
    assert (r.numpy().tolist(), cos.numpy().tolist()) == ([5.0], [0.6])
    cos.sum().backward(retain_graph=True)
    np.testing.assert_allclose(nnx.to_numpy(x.grad), [0.8 * 0.8 / 5])
    r.sum().backward()
    np.testing.assert_allclose(nnx.to_numpy(y.grad), [0.8 - 0.8 * 0.6 / 5])


def test_without_a_derivative_nothing_flows(backend: nnx.Backend) -> None:
    @op
    def straight(xp, x, scale):  # type: ignore[no-untyped-def]
        return x * scale

    @straight.d("x")
    def _(xp, dy, scale):  # type: ignore[no-untyped-def]
        return dy * scale

    x, scale = leaf([2.0]), leaf([3.0])
    straight(x, scale).sum().backward()
    assert nnx.to_numpy(x.grad).tolist() == [3.0] and scale.grad is None
    assert not straight(nnx.asarray(np.ones(1)), scale).requires_grad


def test_a_derivative_of_no_argument_is_refused() -> None:
    @op
    def f(xp, x):  # type: ignore[no-untyped-def]
        return x

    with pytest.raises(nnx.DtypeError) as caught:
        f.d("z")(lambda xp, dy: dy)
    assert str(caught.value) == "f.d('z',): its array arguments are ('x',)"


def test_a_function_without_a_derivative_in_a_recorded_derivative(backend: nnx.Backend) -> None:
    @op
    def wave(xp, x):  # type: ignore[no-untyped-def]
        return xp.sin(x)

    @wave.d("x")
    def _(xp, dy, x):  # type: ignore[no-untyped-def]
        return dy * xp.cos(x)

    x = leaf([1.0])
    wave(x).sum().backward()
    np.testing.assert_allclose(nnx.to_numpy(x.grad), np.cos([1.0]))
    with pytest.raises(nnx.DtypeError) as caught:
        wave(x).sum().backward(create_graph=True)
    assert str(caught.value) == (
        "cos is neither an op of nnx nor piecewise constant: it has no derivative"
    )
