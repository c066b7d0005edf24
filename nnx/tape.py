"""The tape: what is recorded of a call. It knows no op; `backward.py` walks back over it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from .arrays import asarray
from .backend import Backend, backend_of
from .op import Op
from .signature import Derivative, Kernels
from .tensor import Hook, Tensor, tensor

_recording: ContextVar[bool] = ContextVar("nnx_recording", default=True)
_sequence = itertools.count()


@contextmanager
def no_grad() -> Iterator[None]:
    """`with no_grad():` nothing is recorded and nothing kept, in this thread."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


def is_recording() -> bool:
    """Whether ops on Tensors are recorded here (False inside `no_grad`)."""
    return _recording.get()


# Where an argument came from: a node's output or a leaf, which output, its shape and version. A
# plain tuple, because one is made for each argument of each call.
Edge = tuple["Node | Tensor", int, tuple[int, ...], int]


class Plan(NamedTuple):
    """What a call notes, given which of its arguments want a gradient.

    kept       (name, position) of the arguments that derivatives read; position -1 is all of them
    absent     names of those that were left out
    extras     names of the extras that they read
    attributes names of the attributes that they read
    y          whether they read the result
    portable   whether the derivatives are the op's own, not a backend's
    """

    derivatives: tuple[Derivative, ...]
    kept: tuple[tuple[str, int], ...]
    absent: tuple[str, ...]
    extras: tuple[str, ...]
    attributes: tuple[str, ...]
    y: bool
    portable: bool


class Node:
    """One recorded call: the op, where its arguments came from, and what its derivatives read."""

    __slots__ = (
        "attrs", "backend", "edges", "hooks", "kept", "op", "outputs", "plan", "sequence",
    )  # fmt: skip
    _version = 0  # what was computed does not change; only a leaf's data can

    def __init__(
        self, op: Op[...], backend: Backend, plan: Plan, edges: list[Edge | None],
        attrs: Mapping[str, Any], kept: dict[str, Any], outputs: list[Any] | None,
    ) -> None:  # fmt: skip
        self.op, self.backend, self.plan, self.edges, self.attrs = op, backend, plan, edges, attrs
        self.kept: dict[str, Any] | None = kept
        self.outputs = outputs  # shapes and dtypes, where the result is a tuple
        self.sequence = next(_sequence)
        self.hooks: dict[int, list[Hook]] | None = None


def record(op: Op[...], args: tuple[Any, ...], attrs: Mapping[str, Any]) -> Any:
    """Compute, and note the call if a gradient can be asked for later."""
    recording = _recording.get()
    bare, wanted, edges = [], [], list[Edge | None]()
    for a in args:
        if isinstance(a, Tensor):
            data = a._data
            bare.append(data)
            if recording and a.requires_grad:
                wanted.append(True)
                edges.append((a._node or a, a._index, getattr(data, "shape", ()), a._version))
                continue
        else:
            bare.append(a)
        wanted.append(False)
        edges.append(None)
    noted = True in wanted
    backend, kernels, y, extras = op.compute(tuple(bare), attrs, alone=not noted)
    if backend.recording:
        backend.used(args)  # type: ignore[attr-defined]
    if noted:
        key = tuple(wanted)
        plan: Plan = kernels.plans.get(key) or _plan(op, kernels, key, extras)
        if plan.derivatives:
            return _noted(op, backend, plan, edges, bare, attrs, y, extras)
    return tuple(map(tensor, y)) if type(y) is tuple else tensor(y)


def _noted(
    op: Op[...], backend: Backend, plan: Plan, edges: list[Edge | None], bare: Any,
    attrs: Mapping[str, Any], y: Any, extras: dict[str, Any],
) -> Any:  # fmt: skip
    kept: dict[str, Any] = dict.fromkeys(plan.absent)
    for name, i in plan.kept:
        kept[name] = bare[i] if i >= 0 else tuple(bare)
    for name in plan.extras:
        kept[name] = extras[name]
    for name in plan.attributes:
        kept[name] = attrs[name] if name in attrs else op.signature.defaults[name]
    if plan.y:
        kept["y"] = y
    if type(y) is tuple:
        outputs = [(v.shape, v.dtype) for v in y]
        node = Node(op, backend, plan, edges, attrs, kept, outputs)
        return tuple(tensor(v, True, node, i) for i, v in enumerate(y))
    return tensor(y, True, Node(op, backend, plan, edges, attrs, kept, None))


def _plan(op: Op[...], kernels: Kernels, wanted: tuple[bool, ...], extras: dict[str, Any]) -> Plan:
    """An extra array is recomputed from the arguments when its derivative is itself recorded, so
    the arguments stay too; so they do for a backend's own kernels, whose reads may be others.
    """
    arrays, attributes, variadic = (
        op.signature.arrays,
        op.signature.attributes,
        op.signature.variadic,
    )
    derivatives = needed(op, kernels.derivatives, wanted)
    reads = {name for d in derivatives for name in d.reads}
    mine = tuple(sorted(reads & extras.keys()))
    again = not kernels.portable or any(not higher.is_constant(extras[name]) for name in mine)
    kept = [(n, -1 if variadic else i) for i, n in enumerate(arrays) if n in reads or again]
    plan = Plan(
        derivatives,
        tuple((n, i) for n, i in kept if i < len(wanted)),
        tuple(n for n, i in kept if i >= len(wanted)),
        mine,
        tuple(sorted(reads & set(attributes))),
        "y" in reads and "y" not in arrays,
        kernels.portable,
    )
    kernels.plans[wanted] = plan
    return plan


def needed(
    op: Op[...], derivatives: tuple[Derivative, ...], wanted: tuple[bool, ...]
) -> tuple[Derivative, ...]:
    if op.signature.variadic:
        return derivatives
    names = {n for n, w in zip(op.signature.arrays, wanted, strict=False) if w}
    return tuple(d for d in derivatives if not names.isdisjoint(d.arguments))


def _to_backend(xp: Any, x: Any, *, backend: Backend) -> Any:
    return asarray(x, backend=backend), {"home": (backend_of(x),)}


move: Op[...] = Op(_to_backend)


@move.d("x")
def _(xp, dy, home):  # type: ignore[no-untyped-def]
    return move(dy, backend=home[0])


from . import higher  # noqa: E402 - it records through the tape what the tape walks back over
