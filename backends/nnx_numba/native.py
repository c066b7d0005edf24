"""Addresses in compiled code: arrays and instructions at them."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.numpy_support import carray

from .compiler import compiled


def _at(typing: Any, address: Any, t: Any) -> Any:
    """The address as a pointer of the type of t."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return t(types.int64, t), generate


def _invoke(typing: Any, function: Any, operands: Any) -> Any:
    """Call the instruction at an address on the operands at another."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, pointer])
        f = builder.inttoptr(args[0], kind.as_pointer())
        builder.call(f, [builder.inttoptr(args[1], pointer), ir.Constant(pointer, None)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


at: Any = intrinsic(_at)
invoke: Any = intrinsic(_invoke)


@compiled()
def launch(program):
    """Run a program: rows of (instruction, operands)."""
    for i in range(program.shape[0]):
        invoke(program[i, 0], program[i, 1])


# What an instruction's operands o from number i on stand for; t carries the dtype.


@compiled()
def vector(o, i, t):
    """Address and size: a flat array."""
    return carray(at(o[i], t), (o[i + 1],))


@compiled()
def matrix(o, i, t):
    """Address, rows and columns."""
    return carray(at(o[i], t), (o[i + 1], o[i + 2]))


@compiled()
def slab(o, i, t):
    """Address and three sizes."""
    return carray(at(o[i], t), (o[i + 1], o[i + 2], o[i + 3]))


@compiled()
def box(o, i, t):
    """Address and five sizes: images (before, H, between, W, after)."""
    return carray(at(o[i], t), (o[i + 1], o[i + 2], o[i + 3], o[i + 4], o[i + 5]))


@compiled()
def lines(o, i, t):
    """Address and size of memory, where the first entry is in it, five strides."""
    return carray(at(o[i], t), (o[i + 1],)), o[i + 2], five(o, i + 3, t)


@compiled()
def five(o, i, t):
    return o[i], o[i + 1], o[i + 2], o[i + 3], o[i + 4]


@compiled()
def pair(o, i, t):
    return o[i], o[i + 1]


@compiled()
def ids(o, i, t):
    """Address and size: a flat array of int64, as the operands are."""
    return carray(at(o[i], o), (o[i + 1],))


@compiled()
def number(o, i, t):
    """Address: a 0-d array."""
    return carray(at(o[i], t), ())


@compiled()
def real(o, i, t):
    """The bits of a float64."""
    return np.int64(o[i]).view(np.float64)


@compiled()
def flag(o, i, t):
    return o[i] != 0
