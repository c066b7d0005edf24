"""CUDA C++ from the `.cu` files beside this: compiled when first used, once for each dtype.

Nothing here imports cupy: who has an array to launch a kernel on has imported it.
"""

from __future__ import annotations

import functools
import re
import sys
from numbers import Integral
from pathlib import Path
from typing import Any

from nnx.errors import DtypeError, ShapeError

HERE = Path(__file__).parent
# What is stored and what computes, by dtype, and the header that brings the type.
TYPES = {
    "float32": ("float", "float", None),
    "float64": ("double", "double", None),
    "float16": ("__half", "float", "<cuda_fp16.h>"),
    "bfloat16": ("__nv_bfloat16", "float", "<cuda_bf16.h>"),
}
_DTYPES = {
    "float": "float32", "double": "float64", "__half": "float16", "__nv_bfloat16": "bfloat16",
    "int": "int32", "unsigned": "uint32", "Index": "int64", "unsigned char": "uint8",
    "long long": "int64", "unsigned long long": "uint64",
}  # fmt: skip
_INCLUDE = re.compile(r'#include "(\w+\.cuh)"')
_KERNEL = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)')

dtype_name = functools.cache(str)  # spelling a dtype takes microseconds


def source(file: str) -> str:
    """The file's text with the headers beside it in place of their `#include`.

    CuPy finds compiled kernels on its disk by the text, which must thus hold all that is compiled.
    """
    lines = []
    for i, line in enumerate((HERE / file).read_text("utf-8").splitlines(), 1):
        header = _INCLUDE.fullmatch(line)
        if header is None:
            lines.append(line)
        else:
            text = (HERE / header[1]).read_text("utf-8")
            lines += [f'#line 1 "{header[1]}"', text, f'#line {i + 1} "{file}"']
    return "\n".join([*lines, ""])


def options(dtype: str, defines: dict[str, str]) -> tuple[str, ...]:
    """What the compiler is told for that dtype."""
    stored, computes, header = TYPES[dtype]
    named = {"NNX_T": stored, "NNX_A": computes, **defines}
    if header is not None:
        named["NNX_HEADER"] = header
    return ("--std=c++17", *(f"-D{name}={value}" for name, value in named.items()))


def parameters(text: str, dtype: str, defines: dict[str, str]) -> dict[str, list[tuple[str, Any]]]:
    """Of each kernel in the text its parameters: names, and dtypes of arrays (None: a number).

    A type `Label` is what NNX_LABEL is defined as.
    """
    known = {**_DTYPES, "T": dtype, "A": _DTYPES[TYPES[dtype][1]]}
    for name, value in defines.items():
        if value in _DTYPES:
            known[name.removeprefix("NNX_").capitalize()] = _DTYPES[value]
    found: dict[str, list[tuple[str, Any]]] = {}
    for name, given in _KERNEL.findall(text):
        found[name] = []
        for part in given.split(","):
            words = part.replace("*", " * ").replace("__restrict__", " ").split()
            kind = " ".join(w for w in words[:-1] if w not in ("const", "*"))
            found[name].append((words[-1], known[kind] if "*" in words else None))
    return found


