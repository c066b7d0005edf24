"""Tensors: operators, conversions, mixing, moving, copying; what goes wrong says how to fix it."""

from __future__ import annotations

import copy
import operator
import pickle

import numpy as np
import pytest
from leaves import leaf, message, values

import nnx
from nnx import Parameter, Tensor

# Operators


BINARY = ("add", "sub", "mul", "truediv", "pow", "matmul", "lt", "le", "gt", "ge", "eq", "ne")


@pytest.mark.parametrize("name", BINARY)
def test_operators_are_numpys(name: str, backend: nnx.Backend) -> None:
    f = getattr(operator, name)
    a, b = np.array([[1.0, 2.0], [3.0, 0.5]]), np.array([[2.0, 2.0], [1.0, 4.0]])
    for other in (b,) if name == "matmul" else (b, 2.0):
        y = f(leaf(a), leaf(other) if isinstance(other, np.ndarray) else other)
        np.testing.assert_allclose(y.numpy(), f(a, other), rtol=1e-15)
        assert backend.dtype_name(y.data) == ("bool" if name in BINARY[6:] else "float64")
    for left in () if name == "matmul" else (3.0, 2):
        np.testing.assert_allclose(f(left, leaf(b)).numpy(), f(left, b), rtol=1e-15)


def test_unary_operators_and_methods(backend: nnx.Backend) -> None:
    a = np.array([[1.0, -2.0, 3.0], [4.0, 0.5, -6.0]])
    t = leaf(a)
    for ours, theirs in (
        (-t, -a), (+t, a), (abs(t), abs(a)), (t.T, a.T), (t[1], a[1]), (t[:, ::2], a[:, ::2]),
        (t.sum(0), a.sum(0)), (t.mean(axis=1, keepdims=True), a.mean(1, keepdims=True)),
        (t.max(), a.max()), (t.min(axis=-1), a.min(-1)), (t.reshape(3, 2), a.reshape(3, 2)),
        (t.reshape((6,)), a.reshape(6)), (t.reshape(-1), a.reshape(-1)), (~(t > 0), ~(a > 0)),
        ((t > 0) & (t < 2), (a > 0) & (a < 2)), ((t > 3) | (t < 0), (a > 3) | (a < 0)),
    ):  # fmt: skip
        np.testing.assert_array_equal(ours.numpy(), theirs)
    assert backend.dtype_name(t.astype("float32").data) == "float32"
    assert [r.numpy().tolist() for r in t] == a.tolist() and len(t) == 2


def test_numpys_arrays_and_scalars_from_the_left() -> None:
    a = np.array([1.0, 2.0])
    t = leaf([3.0, 4.0])
    y = a * t
    assert isinstance(y, Tensor) and values(y) == [3.0, 8.0]
    assert values(a - t) == [-2.0, -2.0] and values(a @ t) == 11.0
    assert isinstance(np.float64(2) * t, Tensor) and values(np.float64(2) ** t) == [8.0, 16.0]


def test_numpy_scalars_are_weak(backend: nnx.Backend) -> None:
    """They count as Python numbers: a float64 scalar does not widen float32."""
    t = leaf([3.0, 4.0], "float32")
    two = np.float64(2)
    for y in (t * two, two * t, t * np.int64(2), nnx.multiply(t, np.float32(2))):
        assert backend.dtype_name(y.data) == "float32" and values(y) == [6.0, 8.0]
    x = nnx.asarray(np.array([3.0, 4.0], "float32"))
    assert backend.dtype_name(nnx.multiply(x, np.float64(2))) == "float32"


def test_tensors_as_dict_keys() -> None:
    a, b = leaf([1.0]), leaf([1.0])
    assert {a: 1, b: 2}[a] == 1


# Conversions


def test_to_python(backend: nnx.Backend) -> None:
    t = leaf([[2.5]])
    assert (float(t), int(t), bool(t), t.item()) == (2.5, 2, True, 2.5)
    assert (t.shape, t.ndim, t.size, t.is_leaf) == ((1, 1), 2, 1, True)
    assert t.backend is backend
    one = "item() needs one element, the shape is "
    assert message(nnx.ShapeError, float, leaf([1.0, 2.0])) == one + "(2,)"
    assert message(nnx.ShapeError, bool, leaf([])) == one + "(0,)"
    assert message(nnx.ShapeError, len, leaf(1.0)) == "a 0-d Tensor has no length"


def test_lists_become_float32(backend: nnx.Backend) -> None:
    assert backend.dtype_name(Tensor([1.0, 2.0]).data) == "float32"
    assert backend.dtype_name(Tensor([1.0, 2.0], dtype="float64").data) == "float64"


def test_data_is_shared_and_assignment_writes_into_it() -> None:
    a = np.array([1.0, 2.0])
    p = Parameter(a)
    assert p.data is a
    p.data = np.array([5.0, 6.0])
    assert a.tolist() == [5.0, 6.0]
    assert message(nnx.ShapeError, setattr, p, "data", np.ones(3)) == (
        "data is (2,) float64, the new value is (3,) float64; they must agree"
    )
    assert message(nnx.StateError, setattr, p * 2, "data", np.ones(2)) == (
        "data of a computed Tensor cannot change; write t.detach() first"
    )


def test_ints_cannot_require_a_gradient(backend: nnx.Backend) -> None:
    ids = nnx.asarray(np.array([1, 2]))
    assert message(nnx.DtypeError, Tensor, ids, requires_grad=True) == (
        "requires_grad needs a float dtype, got int64; write nnx.Tensor(data, requires_grad=True, "
        "dtype='float32')"
    )
    assert not Tensor(ids).requires_grad


