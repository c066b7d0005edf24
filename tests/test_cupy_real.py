"""The names that kernels use in a real CuPy, which imports without a driver; and a GPU if any."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import calculus
import numpy as np
import plugin_dirs
import pytest
import samples
from fake_cupy import FakeCupy

import nnx


@pytest.fixture(autouse=True)
def registered(tmp_path: Path) -> Iterator[None]:
    """The entry point, as the installed distribution has it, and nothing loaded."""
    plugin_dirs.install(tmp_path, "nnx-xp", {"cupy": "nnx_cupy:CupyBackend"})
    with plugin_dirs.fresh_process(tmp_path):
        yield


def real_cupy() -> Any:
    return pytest.importorskip("cupy", reason="cupy is not installed: pip install '.[cuda12]'")


def calls_of_xp() -> dict[str, list[ast.Call]]:
    """Every `xp.name` in nnx's kernels, with the calls."""
    found: dict[str, list[ast.Call]] = {}
    sources = [*(plugin_dirs.ROOT / "nnx").rglob("*.py")]
    assert sources
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            target = node.func if isinstance(node, ast.Call) else node
            if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "xp":
                calls = found.setdefault(target.attr, [])
                calls += [node] if isinstance(node, ast.Call) else []
    return found


def test_the_search_finds_the_functions_that_kernels_use() -> None:
    assert {"exp", "where", "matmul", "sum", "take", "astype"} <= set(calls_of_xp())


def test_every_function_that_kernels_use_is_in_cupy() -> None:
    from nnx_cupy.namespace import Namespace

    xp = Namespace(real_cupy())
    missing = [name for name in calls_of_xp() if not hasattr(xp, name)]
    assert not missing
    refused = []
    for name, calls in calls_of_xp().items():
        try:
            signature = inspect.signature(getattr(xp, name))
        except ValueError:  # ufuncs and compiled functions have none
            continue
        for call in calls:
            try:
                signature.bind(*call.args, **{str(k.arg): k.value for k in call.keywords})
            except TypeError as error:
                refused.append(f"{ast.unparse(call)}: {error}")
    assert not refused


def test_what_cupy_says_without_a_driver() -> None:
    if real_cupy().cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(nnx.DeviceError) as caught:
        nnx.set_backend("cupy")
    assert "finds no usable NVIDIA GPU (cudaError" in str(caught.value)


def test_what_a_replay_uses_is_in_cupy() -> None:
    """Names and signatures of functions that CuPy compiles are in their docstrings."""
    cupy = real_cupy()
    from nnx_cupy import forms

    cuda, runtime = cupy.cuda, cupy.cuda.runtime
    assert all(getattr(cupy, name).nout == 1 for name in forms.OPERATORS.values())
    assert all(isinstance(getattr(cupy, name), cupy.ufunc) for name in forms.OPERATORS.values())
    assert not isinstance(cupy.matmul, cupy.ufunc)
    for name in forms.TAKING_OUT:
        given = (None, None) if name == "take" else (None,)
        options = {} if name == "take" else {"keepdims": True}
        inspect.signature(getattr(cupy, name)).bind(*given, axis=0, out=None, **options)
    assert all(callable(getattr(cupy, name)) for name in forms.FILLED)
    inspect.signature(cupy.copyto).bind(None, None, casting="unsafe")
    inspect.signature(cupy.lib.stride_tricks.as_strided).bind(None, (1,), (4,))
    inspect.signature(cuda.Stream).bind(non_blocking=True)
    inspect.signature(cuda.Event).bind(disable_timing=True)
    assert "memcpyAsync(intptr_t dst, intptr_t src, size_t size, int kind, intptr_t stream)" in (
        runtime.memcpyAsync.__doc__
    )
    assert (runtime.memcpyHostToDevice, runtime.memcpyDeviceToDevice) == (1, 3)
    documented = {
        cuda.Stream.begin_capture: "begin_capture(self, mode=None)",
        cuda.Stream.end_capture: "end_capture(self)",
        cuda.Stream.wait_event: "wait_event(self, event)",
        cuda.Stream.record: "record(self, event=None)",
        cuda.Graph.launch: "launch(self, stream=None)",
        cuda.Graph.upload: "upload(self, stream=None)",
        cuda.Event.record: "record(self, stream=None)",
        cuda.Event.synchronize: "synchronize(self)",
        cuda.MemoryPool.malloc: "malloc(self, size_t size)",
        cuda.alloc_pinned_memory: "alloc_pinned_memory(size_t size)",
        cuda.using_allocator: "allocator (function)",
    }
    for f, text in documented.items():
        assert text in f.__doc__, f
    # Other threads may do what they like while one captures.
    assert "Default is\n        :data:`~cupy.cuda.runtime.streamCaptureModeRelaxed`" in (
        cuda.Stream.begin_capture.__doc__
    )
    assert issubclass(cuda.memory.OutOfMemoryError, MemoryError)
    assert {"base", "data", "strides", "flags", "view", "fill"} <= set(dir(cupy.ndarray))
    assert "memGetInfo" in dir(runtime) and callable(cuda.get_current_stream)


