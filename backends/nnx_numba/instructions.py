"""Loops as instructions: compiled functions of operands that lie in memory, one after another.

    void instruction(int64 *o, T *t)

o: addresses, sizes and numbers; t: null, it carries the dtype. A replay is a list of these (see
`program.py`), so that nothing of Python runs between two loops.
"""

from __future__ import annotations

import functools
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types

from . import blas, dense, images, loops, rows, strided, updates
from .native import (
    box,
    five,
    flag,
    ids,
    lines,
    matrix,
    number,
    pair,
    real,
    slab,
    vector,
)

DTYPES = {np.dtype(np.float32): types.float32, np.dtype(np.float64): types.float64}

# What a loop's arguments are: v a flat array, m a matrix of rows, q an array of three axes, p of
# five, s of any strides (see strided.py), l flat int64, n a 0-d array; i an int, w two of them, z
# five, b a bool, f a float.
SPECS: dict[Any, str] = {
    **dict.fromkeys((loops.relu, loops.sigmoid, loops.tanh, loops.softplus, loops.silu), "v v"),
    **dict.fromkeys((loops.gelu, loops.gelu_tanh), "v v"),
    **dict.fromkeys((loops.relu_slope, loops.sigmoid_slope, loops.tanh_slope), "v v v"),
    **dict.fromkeys((loops.softplus_slope, loops.silu_slope), "v v v"),
    **dict.fromkeys((loops.gelu_slope, loops.gelu_tanh_slope), "v v v"),
    **dict.fromkeys((loops.softmax, loops.log_softmax), "m m"),
    **dict.fromkeys((loops.softmax_slope, loops.log_softmax_slope), "m m m"),
    loops.cross_entropy: "m l i b v n m",
    loops.scaled: "v n v",
    loops.scaled_rows: "m v m",
    loops.scale: "v n",
    loops.copied: "v v",
    **dict.fromkeys((dense.add_bias, dense.bias_relu, dense.bias_sigmoid), "m v"),
    dense.bias_tanh: "m v",
    dense.column_sums: "m v",
    **dict.fromkeys((dense.relu_slope_sums, dense.sigmoid_slope_sums), "m m m v"),
    dense.tanh_slope_sums: "m m m v",
    images.max_pool: "p w w w p",
    images.max_pool_slope: "p p w w w b p",
    images.avg_pool: "p w w w b p",
    images.avg_pool_slope: "p w w w b p",
    images.channel_sums: "q v",
    rows.layer_norm: "m v v f v v m",
    rows.layer_norm_slope: "m m v v v m v v",
    strided.combined: "i z s s s f",
    updates.sgd: "v v n f",
    updates.momentum: "v v v n n f b f",
    updates.adagrad: "v v v n f f",
    updates.rmsprop: "v v v n f f f",
    updates.rmsprop_momentum: "v v v v n f f f f",
    updates.rmsprop_centered: "v v v v n f f f",
    updates.rmsprop_centered_momentum: "v v v v v n f f f f",
    updates.adam: "v v v v n n f f f",
    updates.adamw: "v v v v n n n f f",
}

_READ = {
    "v": vector, "m": matrix, "q": slab, "p": box, "s": lines, "l": ids, "n": number, "i": None,
    "w": pair, "z": five, "b": flag, "f": real,
}  # fmt: skip
_WIDTH = {"v": 2, "m": 3, "q": 4, "p": 6, "s": 8, "l": 2, "w": 2, "z": 5}  # operands; else 1


class Compiled(NamedTuple):
    """An instruction for a dtype; `code` keeps it alive."""

    address: int
    code: Any


@functools.cache
def instruction(loop: Any, dtype: Any) -> Compiled:
    """A loop, or "gemm" or "gemv", as an instruction: compiled when it is first asked for."""
    if isinstance(loop, str):
        return _compiled(*blas.source(loop, dtype), dtype)
    parts, place = [], 0
    for kind in SPECS[loop].split():
        read = _READ[kind]
        parts.append(f"o[{place}]" if read is None else f"{read.__name__}(o, {place}, t)")
        place += _WIDTH.get(kind, 1)
    name = f"{loop.__name__}_{_edition()}"
    source = f"def {name}(o, t):\n    {loop.__name__}({', '.join(parts)})\n"
    scope = {f.__name__: f for f in (loop, *filter(None, _READ.values()))}
    return _compiled(name, source, scope, dtype)


def _compiled(name: str, source: str, scope: dict[str, Any], dtype: Any) -> Compiled:
    """The function is made of text, under this file's name: numba keeps what belongs to a file, and
    does not know again a function with others in its closure. The edition of the loops, whose code
    becomes part of it, is in its name.
    """
    scope = {**scope, "__name__": __name__}
    exec(compile(source, __file__, "exec"), scope)
    o, t = types.CPointer(types.int64), types.CPointer(DTYPES[dtype])
    keep = type(loops.relu._cache).__name__ != "NullCache"  # a folder for it was found
    code: Any = numba.cfunc(types.void(o, t), cache=keep, error_model="numpy")(scope[name])
    return Compiled(code.address, code)


@functools.cache
def _edition() -> int:
    files = sorted(Path(__file__).parent.glob("*.py"))
    stamps = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return zlib.crc32(repr(stamps).encode())


def operands(loop: Any, args: tuple[Any, ...]) -> list[Any]:
    """What the instruction reads: ints, and arrays, which stand for their addresses."""
    found: list[Any] = []
    for kind, a in zip(SPECS[loop].split(), args, strict=True):
        if kind in ("v", "l"):
            found += [a, a.size]
        elif kind in ("m", "q", "p"):
            found += [a, *a.shape]
        elif kind == "s":
            found += [*a[:-1], *a[-1]]
        elif kind in ("w", "z"):
            found += a
        elif kind == "f":
            found.append(int(np.float64(a).view(np.int64)))
        else:
            found.append(a if isinstance(a, np.ndarray) else int(a))
    return found
