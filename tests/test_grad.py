"""nnx.grad, and derivatives of derivatives through it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import nnx
from nnx import Tensor


def on(data: Any) -> Any:
    return nnx.asarray(np.asarray(data, "float64"))


def test_of_python_numbers() -> None:
    def f(x: Any) -> Any:
        return x**3

    first, second = nnx.grad(f), nnx.grad(nnx.grad(f))
    third = nnx.grad(second)
    assert (first(2.0), second(2.0), third(2.0)) == (12.0, 12.0, 6.0)
    assert (type(first(2)), first(2)) == (int, 12), "ints stay ints, as the notebook's do"
    assert nnx.grad(lambda x: nnx.exp(x) * x)(1.0) == pytest.approx(2 * math.e, rel=1e-15)


def test_of_arrays(backend: nnx.Backend) -> None:
    x = on([0.5, -1.0, 2.0])
    g = nnx.grad(lambda x: nnx.sum(nnx.tanh(x)))(x)
    assert backend.owns(g)
    np.testing.assert_allclose(nnx.to_numpy(g), 1 - np.tanh([0.5, -1.0, 2.0]) ** 2, rtol=1e-14)


def test_of_grad(backend: nnx.Backend) -> None:
    """f = sum of x^4: f'' v by the gradient of f' . v, entry by entry 12 x^2."""
    x = on([0.5, -1.0, 2.0])
    second = nnx.grad(lambda x: nnx.sum(nnx.grad(lambda x: nnx.sum(x**4))(x)))(x)
    assert backend.owns(second)
    np.testing.assert_allclose(nnx.to_numpy(second), 12 * np.array([0.25, 1.0, 4.0]), rtol=1e-14)


def test_argnums(backend: nnx.Backend) -> None:
    def f(a: Any, b: Any, c: Any) -> Any:
        return nnx.sum(nnx.add(nnx.multiply(nnx.multiply(a, b), b), c))  # any may be an array

    a, b, c = on([2.0]), on([3.0]), on([5.0])
    assert nnx.to_numpy(nnx.grad(f)(a, b, c)).tolist() == [9.0]
    assert nnx.to_numpy(nnx.grad(f, 1)(a, b, c)).tolist() == [12.0]
    assert nnx.to_numpy(nnx.grad(f, -1)(a, b, c)).tolist() == [1.0]
    several = nnx.grad(f, (2, 0))(a, b, c)
    assert [nnx.to_numpy(g).tolist() for g in several] == [[1.0], [9.0]]


def test_argnums_out_of_range() -> None:
    with pytest.raises(nnx.OptionError, match=r"argnums=2, but 1 arguments were given"):
        nnx.grad(lambda x: x, 2)(1.0)


def test_of_tensors_has_a_history(backend: nnx.Backend) -> None:
    x = Tensor(on([2.0]), requires_grad=True)
    g = nnx.grad(lambda x: nnx.sum(x**3))(x)
    assert isinstance(g, Tensor) and g.requires_grad
    assert x.grad is None, "grad leaves .grad alone"
    g.sum().backward()
    assert nnx.to_numpy(x.grad).tolist() == [12.0]


def test_at_an_interior_tensor(backend: nnx.Backend) -> None:
    """The derivative by something computed: what lies behind it stays as it is."""
    x = Tensor(on([2.0]), requires_grad=True)
    h = x * 3
    g = nnx.grad(lambda h: nnx.sum(h * h))(h)
    assert g.numpy().tolist() == [12.0]
    assert x.grad is None
    g.sum().backward()
    assert nnx.to_numpy(x.grad).tolist() == [6.0]


def test_what_f_does_not_use_has_zeros(backend: nnx.Backend) -> None:
    x, y = on([1.0, 2.0]), on([3.0])
    dx, dy = nnx.grad(lambda x, y: nnx.sum(x), (0, 1))(x, y)
    assert nnx.to_numpy(dx).tolist() == [1.0, 1.0] and nnx.to_numpy(dy).tolist() == [0.0]
    assert nnx.grad(lambda x: 3.0)(2.0) == 0
    second = nnx.grad(lambda x: nnx.sum(nnx.grad(lambda x: nnx.sum(nnx.relu(x)))(x)))
    assert nnx.to_numpy(second(on([math.inf, -math.inf, math.nan, 1]))).tolist() == [0.0] * 4
    assert nnx.grad(nnx.grad(lambda x: 3 * x))(math.inf) == 0


def test_needs_a_scalar() -> None:
    with pytest.raises(nnx.ShapeError) as caught:
        nnx.grad(lambda x: x * 2)(np.ones(3))
    assert str(caught.value) == (
        "grad: the function returned shape (3,), expected a scalar; return its .sum(), or one entry"
    )


def test_hessian_by_rows(backend: nnx.Backend) -> None:
    """Rosenbrock's function, whose Hessian is known."""

    def f(p: Any) -> Any:
        return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2

    x, y = -1.2, 1.0
    rows = [nnx.to_numpy(nnx.grad(lambda p, i=i: nnx.grad(f)(p)[i])(on([x, y]))) for i in range(2)]
    expected = [[2 - 400 * (y - 3 * x * x), -400 * x], [-400 * x, 200]]
    np.testing.assert_allclose(rows, expected, rtol=1e-13)


def test_mixed_partial_derivatives(backend: nnx.Backend) -> None:
    """d/dy d/dx of x^2 y^3 = 6 x y^2, y an argument of the inner function or around it."""
    inner = nnx.grad(lambda x, y: x**2 * y**3, 0)
    assert nnx.grad(inner, 1)(2.0, 3.0) == 6 * 2.0 * 9.0
    assert nnx.grad(lambda y: nnx.grad(lambda x: x**2 * y**3)(2.0))(3.0) == 6 * 2.0 * 9.0
    by_y = nnx.grad(lambda y: nnx.sum(nnx.grad(lambda x: nnx.sum(x**2 * y**3))(on([2.0]))))
    assert nnx.to_numpy(by_y(on([3.0]))).tolist() == [6 * 2.0 * 9.0]


def test_a_tensor_among_the_other_arguments(backend: nnx.Backend) -> None:
    w = Tensor(on([3.0]), requires_grad=True)
    g = nnx.grad(lambda x, w: nnx.sum(x * x * w))(on([2.0]), w)
    assert isinstance(g, Tensor)
    g.sum().backward()
    assert nnx.to_numpy(w.grad).tolist() == [4.0]


def test_no_grad_around_is_ignored_and_inside_respected() -> None:
    with nnx.no_grad():
        assert nnx.grad(lambda x: x * x)(3.0) == 6.0
        assert not (Tensor([1.0], requires_grad=True) * 2).requires_grad, "no_grad still holds"

    def half_constant(x: Any) -> Any:
        with nnx.no_grad():
            c = x * 1
        return c * x

    assert nnx.grad(half_constant)(3.0) == 3.0
