"""Shapes and values of any call are NumPy's; every gradient has its argument's shape."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import nnx

SETTINGS = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,  # the same examples in every run
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
some_axes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)


def array(shape: tuple[int, ...]) -> Any:
    return np.arange(math.prod(shape), dtype="float64").reshape(shape) + 1


def check(f: Any, expected: Any, *arrays: Any) -> None:
    """Values are NumPy's, and each gradient has its argument's shape."""
    tensors = [nnx.Tensor(nnx.asarray(a.copy()), requires_grad=True) for a in arrays]
    y = f(*tensors)
    assert tuple(y.shape) == expected.shape
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12)
    y.backward(nnx.asarray(np.ones(expected.shape)))
    for t, a in zip(tensors, arrays, strict=True):
        assert tuple(t.grad.shape) == a.shape


@SETTINGS
@given(
    pair=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=3),
    name=st.sampled_from(["add", "subtract", "multiply", "divide", "maximum", "minimum"]),
)
def test_broadcasting(pair: Any, name: str, backend: nnx.Backend) -> None:
    a, b = (array(s) for s in pair.input_shapes)
    check(getattr(nnx, name), np.asarray(getattr(np, name)(a, b)), a, b)


@SETTINGS
@given(pair=hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, min_side=0, max_side=3))
def test_where_broadcasts_three(pair: Any, backend: nnx.Backend) -> None:
    c, a, b = (array(s) for s in pair.input_shapes)
    condition = nnx.asarray(c % 2 == 0)
    check(lambda a, b: nnx.where(condition, a, b), np.where(c % 2 == 0, a, b), a, b)


@SETTINGS
@given(a=some_axes, b=some_axes)
def test_what_numpy_cannot_broadcast_is_a_shape_error(a: Any, b: Any, backend: nnx.Backend) -> None:
    try:
        np.broadcast_shapes(a, b)
    except ValueError:
        with pytest.raises(nnx.ShapeError, match=r"^add\(x1: .* float64, x2: .* float64\): "):
            nnx.add(nnx.asarray(array(a)), nnx.asarray(array(b)))


@st.composite
def shape_and_axis(draw: Any, minimum: int = 0, several: bool = True) -> Any:
    """A shape and some of its axes, as an int, a tuple (negative ones too) or None."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=minimum, max_side=4))
    one = st.integers(-len(shape), len(shape) - 1)
    kinds = [one]
    if several:
        many = st.lists(one, min_size=1, unique_by=lambda a: a % len(shape)).map(tuple)
        kinds += [many, st.none()]
    return shape, draw(st.one_of(kinds))


@SETTINGS
@given(case=shape_and_axis(), keepdims=st.booleans())
def test_sum(case: Any, keepdims: bool, backend: nnx.Backend) -> None:
    shape, axis = case
    a = array(shape)
    expected = np.asarray(np.sum(a, axis=axis, keepdims=keepdims))
    check(lambda x: nnx.sum(x, axis=axis, keepdims=keepdims), expected, a)


@SETTINGS
@given(case=shape_and_axis(minimum=1), keepdims=st.booleans(),
       name=st.sampled_from(["mean", "max", "min", "var"]))  # fmt: skip
def test_reductions(case: Any, keepdims: bool, name: str, backend: nnx.Backend) -> None:
    shape, axis = case
    a = array(shape)
    expected = np.asarray(getattr(np, name)(a, axis=axis, keepdims=keepdims))
    check(lambda x: getattr(nnx, name)(x, axis=axis, keepdims=keepdims), expected, a)


@st.composite
def two_shapes_of_one_size(draw: Any) -> Any:
    factors = draw(st.lists(st.sampled_from([0, 1, 2, 3]), max_size=4))
    cut = draw(st.integers(0, len(factors)))
    mixed = draw(st.permutations(factors))
    new = [*mixed[:cut], math.prod(mixed[cut:])]
    if math.prod(new) and draw(st.booleans()):
        new[draw(st.integers(0, len(new) - 1))] = -1
    return tuple(factors), tuple(new)


@SETTINGS
@given(case=two_shapes_of_one_size())
def test_reshape(case: Any, backend: nnx.Backend) -> None:
    a = array(case[0])
    check(lambda x: nnx.reshape(x, case[1]), a.reshape(case[1]), a)


