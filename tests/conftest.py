"""The suite on any backend: `pytest --backend=NAME`; with a GPU it runs on cupy too."""

from __future__ import annotations

from collections.abc import Iterator

import nnx
import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend", default="numpy", metavar="NAME", help="the backend that the suite runs on"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs a CUDA GPU and cupy")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`backend` is the one asked for; with none asked for, cupy joins numpy where it can run."""
    if "backend" not in metafunc.fixturenames:
        return
    name = metafunc.config.getoption("--backend")
    names = [pytest.param(name, id=name)]
    if name == "numpy" and _cupy_runs():
        names.append(pytest.param("cupy", id="cupy", marks=pytest.mark.gpu))
    metafunc.parametrize("backend", names, indirect=True)


def _cupy_runs() -> bool:
    info = nnx.backends().get("cupy")
    return info is not None and info.available


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[nnx.Backend]:
    """The backend under test, current for the test."""
    with nnx.use_backend(request.param) as current:
        yield current
