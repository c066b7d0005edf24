"""Options of `pytest benchmarks`, and what one benchmark does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nnx.bench.cases import Array, Prepared
from nnx.bench.compare import agree, columns
from nnx.bench.report import threads

COLUMNS = {column.name: column for column in columns()}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="both sizes, and forward alone")
    parser.addoption("--threads", type=int, help="threads of NumPy's BLAS and of PyTorch")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: only with --full")


def pytest_report_header() -> list[str]:
    return [f"not timed: {c.name}: {c.reason}" for c in COLUMNS.values() if c.reason]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full"):
        return
    rest = [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=rest)
    items[:] = [item for item in items if item not in rest]


@pytest.fixture(autouse=True)
def _threads(request: pytest.FixtureRequest) -> Any:
    with threads(request.config.getoption("--threads")):
        yield


@pytest.fixture
def compare(benchmark: Any) -> Callable[[str, list[Array], str, Prepared], None]:
    """Check an implementation against the expected arrays, then time it in its group."""

    def run(group: str, expected: list[Array], name: str, prepared: Prepared) -> None:
        agree(group, expected, name, prepared.values(prepared.run()))
        benchmark.group = group

        def call() -> None:
            prepared.run()
            prepared.synchronize()

        benchmark(call)

    return run