@SETTINGS
@given(shape=shapes, data=st.data())
def test_permute_dims(shape: Any, data: Any, backend: nnx.Backend) -> None:
    n = len(shape)
    axes = tuple(a - n * data.draw(st.booleans()) for a in data.draw(st.permutations(range(n))))
    a = array(shape)
    check(lambda x: nnx.permute_dims(x, axes), np.transpose(a, axes), a)


@SETTINGS
@given(
    case=shape_and_axis(several=False),
    lengths=st.lists(st.integers(0, 3), min_size=1, max_size=4),
)
def test_concat_and_split(case: Any, lengths: Any, backend: nnx.Backend) -> None:
    """Each is the other's inverse, and NumPy's."""
    shape, axis = case
    before, after = shape[: axis % len(shape)], shape[axis % len(shape) + 1 :]
    parts = [array((*before, n, *after)) for n in lengths]
    whole = np.concatenate(parts, axis)
    check(lambda *xs: nnx.concat(*xs, axis=axis), whole, *parts)
    for i, part in enumerate(parts):
        check(lambda x, i=i: nnx.split(x, tuple(lengths), axis=axis)[i], part, whole)


@SETTINGS
@given(case=shape_and_axis(several=False), count=st.integers(1, 3))
def test_stack(case: Any, count: int, backend: nnx.Backend) -> None:
    shape, axis = case
    parts = [array(shape) * (i + 1) for i in range(count)]
    check(lambda *xs: nnx.stack(xs, axis=axis), np.stack(parts, axis), *parts)


@SETTINGS
@given(shape=some_axes, data=st.data())
def test_getitem(shape: Any, data: Any, backend: nnx.Backend) -> None:
    """Ints, slices in their bounds, None and an Ellipsis: what the standard has."""
    index = data.draw(hnp.basic_indices(shape, allow_newaxis=True, max_dims=5))
    a = array(shape)
    try:
        check(lambda x: x[index], np.asarray(a[index]), a)
    except nnx.ShapeError:
        assert backend.name == "strict"  # a library may refuse bounds beyond the axis


@SETTINGS
@given(shape=hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=4), data=st.data())
def test_getitem_with_arrays_of_ints(shape: Any, data: Any, backend: nnx.Backend) -> None:
    result = hnp.array_shapes(max_dims=2, max_side=4)
    index = data.draw(hnp.integer_array_indices(shape, result_shape=result))
    a = array(shape)
    placed = tuple(nnx.asarray(i) for i in index)
    check(lambda x: x[placed], a[index], a)


@SETTINGS
@given(case=shape_and_axis(minimum=1, several=False), wanted=shapes, data=st.data())
def test_take(case: Any, wanted: Any, data: Any, backend: nnx.Backend) -> None:
    shape, axis = case
    ids = data.draw(hnp.arrays("int64", wanted, elements=st.integers(0, shape[axis] - 1)))
    a = array(shape)
    check(lambda x: nnx.take(x, nnx.asarray(ids), axis=axis), np.take(a, ids, axis), a)


@SETTINGS
@given(
    pair=hnp.mutually_broadcastable_shapes(
        signature=np.matmul.signature, max_dims=2, min_side=0, max_side=3
    )
)
def test_matmul(pair: Any, backend: nnx.Backend) -> None:
    a, b = (array(s) for s in pair.input_shapes)
    check(nnx.matmul, np.asarray(a @ b), a, b)


@SETTINGS
@given(a=some_axes, b=some_axes)
def test_matmul_says_which_axes_differ(a: Any, b: Any, backend: nnx.Backend) -> None:
    if a[-1] != b[-min(2, len(b))]:
        with pytest.raises(nnx.ShapeError) as caught:
            nnx.matmul(nnx.asarray(array(a)), nnx.asarray(array(b)))
        assert str(caught.value).startswith(
            f"matmul: x1 has shape {a}, x2 {b}; the last axis of x1 ({a[-1]}) must be as long as"
        )


@SETTINGS
@given(shape=shapes, lead=st.lists(st.integers(0, 3), max_size=2), data=st.data())
def test_broadcast_to(shape: Any, lead: Any, data: Any, backend: nnx.Backend) -> None:
    narrow = tuple(1 if data.draw(st.booleans()) else n for n in shape)
    a, target = array(narrow), (*lead, *shape)
    check(lambda x: nnx.broadcast_to(x, target), np.broadcast_to(a, target), a)
