"""Every override of the cupy backend, on the stand-in: samples, layouts, what serves which op."""

from __future__ import annotations

from typing import Any

import calculus
import numpy as np
import pytest
import samples
from fake_cupy import FakeCupy
from launches import TOLERANCE, on, wide
from makers import Case
from test_ops import check_override

import nnx
from nnx.op import Op
from nnx.optim import kernels
from nnx.signature import signature
from nnx.update import Update
from nnx_cupy import CupyBackend

TABLE = CupyBackend.kernels
CASES = [c for c in samples.CASES if c.op in TABLE and c.standard]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)


def test_overrides_have_the_signatures_of_portable_kernels() -> None:
    for target, found in TABLE.items():
        if isinstance(target, Op):
            assert signature(found.forward)[:2] == target.signature[:2], target.name
            mine = {a for d in found.derivatives for a in d.arguments}
            assert mine == target.differentiable, target.name


def test_every_optimizer_has_a_kernel() -> None:
    assert {v for v in vars(kernels).values() if isinstance(v, Update)} <= TABLE.keys()


@each_case
def test_samples_agree_with_the_portable_kernels(case: Case, cupy: FakeCupy) -> None:
    check_override(case, nnx.get_backend())


@each_case
def test_samples_agree_in_float32(case: Case, cupy: FakeCupy) -> None:
    args, attrs = case.make("float32", 3)
    with nnx.use_backend("numpy"):
        douts = calculus.like(calculus.value(case.op, args, attrs))
    expected = on("numpy", case.op, wide(args), attrs, wide(douts))
    for f, e in zip(on("cupy", case.op, args, attrs, douts), expected, strict=True):
        t = TOLERANCE["float32"]
        np.testing.assert_allclose(f, e, rtol=t, atol=t)


def turned(a: Any) -> Any:
    """The same values in memory of another order."""
    if not isinstance(a, np.ndarray) or a.ndim < 2:
        return calculus.placed(a)
    back = nnx.asarray(np.ascontiguousarray(a.T))
    return nnx.permute_dims(back, tuple(reversed(range(a.ndim))))


@each_case
def test_layouts_of_memory_do_not_matter(case: Case, cupy: FakeCupy) -> None:
    args, attrs = case.make("float64", 4)
    attrs = {k: calculus.placed(v) for k, v in attrs.items()}
    y = calculus.value(case.op, args, attrs)
    douts = calculus.like(y)
    straight = calculus.gradients(
        case.op, list(map(calculus.placed, args)), attrs, list(map(calculus.placed, douts))
    )
    other = calculus.gradients(case.op, list(map(turned, args)), attrs, list(map(turned, douts)))
    for a, b in zip([*straight[0], *straight[1]], [*other[0], *other[1]], strict=True):
        np.testing.assert_allclose(b.get(), a.get(), rtol=1e-12, atol=1e-13)
