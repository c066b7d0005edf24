"""What set_backend("cupy") says where CuPy or the GPU is missing: against a stand-in for cupy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fake_cupy
import plugin_dirs
import pytest
from fake_cupy import FakeCupy

import nnx

Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def registered(tmp_path: Path) -> Iterator[None]:
    """The entry point, as the installed distribution has it, and nothing loaded."""
    plugin_dirs.install(tmp_path, "nnx-xp", {"cupy": "nnx_cupy:CupyBackend"})
    with plugin_dirs.fresh_process(tmp_path):
        yield


@pytest.fixture
def cupy(monkeypatch: Patch) -> FakeCupy:
    return fake_cupy.install(monkeypatch, FakeCupy())


def message(name: str = "cupy") -> str:
    with pytest.raises(nnx.BackendError) as caught:
        nnx.set_backend(name)
    assert nnx.get_backend().name == "numpy", "the previous backend must stay"
    return f"{type(caught.value).__name__}: {caught.value}"


def test_importing_the_package_does_not_import_cupy() -> None:
    code = "import sys, nnx, nnx_cupy; print([m for m in sys.modules if m.startswith('cupy')])"
    path = os.pathsep.join(map(str, (plugin_dirs.ROOT, plugin_dirs.ROOT / "backends")))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.stdout == "[]\n", done.stderr


def test_cupy_missing(monkeypatch: Patch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert message() == (
        "BackendPackageError: the backend 'cupy' needs the package cupy, which is not installed; "
        "from nnx's checkout: pip install '.[cuda12]' (or '.[cuda13]', as the driver is)"
    )
    found = nnx.backends()["cupy"]
    assert not found.available and "pip install '.[cuda12]'" in found.reason
    assert nnx.backends()["numpy"].available


def test_cupy_that_fails_to_import(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    (tmp_path / "cupy.py").write_text("raise ImportError('libcublas.so.12: cannot open')")
    assert "cupy fails to import: libcublas.so.12: cannot open; reinstall it" in message()


def test_a_package_that_cupy_needs_is_missing(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    (tmp_path / "cupy.py").write_text("import cuda_pathfinder_that_is_not_there")
    assert "cupy fails to import: No module named 'cuda_pathfinder_that_is_not_there'" in message()


def test_no_driver(monkeypatch: Patch) -> None:
    fake_cupy.install(monkeypatch, FakeCupy(devices=0))
    text = message()
    assert text.startswith("DeviceError: cupy is installed but finds no usable NVIDIA GPU (cuda")
    assert "nvidia-smi" in text and "nnx.set_backend('numpy') computes on the CPU" in text


def test_index_out_of_range(cupy: FakeCupy) -> None:
    assert message("cupy:2").startswith(
        "DeviceError: cupy has no device 2: the devices are 'cupy:0' and 'cupy:1'"
    )


@pytest.mark.parametrize("device", ["gpu", "-1", "1.5", "²"])
def test_a_device_that_is_not_a_number(cupy: FakeCupy, device: str) -> None:
    assert f"cupy has no device {device!r}: expected its number" in message(f"cupy:{device}")


def test_nvrtc_or_headers_missing(monkeypatch: Patch) -> None:
    error = RuntimeError('Failure finding "libnvrtc.so.12"\nand more')
    fake_cupy.install(monkeypatch, FakeCupy(broken=error))
    assert message() == (
        "BackendPackageError: cupy cannot compile kernels (RuntimeError: Failure finding "
        '"libnvrtc.so.12"); most likely NVRTC or the headers of CUDA 12 are missing: '
        "pip install 'cupy-cuda12x[ctk]'"
    )


@pytest.mark.parametrize("error", [fake_cupy.CUDARuntimeError("busy"), MemoryError("out of it")])
def test_a_device_that_refuses(monkeypatch: Patch, error: Exception) -> None:
    fake_cupy.install(monkeypatch, FakeCupy(broken=error))
    assert message() == f"DeviceError: the GPU refuses to compute: {error}"
