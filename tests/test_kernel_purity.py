"""Kernels keep to what all that run them can do: array libraries, traced arrays, Tensors."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import samples
from purity import ARRAY, PLAIN, Reader, derivative_reader, forward_reader

import nnx
import nnx.ops
import nnx.optim.kernels
from nnx.op import Op, _unbroadcast
from nnx.optim import kernels
from nnx.update import UPDATES

UPDATE_KERNELS = {k: u.kernel for k, u in UPDATES.items() if k.startswith("nnx.")}
LOOSE = {"_unbroadcast": _unbroadcast, "_norm": kernels._norm, "_factor": kernels._factor}


@pytest.mark.parametrize("name", samples.ops())
def test_ops_are_pure(name: str) -> None:
    op = samples.ops()[name]
    readers = [
        forward_reader(op.forward),
        *(derivative_reader(op, d.kernel) for d in op.derivatives),
    ]
    for reader in readers:
        assert reader.read() != PLAIN, "a kernel's result is made of arrays"
        assert reader.faults == []


@pytest.mark.parametrize("name", [*UPDATE_KERNELS, *LOOSE])
def test_update_kernels_and_loose_ones_are_pure(name: str) -> None:
    """Of an update kernel the numbers that change from step to step count as arrays: replay
    makes 0-d arrays of them."""
    reader = forward_reader({**UPDATE_KERNELS, **LOOSE}[name])
    assert reader.read() != PLAIN
    assert reader.faults == []


def test_there_are_kernels_to_read() -> None:
    assert len(samples.ops()) >= 55 and len(UPDATE_KERNELS) >= 10
    assert "nnx.backward.accumulate" in UPDATE_KERNELS


def modules() -> list[str]:
    folder = Path(nnx.ops.__file__).parent
    return [f"nnx.ops.{p.stem}" for p in sorted(folder.glob("*.py"))] + ["nnx.optim.kernels"]


@pytest.mark.parametrize("name", modules())
def test_modules_of_kernels_import_no_array_library(name: str) -> None:
    module = importlib.import_module(name.removesuffix(".__init__"))
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Import):
            assert {a.name for a in node.names} <= {"math"}
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert node.module in ("__future__", "math", "typing")


# It can fail: each snippet is read with x and g as arrays, n and axes as plain values.


def helper(xp: Any, v: Any) -> Any:
    return v.sum()


SNIPPETS: dict[str, tuple[Callable[..., Any], str]] = {}


def bad(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def keep(f: Callable[..., Any]) -> Callable[..., Any]:
        SNIPPETS[f.__name__] = (f, what)
        return f

    return keep


@bad("the method .sum() of an array")
def method(xp: Any, x: Any) -> Any:
    return x.sum()


@bad("the method .sum() of an array")
def method_in_a_helper(xp: Any, x: Any) -> Any:
    return helper(xp, xp.exp(x))


@bad(".T of an array")
def attribute(xp: Any, x: Any) -> Any:
    return x.T


@bad("len() of an array")
def length(xp: Any, x: Any) -> Any:
    return x * len(x)


@bad("float() of an array")
def to_float(xp: Any, x: Any) -> Any:
    return x * float(xp.max(x))


@bad("math on an array")
def to_math(xp: Any, x: Any) -> Any:
    import math

    return math.exp(x)


@bad("augmented assignment to an array")
def augmented(xp: Any, x: Any) -> Any:
    y = x * 2
    y += 1
    return y


@bad("an assignment into an object")
def written(xp: Any, x: Any) -> Any:
    y = xp.zeros_like(x)
    y[0] = 1
    return y


@bad("out=")
def out(xp: Any, x: Any) -> Any:
    return xp.exp(x, out=x)


@bad("a branch on an array's values")
def branch(xp: Any, x: Any) -> Any:
    if xp.all(x > 0):
        return x
    return -x


@bad("a branch on an array's values")
def branch_in_an_expression(xp: Any, x: Any) -> Any:
    return x if xp.max(x) > 0 else -x


@bad("iteration over an array")
def iterated(xp: Any, x: Any) -> Any:
    return xp.stack([row * 2 for row in x])


@bad("xp.nonzero is not in the Array API standard")
def data_dependent(xp: Any, x: Any) -> Any:
    return xp.nonzero(x)[0]


@bad("xp.einsum is not in the Array API standard")
def beyond_the_standard(xp: Any, x: Any) -> Any:
    return xp.einsum("ij->i", x)


@bad("a call of print")
def effect(xp: Any, x: Any) -> Any:
    print(x)
    return x


@bad("a Import statement")
def imported(xp: Any, x: Any) -> Any:
    import numpy

    return numpy.exp(x)


@pytest.mark.parametrize("name", SNIPPETS)
def test_it_finds(name: str) -> None:
    f, what = SNIPPETS[name]
    reader = Reader(f, {"x": ARRAY})
    reader.read()
    assert any(fault.endswith(what) for fault in reader.faults), reader.faults


def counting(xp: Any, x: Any, *, sizes: Any) -> Any:
    start, pieces = 0, []
    for n in sizes:
        pieces.append(x[start : start + n])
        start += n
    return xp.concat(pieces) if len(sizes) == len(x.shape) and x is not None else x @ x


def test_it_lets_counters_and_shapes_pass() -> None:
    reader = Reader(counting, {"x": ARRAY})
    reader.read()
    assert reader.faults == []


def test_a_broken_op_is_found() -> None:
    """Derivatives are read with what they read: an extra array is an array there too."""

    def forward(xp: Any, x: Any) -> Any:
        h = xp.exp(x)
        return h, {"h": h, "shape": tuple(x.shape)}

    def derivative(xp: Any, dy: Any, h: Any, shape: Any) -> Any:
        return dy * h.mean() * len(shape)

    op: Op[...] = Op(forward)
    op.d("x")(derivative)
    reader = derivative_reader(op, derivative)
    reader.read()
    assert [f.partition(": ")[2] for f in reader.faults] == ["the method .mean() of an array"]
