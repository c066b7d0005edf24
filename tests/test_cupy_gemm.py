"""Products through cuBLASLt: layouts from strides; a stand-in reads the descriptors alone."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
import shutil
import site
import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_cublaslt
import fake_cupy
import numpy as np
import plugin_dirs
import pytest
from fake_cupy import FakeCupy
from hypothesis import given, settings
from hypothesis import strategies as st

from nnx_cupy import gemm

LAYOUTS = ("rows", "columns", "padded rows", "padded columns", "shifted")


class Products:
    """A device, and products on it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.cupy = fake_cupy.install(patch, FakeCupy())
        self.bindings = fake_cublaslt.install(patch, self.cupy)
        self.lt = gemm.CublasLt()
        self.stream = self.cupy.cuda.Stream(non_blocking=True)

    def laid(self, values: np.ndarray[Any, Any], layout: str) -> Any:
        """An array of the device with these values, lying in memory as the layout says."""
        if layout.endswith("columns"):
            values = values.swapaxes(-1, -2)
        room = 3 if "padded" in layout else 0
        start = 1 if layout == "shifted" else 0
        shape = (*values.shape[:-1], values.shape[-1] + room + start)
        whole = self.cupy.asarray(np.full(shape, np.nan, values.dtype))
        part = whole[..., start : start + values.shape[-1]]
        part[...] = self.cupy.asarray(values)
        return part.transpose((*range(part.ndim - 2), -1, -2)) if "columns" in layout else part

    def run(self, y: Any, a: Any, b: Any, precision: str = "float32") -> bool:
        """y = a @ b; whether it could be done."""
        made = gemm.products(self.lt, y, a, b, precision)
        if made is None:
            return False
        size = max((g.workspace for g in made), default=0)
        workspace = self.cupy.asarray(np.zeros(max(size, 1), np.uint8))
        for product in made:
            product.launch(workspace.data.ptr, size, self.stream.ptr)
        self.stream.synchronize()
        return True


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Products:
    return Products(monkeypatch)


def numbers(rng: np.random.Generator, *shape: int, dtype: str = "float64") -> Any:
    return rng.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("layouts", list(itertools.product(LAYOUTS, repeat=3)), ids=", ".join)
