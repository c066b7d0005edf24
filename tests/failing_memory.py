"""A stand-in device that has no memory left at the k-th thing that it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fake_device
import fake_memory
import pytest
import raw_module
from fake_cublaslt import CublasLt
from fake_cupy import CUDADriverError, CUDARuntimeError, FakeCupy, OutOfMemoryError


class Full:
    """Counts what takes memory: arrays, pinned memory, streams, events, graphs, compiled kernels,
    what cuBLASLt keeps.

    asked     names of these since `at` began
    watched   all of them
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.asked, self.watched = list[str](), list[str]()
        self._fails: int | None = None
        self._k = 0
        runtime = CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")
        pool = OutOfMemoryError("Out of memory allocating 1,024 bytes (allocated so far: ...)")
        driver = CUDADriverError("CUDA_ERROR_OUT_OF_MEMORY: out of memory")
        blas = CublasLt.cuBLASLtError("the resource allocation failed (CUBLAS_STATUS_ALLOC_FAILED)")
        for owner, name, error in [
            (fake_memory.Pool, "malloc", pool),
            (fake_memory.Pinned, "__init__", runtime),
            (fake_device.Stream, "__init__", runtime),
            (fake_device.Event, "__init__", runtime),
            (fake_device.Graph, "__init__", runtime),
            (fake_device.Graph, "upload", runtime),
            (fake_device.Graph, "launch", runtime),
            (raw_module.RawModule, "get_function", driver),
            (CublasLt, "create", blas),
            (CublasLt, "_make", blas),
        ]:
            self._watch(patch, owner, name, error)

    def _watch(self, patch: pytest.MonkeyPatch, owner: type, name: str, error: Exception) -> None:
        f, label = getattr(owner, name), f"{owner.__name__}.{name}"
        self.watched.append(label)

        def watched(*args: Any, **kwargs: Any) -> Any:
            if self._fails is not None:
                self.asked.append(label)
                if len(self.asked) == self._fails + 1:
                    raise type(error)(str(error))
            return f(*args, **kwargs)

        patch.setattr(owner, name, watched)

    @contextmanager
    def at(self, k: int, later: bool = False) -> Iterator[None]:
        """In this block there is none for the k-th, from 0; `later` counts from `begin` on."""
        self.asked, self._fails, self._k = [], None if later else k, k
        try:
            yield
        finally:
            self._fails = None

    def begin(self) -> None:
        self._fails = self._k


def held(cupy: FakeCupy) -> dict[str, int]:
    """What is held of the device, and of the host for it."""
    lt: Any = sys.modules["nvmath.bindings.cublasLt"]  # the stand-in for it
    return {
        "arrays": cupy.on.pool.used_bytes(),
        "pinned": len(cupy.on.memory.pinned),
        "graphs": len(cupy.on.graphs),
        "descriptors": len(lt.live),
        "other pools": cupy.on.memory.taken - cupy.on.pool.total_bytes(),
    }
