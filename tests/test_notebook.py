"""The notebook's cells, with its classes imported from nnx, print its figures to the last digit."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest
from notebook_cells import CELLS, Y_MINUS_T

import nnx


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def one_hot(ids: Any, classes: int) -> Any:
    return np.eye(classes)[ids]


def test_cells_print_the_notebooks_figures() -> None:
    test = doctest.DocTestParser().get_doctest(CELLS, {}, "notebook", None, None)
    report: list[str] = []
    failed, attempted = doctest.DocTestRunner().run(test, out=report.append)
    assert not failed, "".join(report)
    assert attempted > 40


def test_loss_of_the_printed_matrix() -> None:
    printed = np.array([[float(v) for v in row.split()] for row in Y_MINUS_T.strip().splitlines()])
    t = (printed < 0).astype(float)
    y = printed + t
    loss = nnx.Loss()
    assert float(loss.forward(y, t)) == pytest.approx(0.4467397593773725, abs=1e-8)
    assert str(float(loss.loss)).startswith("0.44673975")
    np.testing.assert_allclose(loss.backward(), printed, rtol=0, atol=1e-15)


@pytest.mark.parametrize("soft", [False, True])
def test_loss_backward_is_the_gradient_for_the_logits(soft: bool) -> None:
    """backward(1 / y.size) is d forward(softmax(x), t) / dx, by a central difference."""
    x = rng().normal(size=(6, 4))
    t = one_hot(rng().integers(0, 4, 6), 4)
    if soft:
        t = 0.9 * t + 0.1 / 4

    def value(x: Any) -> float:
        e = np.exp(x - x.max(1, keepdims=True))
        return float(np.mean(-t * np.log(e / e.sum(1, keepdims=True))))

    h, numeric = 1e-6, np.zeros_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = h
        numeric[i] = (value(x + step) - value(x - step)) / (2 * h)
    softmax, loss = nnx.Softmax(), nnx.Loss()
    y = softmax.forward(x)
    assert float(loss.forward(y, t)) == pytest.approx(value(x), rel=1e-12)
    np.testing.assert_allclose(loss.backward(1 / y.size), numeric, rtol=0, atol=1e-9)
    np.testing.assert_allclose(loss.backward(), (y - t), rtol=0, atol=0)


def test_loss_keeps_the_notebooks_attributes() -> None:
    y, t = np.array([[0.25, 0.75]]), np.array([[0.0, 1.0]])
    loss = nnx.Loss()
    assert loss.loss is loss.y is loss.t is None
    out = loss.forward(y, t)
    assert loss.y is y and loss.t is t and loss.loss is out
    assert float(out) == pytest.approx(-np.log(0.75) / 2)


def test_loss_backward_before_forward() -> None:
    with pytest.raises(nnx.StateError, match=r"Loss\.backward\(\) before forward\(y, t\)"):
        nnx.Loss().backward()


def test_affine_gives_dx_dW_db() -> None:
    r = rng()
    x, W, b, dout = (r.normal(size=s) for s in ((10, 5), (5, 3), (3,), (10, 3)))
    affine = nnx.Affine(W, b)
    np.testing.assert_allclose(affine.forward(x), x @ W + b, rtol=1e-13)
    dx, dW, db = affine.backward(dout)
    np.testing.assert_allclose(dx, dout @ W.T, rtol=1e-13)
    np.testing.assert_allclose(dW, x.T @ dout, rtol=1e-13)
    np.testing.assert_allclose(db, dout.sum(0), rtol=1e-13)
    assert affine.dW is dW and affine.db is db
    assert affine.W.shape == (5, 3) and affine.b.shape == (3,)


def test_affine_trains_in_any_leading_shape() -> None:
    r = rng()
    x, W, b, dout = (r.normal(size=s) for s in ((4, 2, 5), (5, 3), (3,), (4, 2, 3)))
    affine = nnx.Affine(W, b)
    affine.forward(x)
    dx, dW, db = affine.backward(dout)
    np.testing.assert_allclose(dx, dout @ W.T, rtol=1e-13)
    np.testing.assert_allclose(dW, np.einsum("nki,nko->io", x, dout), rtol=1e-12)
    np.testing.assert_allclose(db, dout.sum((0, 1)), rtol=1e-12)


@pytest.mark.parametrize("before", [nnx.Relu(), nnx.Sigmoid(), nnx.Affine(np.eye(3), np.zeros(3))])
def test_affines_tuple_passed_on_says_take_0(before: Any) -> None:
    affine = nnx.Affine(np.eye(3), np.zeros(3))
    y = affine.forward(before.forward(np.ones((2, 3))))
    with pytest.raises(nnx.ShapeError, match=r"tuple of 3.*take \[0\]"):
        before.backward(affine.backward(y))
    before.backward(affine.backward(y)[0])


def test_loss_given_affines_tuple_says_take_0() -> None:
    loss = nnx.Loss()
    loss.forward(np.full((1, 2), 0.5), np.eye(2)[:1])
    with pytest.raises(nnx.ShapeError, match=r"take \[0\]"):
        loss.backward((1, 2, 3))


def test_a_network_by_hand_in_the_books_style() -> None:
    """Affine - Relu - Affine - Softmax - Loss; each gradient against a central difference."""
    r = rng()
    x, t = r.normal(size=(4, 3)), one_hot([0, 1, 1, 0], 2)
    W1, b1, W2, b2 = (r.normal(size=s) for s in ((3, 5), (5,), (5, 2), (2,)))
    one, act, two = nnx.Affine(W1, b1), nnx.Relu(), nnx.Affine(W2, b2)
    softmax, loss = nnx.Softmax(), nnx.Loss()

    def value() -> float:
        h = np.maximum(x @ W1 + b1, 0) @ W2 + b2
        e = np.exp(h)
        return float(np.mean(-t * np.log(e / e.sum(1, keepdims=True))))

    y = softmax.forward(two.forward(act.forward(one.forward(x))))
    assert float(loss.forward(y, t)) == pytest.approx(value())
    dh, dW2, db2 = two.backward(loss.backward(1 / y.size))
    dx, dW1, db1 = one.backward(act.backward(dh))
    for array, gradient in ((x, dx), (W1, dW1), (b1, db1), (W2, dW2), (b2, db2)):
        for i in np.ndindex(array.shape):
            was, numeric = array[i], 0.0
            for sign in (1, -1):
                array[i] = was + sign * 1e-6
                numeric += sign * value() / 2e-6
            array[i] = was
            assert gradient[i] == pytest.approx(numeric, abs=1e-8)


def _calls() -> list[tuple[str, Any, tuple[Any, ...]]]:
    r = rng()
    x, y = r.normal(size=(4, 3)), r.normal(size=(4, 3))
    p = np.abs(x) / np.abs(x).sum(1, keepdims=True)
    return [
        ("AddNode", nnx.AddNode(), (x, y)),
        ("MulNode", nnx.MulNode(), (x, y)),
        ("Relu", nnx.Relu(), (x,)),
        ("Sigmoid", nnx.Sigmoid(), (x,)),
        ("Softmax", nnx.Softmax(), (x,)),
        ("Affine", nnx.Affine(r.normal(size=(3, 3)), r.normal(size=3)), (x,)),
        ("Loss", nnx.Loss(), (p, np.eye(3)[[0, 1, 2, 1]])),
    ]


@pytest.mark.parametrize(("name", "layer", "args"), _calls(), ids=[c[0] for c in _calls()])
def test_nothing_mutates_its_input(name: str, layer: Any, args: tuple[Any, ...]) -> None:
    copies = [a.copy() for a in args]
    y = layer.forward(*args)
    dout = np.ones_like(y) * 3
    given = dout.copy()
    layer.backward(dout)
    for array, copy in zip((*args, dout), (*copies, given), strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    ("layer", "args", "y", "gradients"),
    [
        (nnx.AddNode(), (3, 4), 7, (1, 1)),
        (nnx.AddNode(), (3, 0.5), 3.5, (1, 1)),
        (nnx.MulNode(), (3, 4), 12, (4, 3)),
        (nnx.MulNode(), (3, 0.5), 1.5, (0.5, 3)),
        (nnx.Relu(), (-2,), 0, 0),
        (nnx.Relu(), (5,), 5, 1),
        (nnx.Relu(), (2.5,), 2.5, 1),
        (nnx.Sigmoid(), (0,), 0.5, 0.25),
        (nnx.Sigmoid(), (-1e4,), 0.0, 0.0),
    ],
)
def test_numbers_in_numbers_out(layer: Any, args: Any, y: Any, gradients: Any) -> None:
    out, got = layer.forward(*args), layer.backward(1)
    assert out == y and type(out) is type(y)
    assert got == gradients
    pairs = zip(got, gradients, strict=True) if isinstance(got, tuple) else [(got, gradients)]
    assert all(type(a) is type(b) for a, b in pairs)


@pytest.mark.parametrize(
    ("f", "x", "y"),
    [(nnx.relu, -3, 0), (nnx.relu, 3, 3), (nnx.relu, 1.5, 1.5), (nnx.sigmoid, 0, 0.5)],
)
def test_functions_on_numbers(f: Any, x: Any, y: Any) -> None:
    assert f(x) == y and type(f(x)) is type(y)


def test_functions_on_arrays() -> None:
    x = np.array([[1.0, 2.0, 3.0], [1000.0, 0.0, -1000.0]])
    e = np.exp(x[0])
    np.testing.assert_allclose(nnx.softmax(x)[0], e / e.sum(), rtol=1e-15)
    np.testing.assert_array_equal(nnx.softmax(x)[1], [1, 0, 0])
    t = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    y = nnx.softmax(x)
    expected = -np.log(y[0, 2]) / 6
    assert float(nnx.categorical_crossentropy(y, t)) == pytest.approx(expected)


def test_nodes_take_arguments_by_name_and_scalars_of_numpy() -> None:
    node = nnx.MulNode()
    assert node.forward(y=2, x=100) == 200
    assert node.backward(1) == (2, 100)
    assert (node.x, node.y) == (100, 2)
    assert float(node.forward(np.float64(2.0), 3)) == 6.0
    assert [float(g) for g in node.backward(1)] == [3.0, 2.0]


def test_nodes_broadcast() -> None:
    node, x = nnx.MulNode(), np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(node.forward(x, 1.5), 1.5 * x)
    dx, dy = node.backward(np.ones((2, 3)))
    np.testing.assert_array_equal(dx, np.full((2, 3), 1.5))
    assert float(dy) == 15.0
