"""A stand-in device that has no memory left at the k-th thing that it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fake_device
import fake_memory
import numpy as np
import pytest
import raw_module
from capture_tools import batches, model, trainer
from cupy_tools import host
from fake_cublaslt import CublasLt
from fake_cupy import CUDADriverError, CUDARuntimeError, FakeCupy, OutOfMemoryError

import nnx
from nnx import layers as L
from nnx import optim


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


def until_done(full: Full, f: Any, after: Any) -> int:
    """Call it with no memory at its k-th demand, for every k; `after` each failure."""
    k = 0
    while True:
        try:
            with full.at(k):
                f()
            return k
        except nnx.DeviceMemoryError:
            k += 1
        after()


def same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


class Run:
    """A training, all of whose state can be read."""

    def __init__(self, wrap: Any = lambda f: f) -> None:
        self.net = model(L.BatchNorm1d(8), L.Dropout(0.5))
        half = len(list(self.net.parameters())) // 2
        params = list(self.net.parameters())
        self.opt = optim.AdamW([{"params": params[:half]}, {"params": params[half:], "lr": 0.02}])
        self.step = wrap(trainer(self.net, self.opt))
        self.data = iter(batches(12))

    def train(self, steps: int) -> list[float]:
        return [float(self.step(x, t)) for x, t in (next(self.data) for _ in range(steps))]

    def state(self) -> dict[str, Any]:
        found = {f"model {k}": v for k, v in self.net.state_dict().items()}
        for i, entry in self.opt.state_dict()["state"].items():
            found |= {f"optimizer {i} {k}": np.array(v) for k, v in entry.items()}
        for i, p in enumerate(self.net.parameters()):
            found[f"gradient {i}"] = None if p.grad is None else host(p.grad)
            found[f"version {i}"] = p._version
        found["generator"] = str(nnx.random.generator().bit_generator.state)
        return found
