"""Python's start in an emulated environment: CuPy and nvmath find the emulator for CUDA."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from typing import Any

BUILD = os.environ["NNX_EMULATED"]
LIBRARIES = ("cublas", "cublasLt", "cudart", "nvrtc")


class Runtime:
    """CuPy's wheel is linked with CUDA's runtime: its module is the one built for the emulator."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != "cupy_backends.cuda.api.runtime":
            return None
        return importlib.util.spec_from_file_location(name, f"{BUILD}/runtime.so")


def emulate() -> None:
    from cuda import pathfinder

    library = f"{BUILD}/libemulated.so"
    emulator = ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
    real = pathfinder.load_nvidia_dynamic_lib

    def load(name: str) -> Any:
        if name in LIBRARIES:
            return SimpleNamespace(
                _handle_uint=emulator._handle, abs_path=f"{BUILD}/libemulated.so"
            )
        return real(name)

    pathfinder.load_nvidia_dynamic_lib = load
    sys.meta_path.insert(0, Runtime())  # type: ignore[arg-type]


if importlib.util.find_spec("cuda") is not None:  # not in the interpreters of other environments
    emulate()