def on_paper(cupy: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """An array of the real CuPy at an address where nothing is: views of it need no driver."""
    memory = cupy.cuda.memory.UnownedMemory(1 << 20, 1 << 16, None, 0)
    return cupy.ndarray(shape, dtype, cupy.cuda.memory.MemoryPointer(memory, 0))


def views(cupy: Any, whole: Any) -> list[Any]:
    a = whole[512:608].view("float64").reshape((3, 4))
    strided = cupy.lib.stride_tricks.as_strided
    return [
        whole, a, a.T, a.view(), a[1], a[1].T, a[:, 1:3], a[:, None], a[::2], a[::-1], a[:0],
        a[2, 3:].reshape(()), a.reshape((2, 6)), a.transpose([1, 0]), cupy.reshape(a, (12,)),
        cupy.broadcast_to(a[0], (5, 4)), cupy.expand_dims(a, 0), strided(a, (2, 2), (8, 16)),
    ]  # fmt: skip


def test_views_are_as_the_stand_in_has_them() -> None:
    """What a replay reads off arrays: addresses, strides, contiguity, whose memory it is."""
    real, fake = real_cupy(), FakeCupy()

    def described(cupy: Any, whole: Any) -> list[Any]:
        return [
            (v.shape, v.strides, v.flags.c_contiguous, v.nbytes, str(v.dtype),
             v.size and v.data.ptr - whole.data.ptr, v.base is whole, v.base is None)
            for v in views(cupy, whole)
        ]  # fmt: skip

    expected = described(real, on_paper(real, (4096,), "uint8"))
    assert described(fake, fake.empty((4096,), "uint8")) == expected


def test_places_in_a_plans_memory() -> None:
    from nnx_cupy.replay import CupyReplay

    cupy: Any = real_cupy()
    replay: Any = object.__new__(CupyReplay)
    replay.cupy, replay.current = cupy, nullcontext
    whole = on_paper(cupy, (4096,), "uint8")
    for v in views(cupy, whole):
        made = replay.place(whole, 0 if v is whole else 1024, v)
        assert replay.same_layout(made, v)
        assert replay.offset(made, whole) == (0 if v is whole else 1024)
        plain = made.flags.forc and 0 not in made.strides
        assert replay.root(made) is (whole if plain else made)


# A GPU


@pytest.fixture
def gpu() -> nnx.Backend:
    if not real_cupy().cuda.is_available():
        pytest.skip("no NVIDIA GPU here")
    return nnx.set_backend("cupy")


@pytest.mark.gpu
def test_gpu_trains_as_numpy_does(gpu: nnx.Backend) -> None:
    def losses() -> list[float]:
        rng = np.random.default_rng(0)
        start = nnx.asarray(rng.normal(size=(8, 3)).astype(np.float32))
        w: Any = nnx.Tensor(start, requires_grad=True)
        x = nnx.asarray(rng.normal(size=(32, 8)).astype(np.float32))
        t = nnx.asarray(rng.integers(0, 3, 32))
        found = []
        for _ in range(20):
            loss = nnx.softmax_cross_entropy(nnx.tanh(nnx.Tensor(x) @ w), t)
            w.grad = None
            loss.backward()
            w.data = w.data - 0.1 * w.grad
            found.append(float(loss))
        return found

    on_gpu = losses()
    nnx.set_backend("numpy")
    np.testing.assert_allclose(on_gpu, losses(), rtol=1e-4)


@pytest.mark.gpu
def test_gpu_overrides_equal_portable_kernels(gpu: nnx.Backend) -> None:
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64"):
        x, i = rng.normal(size=(50, 4)).astype(dtype), rng.integers(0, 7, 50)
        got = nnx.scatter_add(nnx.asarray(x), nnx.asarray(i), size=7)
        np.testing.assert_allclose(nnx.to_numpy(got), nnx.scatter_add(x, i, size=7), rtol=1e-4)
        index = nnx.asarray(i)
        got = nnx.getitem_adjoint(nnx.asarray(x), index=index, shape=(9, 4))
        expected = nnx.getitem_adjoint(x, index=i, shape=(9, 4))
        np.testing.assert_allclose(nnx.to_numpy(got), expected, rtol=1e-4)
        got = nnx.erf(nnx.asarray(x))
        assert got.dtype == dtype
        np.testing.assert_allclose(nnx.to_numpy(got), nnx.erf(x), rtol=1e-5)


@pytest.mark.gpu
def test_gpu_kernels_in_float16(gpu: nnx.Backend) -> None:
    """Which nothing but a GPU executes: against float64 from the same numbers."""
    for case in samples.CASES:
        if case.op not in gpu.kernels or not case.standard:
            continue
        args, attrs = case.make("float16", 8)
        wide = [a.astype("float64") if getattr(a, "dtype", None) == "float16" else a for a in args]
        with nnx.use_backend("numpy"):
            douts = calculus.like(calculus.value(case.op, args, attrs))
            exact = [d.astype("float64") for d in douts]
            named = {k: calculus.placed(v) for k, v in attrs.items()}
            expected = calculus.gradients(case.op, wide, named, exact)
        named = {k: calculus.placed(v) for k, v in attrs.items()}
        given, cotangents = list(map(calculus.placed, args)), list(map(calculus.placed, douts))
        found = calculus.gradients(case.op, given, named, cotangents)
        for f, e in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True):
            assert gpu.dtype_name(f) == "float16"
            values = nnx.to_numpy(f).astype("float64")
            np.testing.assert_allclose(values, e, rtol=2e-2, atol=2e-2, err_msg=case.id)


@pytest.mark.gpu
def test_gpu_uses_the_current_stream_and_allocator(gpu: nnx.Backend) -> None:
    cupy = real_cupy()
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.Stream(non_blocking=True) as stream, cupy.cuda.using_allocator(pool.malloc):
        y = nnx.exp(nnx.asarray(np.zeros(1000, np.float32)))
        assert cupy.cuda.get_current_stream() == stream and pool.used_bytes() >= y.nbytes
        stream.synchronize()
    np.testing.assert_array_equal(nnx.to_numpy(y), np.ones(1000))


@pytest.mark.gpu
def test_gpu_describe_and_free(gpu: nnx.Backend) -> None:
    assert {"cupy", "cuda runtime", "cuda driver", "device", "memory"} == set(gpu.describe())
    gpu.synchronize()
    gpu.free_memory()
