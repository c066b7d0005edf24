"""The emulated device against what CUDA promises and what it does not: run by emulate.py.

Each thing that goes wrong on a GPU now and then must go wrong here each time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import cupy
import numpy as np
import pytest

cuda, runtime = cupy.cuda, cupy.cuda.runtime
pytestmark = pytest.mark.gpu
N = 1000
late = pytest.mark.skipif(
    "NNX_EMULATED_SEED" in os.environ, reason="with a seed some work is done early"
)


@pytest.fixture(autouse=True)
def default_stream() -> Any:
    yield
    runtime.deviceSynchronize()


def stream() -> Any:
    return cuda.Stream(non_blocking=True)


def pinned(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    memory = cuda.alloc_pinned_memory(values.nbytes)
    made = np.frombuffer(memory, values.dtype, values.size)
    made[...] = values
    return made


def send(target: Any, source: np.ndarray[Any, Any], on: Any) -> None:
    runtime.memcpyAsync(
        target.data.ptr, source.ctypes.data, target.nbytes, runtime.memcpyHostToDevice, on.ptr
    )


def died(code: str, **variables: str) -> str:
    """What a process prints that ends in the emulator's refusal."""
    done = subprocess.run(
        [sys.executable, "-c", f"import cupy, numpy as np; {code}"], capture_output=True, text=True,
        env={**os.environ, **variables},
    )  # fmt: skip
    assert done.returncode < 0, done.stderr
    return done.stderr


def test_fresh_memory_holds_nan() -> None:
    assert cupy.isnan(cupy.empty(N, "float32")).all()


@late
def test_a_stream_that_does_not_wait_sees_what_was_before() -> None:
    first, second, x = stream(), stream(), cupy.zeros(N)
    runtime.deviceSynchronize()
    with first:
        x += 1
    with second:
        early = x * 1
    second.synchronize()
    assert (early.get() == 0).all()
    with second:
        second.wait_event(first.record())
        late = x * 1
    second.synchronize()
    assert (late.get() == 1).all()


def test_streams_that_block_wait_for_the_null_stream() -> None:
    blocking, x = cuda.Stream(), cupy.zeros(N)
    x += 1
    with blocking:
        y = x * 1
    blocking.synchronize()
    assert (y.get(stream=blocking) == 1).all()


@late
def test_pinned_memory_is_read_late() -> None:
    """So a block that is written again too early shows; pageable memory is read at once."""
    for source, expected in ((pinned(np.ones(N)), 2), (np.ones(N), 1)):
        on, x = stream(), cupy.zeros(N)
        runtime.deviceSynchronize()
        send(x, source, on)
        source[...] = 2
        on.synchronize()
        assert (x.get() == expected).all()


def test_a_graph_repeats_with_what_lies_there() -> None:
    on, x = stream(), cupy.zeros(N, "float32")
    runtime.deviceSynchronize()
    with on:
        x += 0  # loads the kernels
        on.begin_capture()
        x += 1
        x *= 2
        graph = on.end_capture()
    on.synchronize()
    assert (x.get() == 0).all()
    graph.launch(on)
    graph.launch(on)
    on.synchronize()
    assert (x.get() == 6).all()


def test_another_stream_joins_a_capture_by_an_event() -> None:
    on, other, x, y = stream(), stream(), cupy.zeros(N), cupy.zeros(N)
    runtime.deviceSynchronize()
    with on:
        x += 0
        on.begin_capture()
        x += 1
        other.wait_event(on.record())
        with other:
            y += x
        on.wait_event(other.record())
        graph = on.end_capture()
    graph.launch(on)
    on.synchronize()
    assert (y.get() == 1).all()


@pytest.mark.parametrize("wait", ["stream", "device"])
def test_what_waits_ends_a_capture(wait: str) -> None:
    on = stream()
    with on:
        on.begin_capture()
        waiting = on.synchronize if wait == "stream" else runtime.deviceSynchronize
        with pytest.raises(runtime.CUDARuntimeError, match="StreamCaptureUnsupported"):
            waiting()
        with pytest.raises(runtime.CUDARuntimeError, match="StreamCaptureInvalidated"):
            on.end_capture()


def test_a_copy_beyond_the_end_is_refused() -> None:
    x = cupy.zeros(N)
    with pytest.raises(runtime.CUDARuntimeError, match="cudaErrorInvalidValue"):
        runtime.memset(x.data.mem.ptr, 0, x.data.mem.size + (1 << 40))


def test_memory_ends() -> None:
    code = "x = cupy.zeros(1 << 20); y = cupy.zeros(1 << 20)"
    done = subprocess.run(
        [sys.executable, "-c", f"import cupy; {code}"], capture_output=True, text=True,
        env={**os.environ, "NNX_EMULATED_BYTES": str(12 << 20)},
    )  # fmt: skip
    assert "OutOfMemoryError" in done.stderr


def test_memory_of_another_device_is_found() -> None:
    code = (
        "f = cupy.RawKernel('extern \"C\" __global__ void f(float* x) { x[0] = 1; }', 'f');"
        "cupy.cuda.Device(1).use(); x = cupy.zeros(1, 'float32');"
        "cupy.cuda.Device(0).use(); f((1,), (1,), (x,))"
    )
    said = died(code, NNX_EMULATED_DEVICES="2")
    assert "f: argument 0 lies on device 1, not 0" in said


def test_a_stream_of_another_device_is_found() -> None:
    code = (
        "s = cupy.cuda.Stream(non_blocking=True); x = cupy.cuda.Device(1); x.use();"
        "y = cupy.zeros(1); cupy.cuda.runtime.memsetAsync(y.data.ptr, 0, 8, s.ptr)"
    )
    assert "a stream of device 0 is used while 1 is current" in died(code, NNX_EMULATED_DEVICES="2")


def test_a_barrier_that_some_threads_miss_is_found() -> None:
    code = (
        'f = cupy.RawKernel(\'extern "C" __global__ void f(float* x) '
        "{ if (threadIdx.x) __syncthreads(); x[0] = 1; }', 'f');"
        "x = cupy.zeros(1, 'float32'); f((1,), (64,), (x,)); x.get()"
    )
    assert "divergent barrier" in died(code)


def test_products_are_rounded_as_they_are_told() -> None:
    a = np.random.default_rng(0).standard_normal((8, 8)).astype("float32")
    exact = a.astype("float64") @ a
    errors = []
    linalg, x = cupy._core._routines_linalg, cupy.asarray(a)
    for compute in (linalg.COMPUTE_TYPE_TF32, linalg.COMPUTE_TYPE_DEFAULT):
        linalg.set_compute_type("float32", compute)
        errors.insert(0, np.abs((x @ x).get() - exact).max())
    assert errors[0] < 1e-5 < errors[1] < 1e-2
