"""Adding at indices along any axis, entry by entry or slice by slice: as `add.at`, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nnx
from nnx.capture import capture


@st.composite
def scatters(draw: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], int, int]:
    """x, indices, size, axis: x of any layout, slices shorter and longer than 128 entries"""
    lengths = [0, 1, 3, 7, 40]
    shape = tuple(draw(st.lists(st.sampled_from(lengths), min_size=1, max_size=3)))
    axis, size = draw(st.integers(0, len(shape) - 1)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    x = rng.standard_normal(shape).astype(draw(st.sampled_from(["float32", "float64"])))
    if draw(st.booleans()):
        x = np.ascontiguousarray(x.T).T
    return x, rng.integers(0, size, shape[axis]), size, axis


@settings(
    max_examples=150, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(call=scatters())
def test_equal_to_add_at_eager_and_replayed(call: Any, backend: nnx.Backend) -> None:
    x, indices, size, axis = call
    if backend.name not in ("numpy", "numba"):
        pytest.skip("the order of additions is the library's own")
    step = capture(lambda x, i: nnx.scatter_add(x, i, size=size, axis=axis))
    for scale in (1, 2, 3):
        given = x * x.dtype.type(scale)
        expected = np.zeros((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)
        np.add.at(expected, (*[slice(None)] * axis, indices), given)
        assert np.array_equal(nnx.scatter_add(given, indices, size=size, axis=axis), expected)
        assert np.array_equal(step(given, indices), expected)
        indices = indices[::-1].copy()
