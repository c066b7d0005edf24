"""CuPy's table of kernels, and what several of them need."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from nnx.calls import calls
from nnx.op import Op
from nnx.override import Fused, Overrides

from .launch import TYPES, dtype_name

Array = Any
Run = Any  # what kernels call through: see nnx.calls

overrides = Overrides()


def plain(x: Array, y: Array = None) -> bool:
    """Whether they are C-contiguous, not empty, of one shape and of one dtype that kernels take."""
    if dtype_name(x.dtype) not in TYPES or not x.flags.c_contiguous or not x.size:
        return False
    if y is None:
        return True
    return bool(y.dtype == x.dtype and y.shape == x.shape and y.flags.c_contiguous)


def floats(*arrays: Array) -> bool:
    """Whether they are not empty and of one dtype that kernels take, in any order of memory."""
    dtype = arrays[0].dtype
    return dtype_name(dtype) in TYPES and all(a.size and a.dtype == dtype for a in arrays)


def contiguous(run: Run, a: Array) -> Array:
    """The array, or a copy of it in the order of C."""
    if a.flags.c_contiguous:
        return a
    made = run.empty(a.shape, a.dtype)
    run(sys.modules["cupy"].copyto, made, a)
    return made


def stacked(a: Array, b: Array, *, out: Array) -> None:
    """out = a @ b for each of stacks of matrices. In a graph it is one product (`Product`); CuPy's
    own of stacks copies what is transposed, and knows no lower precision.
    """
    matmul = sys.modules["cupy"].matmul
    for i in range(out.shape[0]):
        matmul(a[i], b[i], out=out[i])


def with_extras(op: Op[...], *names: str) -> Callable[..., Any]:
    """The portable forward, with None for the extras that a backend's own kernel keeps."""
    nothing = dict.fromkeys(names)

    def forward(xp: Any, *args: Array, **attrs: Any) -> Any:
        y, extras = op.forward(xp, *args, **attrs)
        return y, {**nothing, **extras}

    return forward


def slope(fused: Fused, op: Op[...], argument: str) -> Callable[[Any], Any]:
    """Register a derivative of a fused override, which may name the portable one's extras too.

    Where it returns None the portable derivative runs.
    """
    (portable,) = (d for d in op.derivatives if argument in d.arguments)

    def define(f: Any) -> Any:
        code = f.__code__
        names = code.co_varnames[2 : code.co_argcount]
        at = [names.index(name) for name in portable.reads]

        def otherwise(xp: Any, dy: Array, *given: Any) -> Any:
            return portable.kernel(xp, dy, *[given[i] for i in at])

        return fused.d(argument)(calls(otherwise=otherwise)(f))

    return define
