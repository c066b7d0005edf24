"""Kernels of the cupy backend as a replay calls them: into arrays that are there already."""

from __future__ import annotations

from typing import Any

import calculus
import numpy as np
import pytest
import samples
from fake_cupy import FakeCupy
from launches import on, wide
from makers import Case
from raw_module import poisoned

import nnx
from nnx.calls import Calls
from nnx_cupy import CupyBackend

CASES = [c for c in samples.CASES if c.op in CupyBackend.kernels and c.standard]


def arrays(cupy: FakeCupy, made: Any) -> list[Any]:
    """In the order in which a recording finds them."""
    if isinstance(made, dict):
        made = tuple(made.values())
    if isinstance(made, tuple):
        return [a for part in made for a in arrays(cupy, part)]
    return [made] if isinstance(made, cupy.ndarray) else []


@pytest.fixture
def twice(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each kernel runs, its results are lost, and made anew by the calls noted for a replay."""
    once, names = Calls.__call__, list[str]()

    def called(self: Calls, xp: Any, *args: Any, **attrs: Any) -> Any:
        made = once(self, xp, *args, **attrs)
        results = arrays(cupy, made)
        runs = self.again(results, cupy.empty, args, attrs) if results else None
        if runs is None:  # the portable kernel ran, or NumPy's
            return made
        for a in results:
            a.host[...] = poisoned(a.shape, a.dtype)
        for f, given, options in runs:
            f(*given, **options)
        names.append(self.__name__)
        return made

    monkeypatch.setattr(Calls, "__call__", called)
    return names


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_samples(case: Case, cupy: FakeCupy, twice: list[str]) -> None:
    args, attrs = case.make("float64", 6)
    with nnx.use_backend("numpy"):
        douts = calculus.like(calculus.value(case.op, args, attrs))
    expected = on("numpy", case.op, wide(args), attrs, wide(douts))
    cupy.launched.clear()
    found = on("cupy", case.op, args, attrs, douts)
    assert twice or not cupy.launched
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-12, atol=1e-12)
