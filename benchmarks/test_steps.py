"""One group per network: nnx, the naive style and the plain peers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("pytest_benchmark")

from nnx.bench.case import Case
from nnx.bench.cases import NETWORKS
from nnx.bench.columns import Column, columns

USABLE = [column for column in columns(quick=True) if not column.reason]


@pytest.mark.benchmark(max_time=0.5, warmup=True, warmup_iterations=2, disable_gc=True)
@pytest.mark.parametrize("column", USABLE, ids=lambda column: column.name)
@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.label)
def test_step(case: Case, column: Column, compare: Callable[[Case, Column], None]) -> None:
    compare(case, column)
