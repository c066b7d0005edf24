"""CUDA C++ to cubins by NVRTC from its wheel: no driver, no GPU."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
from pathlib import Path
from typing import Any, NamedTuple

# What CuPy adds to a module's options (cupy/cuda/compiler.py): float32 below 2**-126 are 0.
CUPYS = ("-ftz=true", "--device-as-default-execution-space")
NEEDS = "pip install nvidia-cuda-nvrtc nvidia-cuda-runtime: NVRTC compiles the kernels"


class Usage(NamedTuple):
    """What one kernel takes of a multiprocessor: registers a thread, bytes spilt, static shared."""

    registers: int
    spills: int
    shared: int


@functools.cache
def _wheel() -> Path | None:
    """The folder that NVIDIA's wheels of CUDA 13 share."""
    found = importlib.util.find_spec("nvidia")
    for place in [] if found is None else found.submodule_search_locations or []:
        if list(Path(place).glob("cu13/lib/libnvrtc.so.*")):
            return Path(place) / "cu13"
    return None


def available() -> bool:
    wheel = _wheel()
    return wheel is not None and (wheel / "include" / "cuda_fp16.h").exists()


@functools.cache
def _library() -> Any:
    wheel = _wheel()
    assert wheel is not None, NEEDS
    (builtins,) = sorted(wheel.glob("lib/libnvrtc-builtins.so.*"))[:1]
    ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)  # NVRTC does not look beside itself
    return ctypes.CDLL(str(next(wheel.glob("lib/libnvrtc.so.*"))))


def compiled(source: str, arch: str, options: tuple[str, ...]) -> dict[str, Usage]:
    """What each kernel of the source takes on that architecture.   Raises AssertionError"""
    library, program, size = _library(), ctypes.c_void_p(), ctypes.c_size_t()
    assert library.nvrtcCreateProgram(
        ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None
    ) == 0  # fmt: skip
    try:
        told = [*options, *CUPYS, f"-arch={arch}", f"-I{_wheel()}/include", "--ptxas-options=-v"]
        given = (ctypes.c_char_p * len(told))(*[o.encode() for o in told])
        failed = library.nvrtcCompileProgram(program, len(told), given)
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, log)
        text = log.value.decode()
        assert not failed and "warning" not in text, text
        library.nvrtcGetCUBINSize(program, ctypes.byref(size))
        assert size.value > 0
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
    return _usage(text)


def _usage(log: str) -> dict[str, Usage]:
    found = {}
    for part in log.split("Compiling entry function '")[1:]:
        spills = re.findall(r"(\d+) bytes spill", part)
        registers, shared = (
            re.search(r"Used (\d+) registers", part),
            re.search(r"(\d+) bytes smem", part),
        )
        assert registers is not None and spills, part
        found[part.partition("'")[0]] = Usage(
            int(registers[1]), sum(map(int, spills)), int(shared[1]) if shared else 0
        )
    return found
