"""One group per op, size and direction: nnx, the naive style and the plain peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("pytest_benchmark")

from nnx.bench.case import Case
from nnx.bench.cases import OpCase
from nnx.bench.columns import Column, columns
from nnx.bench.naive import LAYERS
from nnx.bench.op_table import OPS


def _parameters() -> Iterator[Any]:
    usable = [c for c in columns(quick=True) if not c.reason]
    for op, spec in OPS.items():
        for size, shape in spec.sizes.items():
            for backward in (True, False):
                marks = () if size == "small" and backward else (pytest.mark.full,)
                for column in usable:
                    if column.name != "naive" or op in LAYERS:
                        what = "both" if backward else "forward"
                        label = f"{op}-{size}-{what}-{column.name}"
                        case = OpCase(op, shape, backward)
                        yield pytest.param(case, column, id=label, marks=marks)


@pytest.mark.benchmark(max_time=0.05, warmup=True, warmup_iterations=3, disable_gc=True)
@pytest.mark.parametrize(("case", "column"), list(_parameters()))
def test_op(case: Case, column: Column, compare: Callable[[Case, Column], None]) -> None:
    compare(case, column)