class Kernel:
    """One `__global__` function for one dtype.

    `kernel(blocks, threads, *args)` launches it on the current stream; blocks and threads are
    numbers, or pairs (x, y). An array must be C-contiguous and of the dtype that the CUDA source
    says, None is a null pointer; ints arrive as long long, floats as double.
    """

    __slots__ = ("__name__", "_module", "_raw", "parameters")

    def __init__(self, module: Any, name: str, parameters: list[tuple[str, Any]]) -> None:
        self._module, self.__name__, self.parameters = module, name, parameters
        self._raw: Any = None

    def __call__(
        self, blocks: int | tuple[int, int], threads: int | tuple[int, int], *args: Any
    ) -> None:
        if len(args) != len(self.parameters):
            raise TypeError(
                f"{self.__name__} takes {len(self.parameters)} arguments, given {len(args)}"
            )
        passed = []
        for a, (name, dtype) in zip(args, self.parameters, strict=True):
            if dtype is None:
                passed.append(a if type(a) is int or type(a) is float else _python(a))
                continue
            if a is not None:
                self._check(a, name, dtype)
            passed.append(0 if a is None else a)
        grid = (blocks,) if isinstance(blocks, int) else blocks
        block = (threads,) if isinstance(threads, int) else threads
        if self._raw is None:  # compiled for the device that is current, which it now must be
            self._raw = self._module.get_function(self.__name__)
        self._raw(grid, block, tuple(passed))

    def _check(self, a: Any, name: str, dtype: str) -> None:
        if dtype_name(a.dtype) != dtype:
            raise DtypeError(f"{self.__name__}: {name} is {a.dtype}, expected {dtype}")
        if not a.flags.c_contiguous:
            raise ShapeError(f"{self.__name__}: {name} of shape {a.shape} is not C-contiguous")


def _python(number: Any) -> int | float:
    """CuPy passes others in their own width: of a bool one byte, of a NumPy int32 four."""
    return int(number) if isinstance(number, Integral) else float(number)


class Source:
    """A `.cu` file.   `source(name, dtype)` is one of its kernels, compiled for that dtype."""

    def __init__(self, file: str, *flags: str) -> None:
        self.file, self.flags = file, flags
        self._modules: dict[Any, tuple[Any, dict[str, list[tuple[str, Any]]]]] = {}
        self._kernels: dict[Any, Kernel] = {}

    def __call__(self, name: str, dtype: Any, **defines: str) -> Kernel:
        cupy = sys.modules["cupy"]
        key = (cupy, name, dtype, *defines.values())
        found = self._kernels.get(key)
        if found is None:
            module, known = self._module(cupy, dtype_name(dtype), defines)
            found = Kernel(module, name, known[name])
            self._kernels[key] = found
        return found

    def _module(self, cupy: Any, dtype: str, defines: dict[str, str]) -> Any:
        key = (cupy, dtype, *defines.values())
        if key not in self._modules:
            text = source(self.file)
            told = (*options(dtype, defines), *self.flags)
            made = cupy.RawModule(code=text, options=told)
            self._modules[key] = made, parameters(text, dtype, defines)
        return self._modules[key]


THREADS = 256
MOST_ROWS = 65535  # blocks, likewise
MOST_BLOCKS = 4096  # the rest is looped over: enough to fill any device


def blocks_for(n: int, each: int = 1) -> int:
    """How many blocks of THREADS for n entries, so many of them to a thread."""
    return max(1, min(MOST_BLOCKS, -(-n // (THREADS * each))))


def threads_for(n: int) -> int:
    """Threads of the one block that goes over n entries: a power of two, whole warps."""
    threads = 32
    while threads < 1024 and threads * 8 < n:
        threads *= 2
    return threads


def blocks_for_rows(rows: int, columns: int) -> tuple[int, tuple[int, int]]:
    """Blocks and threads for kernels of rows: a warp for a short row, a block for a long one."""
    if columns <= 1024:
        return max(1, min(MOST_ROWS, -(-rows // 4))), (32, 4)
    return min(MOST_ROWS, rows), (threads_for(columns), 1)


def blocks_of_rows(rows: int, columns: int) -> tuple[int, tuple[int, int]]:
    """The same for kernels whose threads need nothing of each other: a thread for a row of one."""
    wide = 1
    while wide < min(columns, THREADS):
        wide *= 2
    return max(1, min(MOST_ROWS, -(-rows * wide // THREADS))), (wide, THREADS // wide)


def per_pack(x: Any) -> int:
    """How many entries are loaded at once."""
    return 16 // int(x.dtype.itemsize)


def computing(x: Any) -> str:
    """The dtype that kernels compute in for such an array."""
    return _DTYPES[TYPES[dtype_name(x.dtype)][1]]
