"""Every op that `nnx bench` knows, eager and replayed on cupy, against NumPy: on a stand-in, and
on a GPU where there is one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cupy_tools import repeated

import nnx
from nnx.bench import nnx_cases
from nnx.bench.cases import LeNetCase, NetworkCase, OpCase
from nnx.bench.op_table import IMAGE_SIZES, OPS


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("name", OPS)
def test_an_op(device: Any, name: str, backward: bool) -> None:
    if backward and not OPS[name].smooth:
        pytest.skip("has no derivative")
    shape = (2, 8) if OPS[name].sizes is IMAGE_SIZES else (5, 8)
    case = OpCase(name, shape, backward)
    expected = values(nnx_cases.prepare("numpy", False, case), 1)
    for replay in (False, True):
        for found in values(nnx_cases.prepare("cupy", replay, case), 4):
            for a, b in zip(found, expected[0], strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", [
    NetworkCase((64, 32, 10), 1, "sgd"), NetworkCase((64, 32, 10), 32, "adam"),
    NetworkCase((64, 32, 10), 32), LeNetCase(4),
], ids=lambda case: case.label)  # fmt: skip
def test_a_step(device: Any, case: Any) -> None:
    expected = values(nnx_cases.prepare("numpy", False, case), 12)
    for replay in (False, True):
        found = values(nnx_cases.prepare("cupy", replay, case), 12)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a[0], b[0], rtol=1e-3, atol=1e-5)
    nnx.get_backend().synchronize()


@pytest.mark.parametrize("shapes", [
    ((3, 4), (4, 5)), ((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,)), ((2, 3, 4), (4, 5)),
    ((2, 1, 3, 4), (5, 4, 2)), ((2, 3, 4), (4,)), ((4,), (2, 4, 3)), ((3, 0), (0, 5)),
    ((0, 4), (4, 5)),
])  # fmt: skip
@pytest.mark.parametrize("strides", ["plain", "turned", "every other"])
def test_products(device: Any, shapes: Any, strides: str) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s) for s in shapes)

    def product(a: Any, b: Any) -> Any:
        a, b = nnx.Tensor(a), nnx.Tensor(b)
        if strides == "turned" and a.ndim > 1:
            a = nnx.matrix_transpose(nnx.exp(nnx.matrix_transpose(a)))
        if strides == "every other":
            a, b = (nnx.concat(x, x, axis=0)[::2] for x in (a, b)) if a.ndim == 1 else (a, b)
        return nnx.matmul(a, b)

    repeated(product, a, b)


def values(p: Any, calls: int) -> list[list[np.ndarray[Any, Any]]]:
    return [p.values(p.run()) for _ in range(calls)]
