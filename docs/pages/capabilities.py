"""What each op can do: on which backend by which kernel, in which dtypes, to which order.

Kernels are read from the registry and the backends' tables; the rest is tried, on the arguments
that the tests use.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

import nnx
from nnx.op import REGISTRY, Op
from nnx.override import Overrides

PACKAGES = {"numpy": "nnx_numpy", "numba": "nnx_numba", "cupy": "nnx_cupy"}


def page() -> str:
    cases = _cases()
    ops = sorted((op for op in REGISTRY.values() if op.name in cases), key=lambda op: op.name)
    columns = {name: _column(name, ops, cases) for name in PACKAGES}
    head = ["op", *columns, "derivatives by", "higher orders"]
    rows = [
        [
            f"`{op.name}`", *(column[i] for column in columns.values()),
            _derivatives(op), _higher(op, cases[op.name]),
        ]
        for i, op in enumerate(ops)
    ]  # fmt: skip
    table = "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
    return f"{_ABOUT}\n\n{table}\n\n## Fused in a replay\n\n{_fusions()}\n"


_ABOUT = """# What each op can do

Made from the registry of ops when this site is built.

| word | means |
|---|---|
| portable | the one kernel in `nnx/ops/`, by functions of the Array API standard |
| own | the backend has a kernel of its own for the forward, one of its own or of its parent |
| + derivatives | and for derivatives |
| 16, 32, 64 | float16, float32, float64: tried, on a backend that could be run here |
| higher orders | tried: the derivative has a derivative; by portable kernels on every backend |

A plugin's backend uses the portable kernels for all that it does not replace."""


def _column(name: str, ops: list[Op[...]], cases: dict[str, Any]) -> list[str]:
    table = _table(name)
    kernels = ["?" if table is None else _kernel(op, table) for op in ops]
    if not nnx.backends()[name].available:
        return kernels
    with nnx.use_backend(name):
        widths = [_widths(op, cases[op.name][0]) for op in ops]
    return [f"{kernel}; {width}" for kernel, width in zip(kernels, widths, strict=True)]


def _table(name: str) -> Overrides | None:
    """A backend's kernels; None if it cannot be run, and has none that can be seen without."""
    if nnx.backends()[name].available:
        with nnx.use_backend(name) as backend:
            found = backend.kernels
    else:
        module = importlib.import_module(PACKAGES[name])
        found = next(getattr(module, n) for n in module.__all__ if n.endswith("Backend")).kernels
    return found if isinstance(found, Overrides) and (found or found.parent) else None


def _chain(table: Overrides) -> list[Overrides]:
    return [table, *(_chain(table.parent) if table.parent is not None else ())]


def _kernel(op: Op[...], table: Overrides) -> str:
    own = next((part[op] for part in _chain(table) if op in part), None)
    if own is None:
        return "portable"
    theirs = {d.arguments: d.kernel for d in op.derivatives}
    forward = own.forward is not op.forward
    derivatives = any(theirs.get(d.arguments) is not d.kernel for d in own.derivatives)
    if not forward:
        return "own derivatives"
    return "own + derivatives" if derivatives else "own"


def _cases() -> dict[str, Any]:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    try:
        from samples import SAMPLES  # type: ignore[import-not-found]
    finally:
        del sys.path[0]
    return {name: [c for c in found if _floats(c)] or found for name, found in SAMPLES.items()}


def _floats(case: Any) -> bool:
    args, _ = case.make("float64")
    return any(isinstance(a, np.ndarray) and a.dtype.kind == "f" and a.size for a in args)


def _widths(op: Op[...], case: Any) -> str:
    return " ".join(width for width in ("16", "32", "64") if _takes(op, case, f"float{width}"))


def _takes(op: Op[...], case: Any, dtype: str) -> bool:
    args, attrs = case.make(dtype)
    try:
        with np.errstate(all="ignore"):
            op(*[_arrays(a) for a in args], **attrs)
    except nnx.NnxError:
        return False
    return True


def _arrays(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_arrays, value))
    return nnx.asarray(value) if isinstance(value, np.ndarray) else value


def _derivatives(op: Op[...]) -> str:
    return ", ".join(a for d in op.derivatives for a in d.arguments) or "none"


def _higher(op: Op[...], cases: list[Any]) -> str:
    """Whether the derivative is recorded, and what is recorded can be walked back again."""
    if not op.derivatives:
        return "-"
    args, attrs = cases[0].make("float64")
    wanted = {a for d in op.derivatives for a in d.arguments}
    names = op.signature.arrays if not op.signature.variadic else op.signature.arrays * len(args)
    leaves = []
    for i, (name, a) in enumerate(zip(names, args, strict=False)):
        if name in wanted and isinstance(a, np.ndarray) and a.dtype.kind == "f":
            args[i] = nnx.Tensor(a, requires_grad=True)
            leaves.append(args[i])
    try:
        y = op(*args, **attrs)
        for part in y if isinstance(y, tuple) else (y,):
            part.backward(nnx.Tensor(np.ones(part.shape), requires_grad=True), create_graph=True)
            break
        grad = leaves[0].grad
        if not isinstance(grad, nnx.Tensor):
            return "no"
        (grad * grad).sum().backward()
    except nnx.NnxError as error:
        return f"no: {type(error).__name__}"
    return "yes"


def _fusions() -> str:
    lines = ["| backend | kernels in a row | the same to the last bit |", "|---|---|---|"]
    tables = {name: table for name in PACKAGES if (table := _table(name)) is not None}
    found = [(name, fusion) for name, table in tables.items() for fusion in table.fusions]
    for name, fusion in found:
        steps = ", ".join(f"`{_named(target)}`" for target, _, _ in fusion.steps)
        lines.append(f"| {name} | {steps} | {'yes' if fusion.exact else 'no: on request'} |")
    return "\n".join(lines)


def _named(target: Any) -> str:
    if isinstance(target, tuple):
        op, *arguments = target
        return f"{op.name} by {', '.join(arguments)}"
    return str(getattr(target, "name", None) or getattr(target, "__name__", target))
