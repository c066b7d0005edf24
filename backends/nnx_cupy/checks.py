"""Whether CuPy can compute here; if not, an error that says what is missing and how to get it."""

from __future__ import annotations

import importlib
from typing import Any

from nnx.errors import BackendPackageError, DeviceError

INSTALL = "from nnx's checkout: pip install '.[cuda12]' (or '.[cuda13]', as the driver is)"


def import_cupy() -> Any:
    """The module cupy.   Raises BackendPackageError if it is missing or fails to import."""
    try:
        return importlib.import_module("cupy")
    except Exception as error:
        what = f"cupy fails to import: {error}; reinstall it, {INSTALL}"
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            what = f"the backend 'cupy' needs the package cupy, which is not installed; {INSTALL}"
        raise BackendPackageError(what) from error


def device_number(device: str | None) -> int:
    """The number in "cupy:1"; 0 by default."""
    if device is None:
        return 0
    if not (device.isascii() and device.isdigit()):
        raise DeviceError(
            f"cupy has no device {device!r}: expected its number, as in nnx.set_backend('cupy:1')"
        )
    return int(device)


def check_device(cupy: Any, number: int) -> None:
    """Raises DeviceError if there is no driver, no GPU, or none of that number."""
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CUDARuntimeError; what it means is in its text
        raise DeviceError(
            f"cupy is installed but finds no usable NVIDIA GPU ({error}); nvidia-smi shows driver "
            f"and devices. nnx.set_backend('numpy') computes on the CPU"
        ) from error
    if number >= count:
        there = " and ".join(f"'cupy:{i}'" for i in range(count)) or "none"
        raise DeviceError(
            f"cupy has no device {number}: the devices are {there}; CUDA_VISIBLE_DEVICES hides the "
            f"others. nnx.set_backend('numpy') computes on the CPU"
        )


def check_compiler(cupy: Any) -> None:
    """Run the smallest computation: CuPy compiles kernels with NVRTC and the headers of CUDA.

    CuPy keeps compiled kernels on disk. Headers that go missing after this one was compiled are
    therefore noticed only at the next new kernel; NVRTC is loaded in any case.
    """
    cuda = cupy.cuda
    try:
        cupy.add(cupy.zeros((1,), "float32"), 1)
    except (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError, MemoryError) as error:
        raise DeviceError(f"the GPU refuses to compute: {error}") from error
    except Exception as error:
        major = cuda.runtime.runtimeGetVersion() // 1000
        first = next(iter(str(error).strip().splitlines()), "")
        raise BackendPackageError(
            f"cupy cannot compile kernels ({type(error).__name__}: {first}); most likely NVRTC or "
            f"the headers of CUDA {major} are missing: pip install 'cupy-cuda{major}x[ctk]'"
        ) from error


def version(number: int) -> str:
    """12090 is CUDA 12.9."""
    return f"{number // 1000}.{number % 1000 // 10}"
