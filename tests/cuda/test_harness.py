"""The harness finds what it is there to find: bugs planted in kernels, and wrong calls."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import harness
import numpy as np
import pytest
from harness import KernelError

from nnx_cupy import launch

pytestmark = pytest.mark.skipif(harness.COMPILER is None, reason=harness.NEEDS)

# The sum of each row of x, a block of 64 threads a row; `...` is where the bugs go.
ROW_SUMS = """
extern "C" __global__ void row_sums(const float* x, float* y, long long rows, long long n) {
  __shared__ float part[2];
  const float* row = x + blockIdx.x * n;
  float total = 0;
  for (int i = threadIdx.x; i < n; i += 64) total += row[i];
  for (int o = 16; o; o >>= 1) total += __shfl_xor_sync(0xffffffffu, total, o);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = total;
  __syncthreads();
  if (threadIdx.x == 0) y[blockIdx.x] = part[0] + part[1];
}
"""
PLANTED = {
    "a missing barrier": ("  __syncthreads();\n", "", "nobody has written"),
    "a wrong index at the edge": ("i < n;", "i <= n;", r"out of bounds: .* reads x\[603\] of 603"),
    "a write past the end": ("y[blockIdx.x]", "y[blockIdx.x + 1]", r"writes y\[3\] of 3"),
    "a lost mask": (
        "for (int o = 16; o; o >>= 1) total += __shfl_xor_sync(0xffffffffu, total, o);",
        "if (threadIdx.x < 40)\n"
        "  for (int o = 16; o; o >>= 1) total += __shfl_xor_sync(0xffffffffu, total, o);",
        "divergent warp",
    ),
    "a divergent barrier": (
        "  __syncthreads();", "  if (threadIdx.x > 40) return;\n  __syncthreads();",
        "divergent barrier: block 0 thread 63 has returned, thread 40 waits",
    ),
    "a barrier in a branch": (
        "  __syncthreads();",
        "  if (threadIdx.x < 32)\n __syncthreads();\n else\n __syncthreads();",
        "divergent barrier: block 0 threads wait at lines",
    ),
    "two writers": ("if (threadIdx.x == 0) y", "if (threadIdx.x < 2) y", "race: .* writes y"),
    "blocks that share a place": ("y[blockIdx.x]", "y[0]", r"race: .* writes y\[0\]"),
    "half of the warp": ("int o = 16", "int o = 8", None),
}  # fmt: skip


def row_sums(source: str) -> Any:
    x = np.random.default_rng(0).normal(size=(3, 201)).astype("float32")
    y = np.full(3, np.nan, "float32")
    harness.Library(source, ()).launch("row_sums", (3,), (64,), [x, y, 3, 201])
    np.testing.assert_allclose(y, x.astype("float64").sum(1), rtol=1e-5, atol=1e-5)


def test_the_kernel_as_it_should_be() -> None:
    row_sums(ROW_SUMS)


@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bugs_are_found(bug: str) -> None:
    right, wrong, message = PLANTED[bug]
    assert right in ROW_SUMS
    expected = AssertionError if message is None else KernelError  # None: the values are wrong
    with pytest.raises(expected, match=message):
        row_sums(ROW_SUMS.replace(right, wrong))


def test_an_unwritten_output_is_found() -> None:
    with pytest.raises(AssertionError, match="nan"):
        row_sums(ROW_SUMS.replace("if (threadIdx.x == 0) y", "if (n > 201) y"))


def test_a_second_use_of_shared_memory_needs_a_barrier() -> None:
    """Which the values would not tell where the first warp happens to run first."""
    again = "  __syncthreads();\n  if (threadIdx.x == 0) y[blockIdx.x] = part[0] + part[1];\n"
    assert again in ROW_SUMS
    clear = "  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = 0;\n"
    source = ROW_SUMS.replace(again, again + clear)
    with pytest.raises(KernelError, match="race in shared memory"):
        row_sums(source)


BARRIER = "    __syncthreads();"
SOFTMAX_BUGS = {
    "a missing barrier": (f"{BARRIER}\n    v = part", "    v = part", "nobody has written"),
    "part written anew too early": (f"{BARRIER}  // until", "    // until", "race in shared"),
    "an edge of the row": ("i < n; i += blockDim.x) f(", "i <= n; i += blockDim.x) f(", "out of"),
    "an output unwritten": ("row += row_step()", "row += 2 * row_step()", None),
    "no last column": ("i < n; i += blockDim.x) y", "i < n - 1; i += blockDim.x) y", None),
    "rows that overlap": ("y + row * columns", "y + row", "race"),
}  # fmt: skip


@pytest.mark.parametrize("bug", SOFTMAX_BUGS)
def test_bugs_planted_in_softmax_are_found(bug: str) -> None:
    right, wrong, message = SOFTMAX_BUGS[bug]
    source = launch.source("softmax.cu")
    assert right in source
    made = harness.Library(source.replace(right, wrong), launch.options("float32", {}))
    x = np.random.default_rng(0).normal(size=(7, 1401)).astype("float32")
    y, e = np.full_like(x, np.nan), np.exp(x - x.max(1, keepdims=True))

    def softmax() -> None:
        made.launch("softmax", (3,), (128, 1), [x, y, 7, 1401])
        np.testing.assert_allclose(y, e / e.sum(1, keepdims=True), rtol=1e-5)

    with pytest.raises(AssertionError if message is None else KernelError, match=message):
        softmax()


def run(body: str, *args: Any, block: int = 64, grid: int = 1, shared: int = 0) -> None:
    parameters = "float* y, long long n"
    source = f'extern "C" __global__ void k({parameters}) {{\n{body}\n}}'
    harness.Library(source, ()).launch("k", (grid,), (block,), args, shared)


def test_order_of_threads_is_found() -> None:
    """No two threads race here, but who comes first decides."""
    y = np.zeros(1, "float32")
    with pytest.raises(KernelError, match="depends on the order of threads"):
        run("if (atomicAdd(y, 1.0f) == 3) atomicMax(y, threadIdx.x * 100.0f);", y, 1, block=32)


def test_atomics_are_no_race() -> None:
    y = np.zeros(2, "float32")
    run("atomicAdd(y + threadIdx.x % 2, 1.0f);", y, 1, grid=3)
    np.testing.assert_array_equal(y, [96, 96])


def test_a_sync_of_the_warp_orders_its_lanes_and_no_others() -> None:
    body = """__shared__ float s[64];
    s[threadIdx.x] = threadIdx.x;
    __syncwarp();
    y[threadIdx.x] = s[threadIdx.x ^ {}];"""
    y = np.full(64, np.nan, "float32")
    run(body.format(1), y, 64)
    np.testing.assert_array_equal(y, np.arange(64) ^ 1)
    with pytest.raises(KernelError, match=r"race in shared memory|nobody has written"):
        run(body.format(32), y, 64)


def test_warp_operations() -> None:
    y = np.full(32, np.nan, "float32")
    for body, expected in {
        "y[threadIdx.x] = __shfl_sync(~0u, threadIdx.x, 5);": np.full(32, 5),
        "y[threadIdx.x] = __shfl_down_sync(~0u, threadIdx.x, 3);": [*range(3, 32), 29, 30, 31],
        "y[threadIdx.x] = __shfl_up_sync(~0u, threadIdx.x, 3);": [0, 1, 2, *range(29)],
        "y[threadIdx.x] = __popc(__ballot_sync(~0u, threadIdx.x < 7));": np.full(32, 7),
        "y[threadIdx.x] = __any_sync(~0u, threadIdx.x == 9);": np.ones(32),
        "y[threadIdx.x] = __all_sync(~0u, threadIdx.x == 9);": np.zeros(32),
        "y[threadIdx.x] = threadIdx.x < 8 ? __shfl_xor_sync(0xffu, threadIdx.x, 1) : 0;":
            [*(i ^ 1 for i in range(8)), *[0] * 24],
    }.items():  # fmt: skip
        run(body, y, 32, block=32)
        np.testing.assert_array_equal(y, expected, body)


def test_a_lane_outside_the_mask_is_not_read() -> None:
    y = np.zeros(32, "float32")
    with pytest.raises(KernelError, match="reads lane 8, which is not in its mask"):
        run("if (threadIdx.x < 8) y[threadIdx.x] = __shfl_sync(0xffu, 1, 8);", y, 32, block=32)


def test_a_warp_that_is_not_whole() -> None:
    with pytest.raises(KernelError, match="thread 20 is not there"):
        run("y[threadIdx.x] = __shfl_sync(~0u, 1, 0);", np.zeros(32, "float32"), 32, block=20)


def test_dynamic_shared_memory() -> None:
    body = """extern __shared__ float s[];
    s[threadIdx.x] = threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = s[63 - threadIdx.x];"""
    y = np.full(64, np.nan, "float32")
    run(body, y, 64, shared=256)
    np.testing.assert_array_equal(y, np.arange(64)[::-1])
    with pytest.raises(KernelError, match="out of bounds"):
        run(body, y, 64, shared=252)


def test_wild_and_misaligned_accesses_end_the_launch() -> None:
    y = np.zeros(64, "float32")
    with pytest.raises(KernelError, match="out of bounds"):
        run("y[1LL << 40] = 1;", y, 1)
    with pytest.raises(KernelError, match="misaligned y"):
        run("for (int i = 0; i < 2; i++) *(double*)(y + i) = 1;", y, 1, block=1)
    run("y[threadIdx.x] = 1;", y, 1)  # the next one runs
    np.testing.assert_array_equal(y, 1)


@pytest.mark.parametrize(("args", "message"), [
    ((np.zeros(64), 1), "y is float64, expected float32"),
    ((np.zeros((64, 2), "float32")[:, 0], 1), "y is not C-contiguous"),
    ((np.zeros(64, "float32"), 1.0), "n is 1.0, expected an int"),
    ((np.zeros(64, "float32"), True), "n is True, expected an int"),
    ((1, np.zeros(64, "float32")), "y is 1, expected an array of float32"),
    ((np.zeros(64, "float32"),), "k takes 2 arguments, given 1"),
])  # fmt: skip
def test_wrong_arguments(args: Any, message: str) -> None:
    with pytest.raises(KernelError, match=message):
        run("y[threadIdx.x] = n;", *args)


@pytest.mark.parametrize(("grid", "block"), [(0, 64), (1, 0), (1, 2048), (2**31, 1)])
def test_wrong_launches(grid: int, block: int) -> None:
    with pytest.raises(KernelError, match="blocks of"):
        run("y[0] = n;", np.zeros(64, "float32"), 1, grid=grid, block=block)


def test_threads_of_the_host_wait_for_each_other() -> None:
    """Also where both are the first to use a source."""
    source = ROW_SUMS + "// of two threads"
    x = np.random.default_rng(0).normal(size=(3, 201)).astype("float32")
    made = [np.full(3, np.nan, "float32") for _ in range(4)]

    def work(y: Any) -> None:
        harness.library(source, ()).launch("row_sums", (3,), (64,), [x, y, 3, 201])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, made))
    for y in made:
        np.testing.assert_allclose(y, x.astype("float64").sum(1), rtol=1e-5, atol=1e-5)


def test_what_does_not_compile() -> None:
    with pytest.raises(KernelError, match="error: 'nothing' was not declared"):
        run("y[0] = nothing;", np.zeros(64, "float32"), 1)