def test_every_layout_of_factors_and_result(device: Products, layouts: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    a, b = numbers(rng, 5, 3), numbers(rng, 3, 7)
    y = device.laid(np.full((5, 7), np.nan), layouts[0])
    assert device.run(y, device.laid(a, layouts[1]), device.laid(b, layouts[2]))
    np.testing.assert_allclose(y.get(), a @ b, rtol=1e-12)


SIZES = st.integers(1, 5)


@settings(max_examples=60, deadline=None)
@given(
    SIZES, SIZES, SIZES, st.integers(0, 2**16), st.sampled_from(["float32", "float64", "float16"])
)
def test_sizes_and_dtypes(n: int, k: int, m: int, seed: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        device = Products(patch)
        a, b = numbers(rng, n, k, dtype=dtype), numbers(rng, k, m, dtype=dtype)
        layouts = rng.choice(LAYOUTS, 3)
        y = device.laid(np.full((n, m), np.nan, dtype), str(layouts[0]))
        assert device.run(
            y, *(device.laid(x, str(i)) for x, i in zip((a, b), layouts[1:], strict=True))
        )
        tolerance = {"float16": 1e-2, "float32": 1e-5, "float64": 1e-12}[dtype]
        np.testing.assert_allclose(y.get(), a.astype("f8") @ b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("a_shape", "b_shape", "calls"), [
    ((4, 5, 3), (4, 3, 7), 1),
    ((4, 5, 3), (3, 7), 1),
    ((5, 3), (4, 3, 7), 1),
    ((2, 4, 5, 3), (2, 4, 3, 7), 1),
    ((2, 1, 5, 3), (2, 4, 3, 7), 2),
    ((2, 4, 5, 3), (1, 4, 3, 7), 2),
    ((2, 4, 5, 3), (4, 3, 7), 2),
    ((2, 1, 5, 3), (1, 4, 3, 7), 2),
    ((3, 1, 1, 5, 3), (1, 2, 4, 3, 7), 3),
    ((1, 1, 5, 3), (1, 1, 3, 7), 1),
])  # fmt: skip
def test_stacks(device: Products, a_shape: Any, b_shape: Any, calls: int) -> None:
    rng = np.random.default_rng(1)
    a, b = numbers(rng, *a_shape), numbers(rng, *b_shape)
    expected = a @ b
    for turned in LAYOUTS:
        y = device.laid(np.full(expected.shape, np.nan), "rows")
        before = device.bindings.products
        assert device.run(y, device.laid(a, turned), device.laid(b, turned))
        np.testing.assert_allclose(y.get(), expected, rtol=1e-12)
        assert turned != "rows" or device.bindings.products - before == calls


def test_stacks_of_every_other_matrix(device: Products) -> None:
    rng = np.random.default_rng(2)
    a, b = numbers(rng, 6, 5, 3), numbers(rng, 6, 3, 7)
    y = device.cupy.asarray(np.full((3, 5, 7), np.nan))
    assert device.run(y, device.cupy.asarray(a)[::2], device.cupy.asarray(b)[::-2])
    np.testing.assert_allclose(y.get(), a[::2] @ b[::-2], rtol=1e-12)


@pytest.mark.parametrize("which", ["a", "b", "y"])
def test_what_cublaslt_has_no_layout_for(device: Products, which: str) -> None:
    arrays = {
        "y": device.cupy.asarray(np.zeros((5, 7))),
        "a": device.cupy.asarray(np.zeros((5, 3))),
        "b": device.cupy.asarray(np.zeros((3, 7))),
    }
    n, m = arrays[which].shape
    arrays[which] = device.cupy.asarray(np.zeros((2 * n, 2 * m)))[::2, ::2]
    assert not device.run(arrays["y"], arrays["a"], arrays["b"])


@pytest.mark.parametrize(("precision", "error"), [
    ("float32", 1e-6), ("tf32", 2e-3), ("bfloat16", 2e-2),
])  # fmt: skip
def test_precisions(device: Products, precision: str, error: float) -> None:
    rng = np.random.default_rng(3)
    a, b = numbers(rng, 50, 40, dtype="float32"), numbers(rng, 40, 30, dtype="float32")
    y = device.cupy.asarray(np.zeros((50, 30), np.float32))
    assert device.run(y, device.cupy.asarray(a), device.cupy.asarray(b), precision)
    exact = a.astype("f8") @ b
    found = np.linalg.norm(y.get() - exact) / np.linalg.norm(exact)
    assert error / 100 < found < error
    z = device.cupy.asarray(np.zeros((50, 30)))
    left, right = (device.cupy.asarray(x.astype("f8")) for x in (a, b))
    assert device.run(z, left, right, precision)  # float64 stays float64
    np.testing.assert_allclose(z.get(), exact, rtol=1e-12, atol=1e-12)


def test_descriptors_go_with_the_product(device: Products) -> None:
    arrays = [device.cupy.asarray(np.zeros(s)) for s in ((5, 7), (5, 3), (3, 7))]
    made = gemm.products(device.lt, *arrays, "float32")
    assert len(device.bindings.live) == 4 and made is not None
    del made
    assert not device.bindings.live


def test_without_nvmath(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvmath.bindings", None)
    with pytest.raises(gemm.UnavailableError, match=r"ModuleNotFoundError: .*nvmath"):
        gemm.CublasLt()


# The real bindings, which import without a driver


def test_the_stand_in_has_the_real_names_and_numbers() -> None:
    pytest.importorskip("nvmath", reason="nvmath-python is not installed: pip install '.[cuda12]'")
    lt: Any = importlib.import_module("nvmath.bindings.cublasLt")
    cublas: Any = importlib.import_module("nvmath.bindings.cublas")
    fake: Any = fake_cublaslt.CublasLt
    for name in (
        "MatmulDescAttribute", "MatrixLayoutAttribute", "MatmulPreferenceAttribute", "Epilogue",
    ):  # fmt: skip
        for member in getattr(fake, name):
            assert int(getattr(lt, name)[member.name]) == member, f"{name}.{member.name}"
    for found, getter in [
        (fake_cublaslt.DESC, lt.get_matmul_desc_attribute_dtype),
        (fake_cublaslt.LAYOUT, lt.get_matrix_layout_attribute_dtype),
        (fake_cublaslt.PREFERENCE, lt.get_matmul_preference_attribute_dtype),
    ]:
        for attribute, dtype in found.items():
            assert np.dtype(getter(attribute)) == np.dtype(dtype)
    real = np.dtype(lt.matmul_heuristic_result_dtype)
    assert real == fake_cublaslt.heuristic_dtype and real.itemsize == 96
    assert gemm.COMPUTE == {
        "float32": cublas.ComputeType.COMPUTE_32F,
        "tf32": cublas.ComputeType.COMPUTE_32F_FAST_TF32,
        "bfloat16": cublas.ComputeType.COMPUTE_32F_FAST_16BF,
    } and gemm.COMPUTE_64F == cublas.ComputeType.COMPUTE_64F  # fmt: skip


def test_the_stand_in_takes_what_the_real_functions_take() -> None:
    pytest.importorskip("nvmath", reason="nvmath-python is not installed: pip install '.[cuda12]'")
    lt: Any = importlib.import_module("nvmath.bindings.cublasLt")
    for name in (
        "matmul",
        "matmul_algo_get_heuristic",
        "matmul_desc_create",
        "matrix_layout_create",
    ):
        given = inspect.signature(getattr(fake_cublaslt.CublasLt, name)).parameters
        words = lt.__dict__[name].__doc__.split("(")[1].split(")")[0].split(",")
        assert [w.split()[-1] for w in words] == list(given)[1:], name
    for name in ("matmul_desc", "matrix_layout", "matmul_preference"):
        assert callable(getattr(lt, f"{name}_set_attribute"))
        assert callable(getattr(lt, f"{name}_destroy"))
    assert callable(lt.create) and callable(lt.matmul_preference_create)


REAL = """
import importlib, sys
from nnx_cupy import gemm
from nnx_cupy.matrices import Matrix
lt = object.__new__(gemm.CublasLt)
lt.bindings, lt.handle = importlib.import_module("nvmath.bindings.cublasLt"), 0
lt.desc, lt.layout = lt.bindings.MatmulDescAttribute, lt.bindings.MatrixLayoutAttribute
lt.preference = lt.bindings.MatmulPreferenceAttribute
for dtype, size in (("float16", 2), ("bfloat16", 2), ("float32", 4), ("float64", 8)):
    for precision in gemm.COMPUTE:
        y, a, b = (
            gemm.operand(512, dtype, size, Matrix(rows, cols, rows, turned, rows * cols), 3)
            for rows, cols, turned in ((7, 5, False), (3, 5, False), (7, 3, True))
        )
        for ending in None, gemm.Epilogue("BGRADA", 512), gemm.Epilogue("DRELU_BGRAD", 512, 1024):
            try:
                gemm.Gemm(lt, y, a, b, precision, ending)
            except gemm.UnavailableError as error:
                cause = error.__cause__
                assert isinstance(cause, lt.bindings.cuBLASLtError)
                print(cause.__traceback__.tb_frame.f_code.co_name, str(cause)[:31])
"""


def test_the_real_library_takes_the_descriptors(tmp_path: Path) -> None:
    """All but the choice of an algorithm, which asks the driver. Of that there is a stub here."""
    if shutil.which("cc") is None or importlib.util.find_spec("nvmath") is None:
        pytest.skip("no C compiler, or no nvmath-python: pip install '.[cuda13]'")
    found = [p for home in site.getsitepackages() for p in Path(home).rglob("libcublasLt.so.13")]
    if not found:
        pytest.skip("libcublasLt is not installed: pip install '.[cuda13]'")
    (tmp_path / "s.c").write_text("int cuDriverGetVersion(int *v) { *v = 13000; return 0; }")
    stub = ["cc", "-shared", "-fPIC", "-o", "libcuda.so.1", "s.c"]
    subprocess.run(stub, cwd=tmp_path, check=True)
    path = ":".join(str(plugin_dirs.ROOT / part) for part in ("", "backends"))
    libraries = f"{tmp_path}:{found[0].parent}"
    done = subprocess.run(
        [sys.executable, "-c", REAL],
        capture_output=True, text=True, env={"PYTHONPATH": path, "LD_LIBRARY_PATH": libraries},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "_choose the library was not initialized\n" * 36
