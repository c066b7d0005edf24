"""How exactly matrix products are computed: what can be set, and who is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_cupy
import numpy as np
import plugin_dirs
import pytest
from fake_cupy import FakeCupy

import nnx
from nnx.backend import load_backend
from nnx.capture import capture


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    nnx.set_matmul_precision("float32")


def test_the_default_is_full_float32() -> None:
    code = "import nnx; print(nnx.get_matmul_precision())"
    path = f"{plugin_dirs.ROOT}:{plugin_dirs.ROOT / 'backends'}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path}
    )
    assert done.stdout == "float32\n", done.stderr


@pytest.mark.parametrize("name", ["float16", "highest", "", None, 32, True])
def test_other_names_are_refused(name: Any) -> None:
    with pytest.raises(
        nnx.OptionError, match=r"set_matmul_precision\(.*\): expected one of 'float"
    ):
        nnx.set_matmul_precision(name)
    assert nnx.get_matmul_precision() == "float32"


@pytest.mark.parametrize("name", ["tf32", "bfloat16"])
@pytest.mark.parametrize("host", ["numpy", "numba"])
def test_backends_on_the_host_stay_exact(host: str, name: str) -> None:
    if not nnx.backends()[host].available:
        pytest.skip(f"{host} is not available")
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((30, 30)).astype(np.float32) for _ in range(2))
    with nnx.use_backend(host):
        exact = nnx.matmul(a, b)
        nnx.set_matmul_precision(name)
        assert nnx.get_matmul_precision() == name
        np.testing.assert_array_equal(nnx.matmul(a, b), exact)


def test_a_captured_function_has_a_plan_for_each() -> None:
    double = capture(lambda x: x * 2)
    x = nnx.Tensor(np.ones(3))
    for name in ("float32", "float32", "float32", "tf32"):
        nnx.set_matmul_precision(name)
        double(x)
    assert repr(double).endswith("1 plan>")
    double(x)
    assert repr(double).endswith("2 plans>")
    nnx.set_matmul_precision("".join(["floa", "t32"]))  # equal, and another object
    double(x)
    assert repr(double).endswith("2 plans>")


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeCupy]:
    plugin_dirs.install(tmp_path, "nnx-xp", {"cupy": "nnx_cupy:CupyBackend"})
    with plugin_dirs.fresh_process(tmp_path):
        yield fake_cupy.install(monkeypatch, FakeCupy())


def test_cupys_own_products_follow(cupy: FakeCupy) -> None:
    """CuPy's default is what CUPY_TF32 says; 1 is its full float32, 7 TF32."""
    nnx.set_matmul_precision("tf32")
    backend: Any = load_backend("cupy")  # made after it was set
    assert cupy.compute_types == {"float32": 7} and backend.matmul_precision == "tf32"
    nnx.set_matmul_precision("float32")
    assert cupy.compute_types == {"float32": 1} and backend.matmul_precision == "float32"
    nnx.set_matmul_precision("bfloat16")
    assert cupy.compute_types == {"float32": 7} and backend.matmul_precision == "bfloat16"


def test_an_older_gpu_computes_in_float32(cupy: FakeCupy) -> None:
    cupy.cuda.Device.compute_capability = "75"
    nnx.set_matmul_precision("tf32")
    backend: Any = load_backend("cupy")
    assert cupy.compute_types == {"float32": 1} and backend.matmul_precision == "float32"


def test_the_names_in_the_real_cupy() -> None:
    pytest.importorskip("cupy", reason="cupy is not installed: pip install '.[cuda12]'")
    from cupy._core import _routines_linalg as linalg

    assert (linalg.COMPUTE_TYPE_DEFAULT, linalg.COMPUTE_TYPE_TF32) == (1, 7)
    before = linalg.get_compute_type("float32")
    linalg.set_compute_type("float32", linalg.COMPUTE_TYPE_DEFAULT)
    assert linalg.get_compute_type("float32") == 1
    linalg.set_compute_type("float32", before)
