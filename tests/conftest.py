"""The suite on any backend: `pytest --backend=NAME`; with a GPU it runs on cupy too."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_cublaslt
import fake_cupy
import plugin_dirs
import pytest

import nnx


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend", default="numpy", metavar="NAME", help="the backend that the suite runs on"
    )


def pytest_configure() -> None:
    """Ctrl-C works, also in tests that a shell runs in the background and lets ignore it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[str]:
    """The name of a second backend: the example plugin, installed for this test if it is not."""
    if importlib.util.find_spec("array_api_strict") is None:
        pytest.skip("array-api-strict is not installed")
    if "strict" in nnx.backends():
        yield "strict"
        return
    plugin_dirs.install(tmp_path, "nnx-strict", {"strict": "nnx_strict:StrictBackend"})
    with plugin_dirs.fresh_process(tmp_path), pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(plugin_dirs.ROOT / "examples" / "strict_backend")
        yield "strict"


@pytest.fixture(scope="module")
def numba_installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The entry point of numba, as the installed distribution has it."""
    site = tmp_path_factory.mktemp("site")
    plugin_dirs.install(site, "nnx-xp", {"numba": "nnx_numba:NumbaBackend"})
    with plugin_dirs.fresh_process(site):
        yield


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_cupy.FakeCupy]:
    """Stand-ins for cupy and nvmath, and the backend `cupy` on them, current."""
    plugin_dirs.install(tmp_path, "nnx-xp", {"cupy": "nnx_cupy:CupyBackend"})
    made = fake_cupy.install(monkeypatch, fake_cupy.FakeCupy())
    fake_cublaslt.install(monkeypatch, made)
    with plugin_dirs.fresh_process(tmp_path):
        nnx.set_backend("cupy")
        yield made


@pytest.fixture(params=["stand-in", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """The module cupy, with the backend `cupy` current: a stand-in; a GPU where there is one."""
    if request.param == "stand-in":
        yield request.getfixturevalue("standin")
        return
    cupy = pytest.importorskip("cupy", reason="cupy is not installed: pip install '.[cuda12]'")
    if not cupy.cuda.is_available():
        pytest.skip("no NVIDIA GPU here")
    plugin_dirs.install(tmp_path, "nnx-xp", {"cupy": "nnx_cupy:CupyBackend"})
    with plugin_dirs.fresh_process(tmp_path):
        nnx.set_backend("cupy")
        yield cupy
