"""One group per op, size and direction: every backend, the naive style and PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("pytest_benchmark")

from nnx.backend import load_backend
from nnx.bench import naive, nnx_cases
from nnx.bench.cases import OPS, SIZES, op_inputs
from nnx.bench.compare import columns


def _parameters() -> Iterator[Any]:
    usable = [c for c in columns() if not c.reason and c.op is not None]
    for case in OPS.values():
        for size in SIZES:
            for backward in (True, False):
                marks = () if size == "small" and backward else (pytest.mark.full,)
                for column in usable:
                    if column.name != "naive" or case.op in naive.LAYERS:
                        what = "both" if backward else "forward"
                        label = f"{case.op}-{size}-{what}-{column.name}"
                        yield pytest.param(case, size, backward, column, id=label, marks=marks)


@pytest.mark.benchmark(max_time=0.05, warmup=True, warmup_iterations=3, disable_gc=True)
@pytest.mark.parametrize(("case", "size", "backward", "column"), list(_parameters()))
def test_op(
    case: Any, size: str, backward: bool, column: Any, compare: Callable[..., None]
) -> None:
    inputs = op_inputs(case, size)
    reference = nnx_cases.op(load_backend("numpy"), case, inputs, backward)
    group = f"{case.op} {size} {'forward+backward' if backward else 'forward'}"
    expected = reference.values(reference.run())
    compare(group, expected, column.name, column.op(case, op_inputs(case, size), backward))
