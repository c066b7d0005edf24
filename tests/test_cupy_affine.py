"""nnx.affine on cupy, eager and replayed: on a stand-in, and on a GPU where there is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cupy_tools import host

import nnx
from nnx.capture import capture


@pytest.mark.parametrize("laid", ["columns", "every other", "turned", "none"])
def test_affine_of_what_no_kernel_of_ours_takes(device: Any, laid: str) -> None:
    """Products take strides that the kernels beside them do not."""
    rng = np.random.default_rng(0)
    W, b = (nnx.asarray(rng.standard_normal(s).astype(np.float32)) for s in ((3, 4), 8))
    views = {
        "columns": (..., slice(0, 3)), "every other": (..., slice(None, None, 2)),
        "turned": (..., slice(2, None, -1)), "none": (slice(0, 0), ..., slice(0, 3)),
    }  # fmt: skip

    def step(x: Any) -> Any:
        x, w, c = nnx.Tensor(x)[views[laid]], nnx.Tensor(W), nnx.Tensor(b)[::2]
        return nnx.grad(lambda x, w, c: nnx.sum(nnx.affine(x, w, c) ** 2), (0, 1, 2))(x, w, c)

    for shape in ((2, 5), (2, 6, 5)):
        called = capture(step)
        for i in range(5):
            x = nnx.asarray(rng.standard_normal(shape).astype(np.float32) + i)
            expected, found = step(x), called(x)
            for a, e in zip(found, expected, strict=True):
                np.testing.assert_allclose(host(a), host(e), rtol=1e-4, atol=1e-4)
        assert "one CUDA graph" in called.plan().code