# Mixing


def test_float_widths_do_not_mix(backend: nnx.Backend) -> None:
    a, b = leaf([1.0], "float32"), leaf([1.0], "float64")
    expected = (
        "multiply: x1 is float32, x2 is float64; nothing is promoted silently. Cast the data "
        "with nnx.asarray(x1, 'float64'), or the model with model.astype('float32')"
    )
    assert message(nnx.DtypeError, operator.mul, a, b) == expected
    assert message(nnx.DtypeError, nnx.multiply, a.data, b.data) == expected
    assert "xs[0] is float32, xs[1] is float64" in message(nnx.DtypeError, nnx.concat, a, b)
    t = nnx.asarray(np.ones(1))
    assert "y is float32, t is float64" in message(nnx.DtypeError, nnx.mean_squared_error, a, t)


def test_backends_do_not_mix(strict: str) -> None:
    a, b = leaf([1.0]), Tensor(nnx.asarray(np.ones(1), backend=strict))
    expected = (
        "add: argument 'x2' is an array of backend 'strict', the others are of 'numpy'. Nothing "
        "moves silently: bring all to one of the two, arrays with "
        "nnx.asarray(array, backend=NAME), a model with model.to(NAME)"
    )
    assert message(nnx.MixedBackendsError, operator.add, a, b) == expected


def test_shapes_that_do_not_fit_name_the_arguments(backend: nnx.Backend) -> None:
    a, b = leaf([1.0, 2.0]), leaf([1.0, 2.0, 3.0])
    assert message(nnx.ShapeError, operator.add, a, b).startswith(
        "add(x1: (2,) float64, x2: (3,) float64): "
    )


def test_what_no_backend_computes_on(backend: nnx.Backend) -> None:
    assert message(nnx.DtypeError, nnx.relu, [1.0, 2.0]) == (
        "relu: argument 'x': no installed backend computes on builtins.list; convert it with "
        "nnx.asarray(...) (nnx.backends() lists what is installed)"
    )


def test_unknown_attributes_are_named(backend: nnx.Backend) -> None:
    with pytest.raises(TypeError) as caught:
        nnx.softmax(leaf([1.0]), dim=0)
    assert str(caught.value) == "softmax() got an unexpected argument 'dim'; it takes x, axis"


def test_a_mask_is_to_become_a_float(backend: nnx.Backend) -> None:
    x = leaf([1.0, 2.0])
    assert message(nnx.DtypeError, operator.mul, x, x > 1) == (
        "multiply: x1 is float64, x2 is bool; nothing is promoted silently. Cast the data with "
        "nnx.asarray(x2, 'float64')"
    )


def test_lists_are_named(backend: nnx.Backend) -> None:
    assert message(nnx.DtypeError, nnx.softmax_cross_entropy, leaf([[1.0, 2.0]]), [0]).startswith(
        "softmax_cross_entropy: argument 't': no installed backend computes on builtins.list"
    )


def test_indexing_by_tensors_of_ids() -> None:
    x, ids = leaf([[1.0, 2.0], [3.0, 4.0]]), Tensor(np.array([1, 1]))
    for y in (x[ids], x[ids, :], x[(ids, ids)]):
        y.sum().backward()
    assert values(x.grad) == [[0.0, 0.0], [4.0, 6.0]]


# Moving


def test_to_another_backend_and_back(strict: str) -> None:
    """The gradient flows back across, and is of the leaf's backend."""
    x = leaf([1.0, -2.0])
    y = (x * 3).to(strict)
    assert y.backend.name == "strict" and y.requires_grad
    z = nnx.sum(nnx.relu(y) * y).to("numpy")
    assert z.backend.name == "numpy"
    z.backward()
    assert isinstance(x.grad, np.ndarray) and values(x.grad) == [18.0, 0.0]


def test_second_derivatives_across_backends(strict: str) -> None:
    x = leaf([2.0])
    g = nnx.grad(lambda x: nnx.sum((x * x * x).to(strict) * 1.0).to("numpy"))(x)
    g.sum().backward()
    assert values(x.grad) == [12.0]


def test_to_where_it_is_already(backend: nnx.Backend) -> None:
    x = leaf([1.0])
    assert x.to(backend.name) is x


def test_moving_without_a_gradient(strict: str) -> None:
    t = Tensor(np.ones(2)).to(strict)
    assert t.backend.name == "strict" and not t.requires_grad and t.is_leaf


# Copying


def test_pickle_keeps_values_kind_and_requires_grad(backend: nnx.Backend) -> None:
    for t in (leaf([1.0, 2.0]), Tensor([1.0, 2.0]), Parameter([1.0], requires_grad=False)):
        again = pickle.loads(pickle.dumps(t))
        assert type(again) is type(t) and again.requires_grad == t.requires_grad
        assert again.backend is backend and again.dtype == t.dtype and values(again) == values(t)


def test_deepcopy_has_its_own_memory_and_identity() -> None:
    p = Parameter(np.array([1.0, 2.0]))
    (p * 2).sum().backward()
    q, r = copy.deepcopy([p, p])
    assert q is r and type(q) is Parameter and q.grad is None
    assert values(q) == values(p) and not np.shares_memory(q.data, p.data)
    assert message(nnx.StateError, copy.deepcopy, p * 2) == (
        "only a leaf Tensor can be copied; write t.detach() first"
    )


def test_repr_shows_values_and_backend() -> None:
    assert repr(leaf([1.0])) == "Tensor(array([1.]), backend='numpy', requires_grad=True)"
    assert repr(Parameter(np.ones(1)).detach()) == "Tensor(array([1.]), backend='numpy')"
