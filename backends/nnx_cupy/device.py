"""A device made current for a block, and what it means when its memory is full."""

from __future__ import annotations

from typing import Any

from nnx.errors import DeviceMemoryError, NnxError


class Here:
    """`with here:` on a device that is current already. CuPy's errors of memory become nnx's."""

    def __init__(self, cupy: Any, number: int) -> None:
        self._cupy, self._number = cupy, number

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is None or isinstance(error, NnxError):
            return
        if no_memory(error):
            raise memory_error(self._cupy, self._number, error) from error


class There(Here):
    """As `Here`, on a device that is not the current one."""

    def __enter__(self) -> None:
        self._device = self._cupy.cuda.Device(self._number)
        self._device.__enter__()

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        try:
            super().__exit__(kind, error, traceback)
        finally:
            self._device.__exit__(kind, error, traceback)


# What CUDA's runtime says (arrays, pinned memory, streams, graphs), its driver (kernels that are
# loaded) and cuBLAS (CUBLAS_STATUS_...); CuPy and nvmath raise each as an error of their own.
FULL = ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY", "ALLOC_FAILED")


def no_memory(error: BaseException) -> bool:
    """Whether it means that there was no memory left."""
    return isinstance(error, MemoryError) or any(name in str(error) for name in FULL)


def memory_error(cupy: Any, number: int, error: BaseException) -> DeviceMemoryError:
    """With what was asked for, what is held and by whom, and what frees it."""
    pool = cupy.get_default_memory_pool()
    free, everything = cupy.cuda.runtime.memGetInfo()
    used, kept = pool.used_bytes(), pool.free_bytes()
    rest = max(0, everything - free - used - kept)
    said = str(error).rstrip(".")
    return DeviceMemoryError(
        f"device {number} has no memory left: {said}. Arrays hold {used:,} bytes of CuPy's pool, "
        f"which keeps {kept:,} more; {free:,} of the device's {everything:,} are free, {rest:,} "
        f"are held by graphs of plans, kernels and other processes. "
        f"nnx.get_backend().free_memory() gives back what the pool keeps; smaller batches need "
        f"less, and so do fewer plans of captured functions (max_plans) and nnx.no_grad() where no "
        f"gradient is wanted"
    )
