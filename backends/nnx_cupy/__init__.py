"""CuPy: arrays on an NVIDIA GPU. Importing this does not import cupy; making a backend does.

Not yet run on a GPU: the tests here exercise the Python side against a stand-in for cupy, compile
the CUDA kernels with NVRTC and run them on the CPU (tests/cuda), and check the functions that
kernels use against a real CuPy 14.2, which imports without a driver. The tests marked `gpu` have
yet to run on a device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from nnx.backend import Backend
from nnx.errors import DtypeError
from nnx.precision import get_matmul_precision

from . import (  # noqa: F401 - they fill the table
    activation,
    batch_norm,
    checks,
    conv,
    cross_entropy,
    dense,
    dropout,
    group_norm,
    index,
    kernels,
    optim,
    philox,
    pool,
    precision,
    softmax,
    sums,
    upsample,
    window,
)
from .device import Here, There
from .namespace import Namespace
from .table import overrides

__all__ = ["CupyBackend"]

_CUDA_MEMORY = (2, 13)  # DLPack's device types of CUDA and of CUDA's managed memory
_dtype_name = functools.cache(str)  # spelling a dtype takes microseconds


class CupyBackend(Backend):
    """Arrays are `cupy.ndarray` on one device: "cupy" is device 0, "cupy:1" is device 1.

    All work goes to the stream that is current for the device in the calling thread, through the
    allocator that is set: nnx sets neither. Float sums over repeated indices use atomic additions,
    so that their last bits vary from run to run, in the derivative of `getitem`, and in that of
    `take` from 4097 indices on. In kernels float32 numbers below 2**-126 are 0: CuPy compiles all
    of them so.

    Raises BackendPackageError if cupy, NVRTC or CUDA's headers are missing, DeviceError if there is
    no driver, no GPU or none of that number, and later DeviceMemoryError if its memory is full.
    """

    name = "cupy"
    kernels = overrides

    def __init__(self, device: str | None = None) -> None:
        self.device_id = checks.device_number(device)
        self._cupy = checks.import_cupy()
        checks.check_device(self._cupy, self.device_id)
        if self.device_id:
            self.name = f"cupy:{self.device_id}"
        self.xp = Namespace(self._cupy)
        self._here = Here(self._cupy, self.device_id)
        with self.on_device():
            checks.check_compiler(self._cupy)
        self._replay: Any = None
        self._cublaslt: Any = None
        self.set_matmul_precision(get_matmul_precision())

    def on_device(self) -> Here:
        # Nothing to enter, and so next to no cost, where it is current.
        if self._cupy.cuda.runtime.getDevice() == self.device_id:
            return self._here
        return There(self._cupy, self.device_id)

    def use_device(self) -> None:
        self._cupy.cuda.Device(self.device_id).use()

    def owns(self, array: Any) -> bool:
        return self._is_cupys(array) and array.device.id == self.device_id

    def _is_cupys(self, array: Any) -> bool:
        return isinstance(array, self._cupy.ndarray)

    def sibling(self, array: Any) -> str | None:
        if not self._is_cupys(array) or array.device.id == self.device_id:
            return None
        return f"cupy:{array.device.id}" if array.device.id else "cupy"

    def asarray(self, data: Any, dtype: str | None = None) -> Any:
        with self.on_device():
            if not self._is_cupys(data):
                data = self._imported(data)
            if self._is_cupys(data) and data.device.id != self.device_id:
                data = self._from_sibling(data)
            return self._cupy.asarray(data, dtype=dtype)

    def _from_sibling(self, data: Any) -> Any:
        """A copy, after what was asked of the other device, and before what will be."""
        there, current = There(self._cupy, data.device.id), self._cupy.cuda.get_current_stream
        with there:
            data = self._cupy.ascontiguousarray(data)
            written = current().record()
        current().wait_event(written)
        made = data.copy()  # CuPy's copy() goes to the current device, on its stream
        read = current().record()
        with there:
            current().wait_event(read)
        return made

    def _imported(self, data: Any) -> Any:
        """What is in CUDA's memory stays there; everything else passes through NumPy."""
        if not isinstance(data, (np.ndarray, np.generic)) and hasattr(data, "__dlpack_device__"):
            if data.__dlpack_device__()[0] in _CUDA_MEMORY:
                return self._cupy.from_dlpack(data)
            data = np.from_dlpack(data)
        array = np.asarray(data)
        if array.dtype.kind not in "iufb":
            raise DtypeError(f"cupy: dtype {array.dtype} is not supported; give numbers or bools")
        return array

    def to_numpy(self, array: Any) -> np.ndarray[Any, Any]:
        with self.on_device():
            host: np.ndarray[Any, Any] = array.get()
            return host

    def write(self, target: Any, value: Any) -> Any:
        with self.on_device():
            target[...] = value
        return target

    def put(self, target: Any, values: np.ndarray[Any, Any]) -> Any:
        if not (target.flags.c_contiguous or target.flags.f_contiguous):
            return super().put(target, values)
        with self.on_device():
            target.set(values.astype(target.dtype, copy=False))
        return target

    def copy(self, array: Any) -> Any:
        with self.on_device():
            return array.copy()

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any:
        with self.on_device():
            return self._cupy.zeros(shape, dtype)

    def buffer(self, size: int, dtype: Any) -> Any:
        with self.on_device():
            return self._cupy.zeros(size, dtype)

    def call(self, kernel: Any, args: Any, attrs: Any) -> Any:
        with self.on_device():
            return kernel(self.xp, *args, **attrs)

    def dtype_name(self, array: Any) -> str:
        return _dtype_name(array.dtype)

    def uniform(self, shape: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> Any:
        """Random numbers in [0, 1), made on the device with a key that `rng` draws.

        So the same seed gives other numbers than on NumPy, and no array crosses.
        """
        with self.on_device():
            drawn = self._cupy.empty(shape, dtype)
            philox.fill(drawn, philox.key_of(rng))
        return drawn

    def in_order(self, f: Callable[..., Any]) -> Callable[..., Any]:
        with self.on_device():
            stream = self._cupy.cuda.get_current_stream()

        def called(*args: Any) -> Any:
            with self.on_device(), stream:
                return f(*args)

        return called

    def set_matmul_precision(self, name: str) -> None:
        with self.on_device():
            self.matmul_precision = precision.effective(self._cupy, self.device_id, name)
            precision.set_compute_type(self.matmul_precision)

    def replay(self) -> Any:
        if self._replay is None:
            from .replay import CupyReplay  # only `nnx.capture` needs it

            self._replay = CupyReplay(self, self._cupy)
        return self._replay

    def cublaslt(self) -> Any:
        """cuBLASLt on this device, which stays.   Raises UnavailableError"""
        if self._cublaslt is None:
            from .gemm import CublasLt

            self._cublaslt = CublasLt()
        return self._cublaslt

    def synchronize(self) -> None:
        self._cupy.cuda.Device(self.device_id).synchronize()

    def free_memory(self) -> None:
        """Empty CuPy's own pools; an allocator of the user's is the user's to empty."""
        with self.on_device():
            self._cupy.get_default_memory_pool().free_all_blocks()
            self._cupy.get_default_pinned_memory_pool().free_all_blocks()

    def describe(self) -> dict[str, str]:
        runtime = self._cupy.cuda.runtime
        properties = runtime.getDeviceProperties(self.device_id)
        return {
            "cupy": self._cupy.__version__,
            "cuda runtime": checks.version(runtime.runtimeGetVersion()),
            "cuda driver": checks.version(runtime.driverGetVersion()),
            "device": f"{self.device_id}: {properties['name'].decode()}",
            "memory": f"{properties['totalGlobalMem'] / 2**30:.0f} GiB",
        }
