"""Options of `pytest benchmarks`, and what one benchmark does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nnx
from nnx.bench.case import Case
from nnx.bench.columns import Column, columns, implementation
from nnx.bench.rounds import agree
from nnx.bench.worker import check

COLUMNS = columns(quick=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="both sizes, and forward alone")
    parser.addoption("--threads", type=int, help="threads of nnx and of PyTorch")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: only with --full")


def pytest_report_header() -> list[str]:
    return [f"not timed: {c.name}: {c.reason}" for c in COLUMNS if c.reason]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full"):
        return
    rest = [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=rest)
    items[:] = [item for item in items if item not in rest]


@pytest.fixture(autouse=True)
def _backend() -> Iterator[None]:
    yield
    nnx.set_backend("numpy")


@pytest.fixture
def compare(benchmark: Any, request: pytest.FixtureRequest) -> Callable[[Case, Column], None]:
    """Check an implementation against nnx on NumPy, then time it in its case's group."""
    limit = request.config.getoption("--threads")

    def run(case: Case, column: Column) -> None:
        reference = implementation("numpy").prepare(case)
        assert reference is not None
        expected = check(reference)
        made = implementation(column.name)
        if limit is not None:
            made.set_threads(limit)
        prepared = made.prepare(case)
        if prepared is None:
            pytest.skip(f"{column.name} has no {case.label}")
        agree(case, "numpy", expected, column.name, check(prepared))
        benchmark.group = case.label

        def call() -> None:
            prepared.run()
            prepared.synchronize()

        benchmark(call)

    return run
