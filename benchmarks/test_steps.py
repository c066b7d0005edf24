"""One group per training step: every backend, the naive style and PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("pytest_benchmark")

from nnx.backend import load_backend
from nnx.bench import nnx_cases
from nnx.bench.cases import STEPS, step_inputs
from nnx.bench.compare import columns

USABLE = [column for column in columns() if not column.reason]


@pytest.mark.benchmark(max_time=0.5, warmup=True, warmup_iterations=2, disable_gc=True)
@pytest.mark.parametrize("column", USABLE, ids=lambda column: column.name)
@pytest.mark.parametrize("case", STEPS, ids=lambda case: f"{case.name}, batch {case.batch}")
def test_step(case: Any, column: Any, compare: Callable[..., None]) -> None:
    inputs = step_inputs(case)
    reference = nnx_cases.step(load_backend("numpy"), case, inputs)
    expected = reference.values(reference.run())
    compare(f"{case.name}, batch {case.batch}", expected, column.name, column.step(case, inputs))
