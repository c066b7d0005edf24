"""CUDA kernels compiled by g++ and run on the CPU, each access checked: see README.md."""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
COMPILER = shutil.which("g++")
NEEDS = "g++ is not installed: it compiles the CUDA kernels for the CPU"
_lock = threading.RLock()
_KERNEL = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)')
_FLAGS = ("-std=c++17", "-O1", "-w", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing")
# Each load and store calls a function of memory.cpp; what libtsan would do is not wanted.
_WATCH = ("-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0")


class KernelError(AssertionError):
    """What a kernel did wrong, or what it was wrongly given."""


class _Region(ctypes.Structure):
    _fields_ = (
        ("start", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
        ("item", ctypes.c_int),
        ("name", ctypes.c_char_p),
    )


class _Launch(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_size_t),
        ("reverse", ctypes.c_int),
        ("regions", ctypes.c_int),
        ("region", ctypes.POINTER(_Region)),
        ("message", ctypes.c_char_p),
        ("atomics", ctypes.c_int),
    )


@functools.cache
def _folder() -> Path:
    folder = tempfile.mkdtemp(prefix="nnx-cuda-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _compiled(name: str, *command: str) -> Path:
    assert COMPILER is not None, NEEDS
    out = _folder() / name
    if not out.exists():
        done = subprocess.run(
            [COMPILER, *_FLAGS, *command, "-o", str(out)],
            capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
        if done.returncode:
            raise KernelError(done.stderr)
    return out


class Library:
    """The kernels of a source, compiled with these options (`-DNAME=VALUE`) once a run."""

    def __init__(self, source: str, options: tuple[str, ...]) -> None:
        # Dynamic shared memory has no size to declare.
        source = re.sub(
            r"extern\s+__shared__\s+([\w ]+?)\s+(\w+)\s*\[\s*\]", r"\1* \2 = (\1*)emu::dynamic()",
            source,
        )  # fmt: skip
        self.names = {n: [p.split()[-1].lstrip("*") for p in ps.split(",")]
                      for n, ps in _KERNEL.findall(source)}  # fmt: skip
        entries = "".join(
            f"VISIBLE int run_{n}(emu::Launch* l, void** a)"
            f"{{ return emu::launch(*l, emu::Caller<{n}>::call, a); }}\n"
            f"VISIBLE void describe_{n}(char* out, size_t size)"
            f"{{ emu::describe({n}, out, size); }}\n"
            for n in self.names
        )
        text = (
            f'#include "shim.hpp"\n{source}\n#define VISIBLE extern "C" '
            f'__attribute__((visibility("default")))\n{entries}'
        )
        key = hashlib.sha256(f"{text}{options}".encode()).hexdigest()[:24]
        defines = [o for o in options if o.startswith("-D")]
        path = _folder() / f"{key}.cpp"
        path.write_text(text, encoding="utf-8")
        runtime = [
            str(_compiled(f"{part}.o", "-O2", "-c", str(HERE / f"{part}.cpp")))
            for part in ("fibers", "memory")
        ]
        made = _compiled(f"{key}.o", *_WATCH, "-I", str(HERE), *defines, "-c", str(path))
        library = _compiled(f"{key}.so", "-shared", "-Wl,-Bsymbolic", str(made), *runtime)
        self._library = ctypes.PyDLL(str(library))
        self.kinds = {n: self._kinds(n) for n in self.names}

    def _kinds(self, name: str) -> list[str]:
        out = ctypes.create_string_buffer(2000)
        self._library[f"describe_{name}"](out, ctypes.c_size_t(len(out)))
        return [k for k in out.value.decode().split(",") if k]

    def launch(
        self, name: str, grid: Sequence[int], block: Sequence[int], args: Sequence[Any],
        shared: int = 0,
    ) -> None:  # fmt: skip
        """Run in two orders of threads and blocks, which must give the same.

        Raises KernelError for arguments that the kernel does not take, and for what it does wrong.
        """
        with _lock:  # memory holds what the first of the two runs wrote, for a while
            self._launch(name, grid, block, args, shared)

    def _launch(self, name: str, grid: Any, block: Any, args: Any, shared: int) -> None:
        if name not in self.kinds:
            raise KernelError(f"no kernel {name!r}: the source has {', '.join(self.names)}")
        _check_launch(name, grid, block)
        if len(args) != len(self.kinds[name]):
            raise KernelError(f"{name} takes {len(self.kinds[name])} arguments, given {len(args)}")
        for a, kind, param in zip(args, self.kinds[name], self.names[name], strict=True):
            _check_argument(f"{name}: {param}", a, kind)
        written = [a for a, k in zip(args, self.kinds[name], strict=True)
                   if k.startswith("w") and isinstance(a, np.ndarray)]  # fmt: skip
        before = [a.copy() for a in written]
        self._run(name, grid, block, args, shared, reverse=False)
        first = [a.copy() for a in written]
        for a, b in zip(written, before, strict=True):
            a[...] = b
        atomics = self._run(name, grid, block, args, shared, reverse=True)
        for a, b in zip(written, first, strict=True):
            close = atomics and np.allclose(a, b, rtol=1e-4, equal_nan=a.dtype.kind == "f")
            if not (close or a.tobytes() == b.tobytes()):
                raise KernelError(f"{name}: the result depends on the order of threads")

    def _run(self, name: str, grid: Any, block: Any, args: Any, shared: int, reverse: bool) -> bool:
        held, regions = [], []
        for a, param in zip(args, self.names[name], strict=True):
            if isinstance(a, np.ndarray):
                pointer = a.ctypes.data
                held.append(ctypes.c_void_p(pointer))
                regions.append(_Region(pointer, a.nbytes, a.itemsize, param.encode()))
            else:
                held.append(ctypes.c_double(a) if isinstance(a, float) else ctypes.c_longlong(a))
        pointers = (ctypes.c_void_p * len(held))(*[ctypes.addressof(h) for h in held])
        message = ctypes.create_string_buffer(400)
        full = [(*d, 1, 1)[:3] for d in (grid, block)]
        launch = _Launch(
            (ctypes.c_uint * 3)(*full[0]), (ctypes.c_uint * 3)(*full[1]), shared, reverse,
            len(regions), (_Region * len(regions))(*regions),
            ctypes.cast(message, ctypes.c_char_p), 0,
        )  # fmt: skip
        if self._library[f"run_{name}"](ctypes.byref(launch), pointers):
            raise KernelError(f"{name}: {message.value.decode()}")
        return bool(launch.atomics)


def _check_launch(name: str, grid: Sequence[int], block: Sequence[int]) -> None:
    sizes = [*grid, *block]
    if not all(type(n) is int and n > 0 for n in sizes):
        raise KernelError(f"{name}: launched with {tuple(grid)} blocks of {tuple(block)} threads")
    if np.prod(block) > 1024 or grid[0] >= 2**31 or any(n >= 2**16 for n in grid[1:]):
        raise KernelError(f"{name}: {tuple(grid)} blocks of {tuple(block)} threads are too many")


def _check_argument(what: str, a: Any, kind: str) -> None:
    if kind in ("n", "x"):
        if type(a) is not {"n": int, "x": float}[kind]:
            raise KernelError(f"{what} is {a!r}, expected {'an int' if kind == 'n' else 'a float'}")
    elif isinstance(a, np.ndarray):
        if a.dtype.name != kind[2:]:
            raise KernelError(f"{what} is {a.dtype}, expected {kind[2:]}")
        if not a.flags.c_contiguous:
            raise KernelError(f"{what} is not C-contiguous")
    elif type(a) is not int or a:
        raise KernelError(f"{what} is {a!r}, expected an array of {kind[2:]}, or 0 for none")


@functools.cache
def _library(source: str, options: tuple[str, ...]) -> Library:
    return Library(source, options)


def library(source: str, options: tuple[str, ...]) -> Library:
    with _lock:  # or two threads would compile the same
        return _library(source, options)
