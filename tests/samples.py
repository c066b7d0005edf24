"""Sample arguments of every op: one registry, which every generic test of the ops reads.

`SAMPLES[name]` lists the cases of the op `nnx.<name>`. An argument is a maker (drawn anew for each
test from the case's own seed), a Python number or None. Makers keep away from the points where a
function has no derivative, so that central differences hold for every case but those marked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import image_samples
from makers import (
    Case,
    Maker,
    apart,
    case,
    ids,
    mask,
    normal,
    onehot,
    positive,
    shifted,
    soft,
    some_ignored,
    unit,
)

import nnx
from nnx.op import REGISTRY, Op


def unary(make: Callable[..., Maker]) -> list[Case]:
    return [case(make(*shape)) for shape in ((), (5,), (2, 3), (2, 1, 3), (0, 3))]


def binary(first: Callable[..., Maker], second: Callable[..., Maker]) -> list[Case]:
    shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
        ((), ()), ((2, 3), (2, 3)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((3,), (2, 1, 1)),
        ((4,), ()), ((0, 3), (3,)), ((2, 1, 3), (0, 1)),
    ]  # fmt: skip
    pairs = [case(first(*a), second(*b)) for a, b in shapes]
    return [*pairs, case(first(2, 3), 1.7), case(1.7, second(2, 3))]


def reductions(make: Callable[..., Maker]) -> list[Case]:
    return [
        case(make()), case(make(5)), case(make(2, 3)), case(make(2, 3), axis=0),
        case(make(2, 3), axis=-1, keepdims=True), case(make(2, 3, 4), axis=(0, 2)),
        case(make(2, 3, 4), axis=(-1, 0), keepdims=True), case(make(2, 3), keepdims=True),
        case(make(0, 3), axis=1), case(make(0, 3), axis=-1, keepdims=True),
    ]  # fmt: skip


def along(make: Callable[..., Maker]) -> list[Case]:
    return [
        case(make(5)), case(make(2, 3)), case(make(2, 3), axis=0), case(make(2, 3, 4), axis=-2),
        case(make(1, 1)), case(make(0, 3)),
    ]  # fmt: skip


def pairs_of_rows(y: Callable[..., Maker], t: Callable[..., Maker], **attrs: Any) -> list[Case]:
    """Losses of prediction and target of one shape."""
    return [
        *(case(y(2, 3), t(2, 3), reduction=r, **attrs) for r in ("mean", "sum", "none")),
        case(y(1), t(1), **attrs), case(y(3), t(3), **attrs), case(y(2, 3, 2), t(2, 3, 2), **attrs),
        case(y(0, 3), t(0, 3), reduction="sum", **attrs),
        case(y(0, 3), t(0, 3), reduction="none", **attrs),
    ]  # fmt: skip


ELEMENTWISE: dict[str, list[Case]] = {
    "add": binary(normal, normal),
    "subtract": binary(normal, normal),
    "multiply": binary(normal, normal),
    "divide": binary(normal, positive),
    "maximum": binary(apart, shifted),
    "minimum": binary(apart, shifted),
    "pow": [
        *binary(positive, normal),
        case(normal(2, 3), 2), case(normal(2, 3), 3.0), case(positive(2, 3), -1),
        case(normal(2, 3), 1), case(normal(2, 3), 0), case(positive(3), 0.5),
    ],
    **{name: unary(normal) for name in ("negative", "exp", "expm1", "erf", "sigmoid", "tanh")},
    **{name: unary(normal) for name in ("softplus", "silu")},
    **{name: unary(positive) for name in ("log", "log1p", "sqrt")},
    **{name: unary(apart) for name in ("abs", "relu")},
    "leaky_relu": [*unary(apart), case(apart(2, 3), slope=0.3)],
    "elu": [*unary(apart), case(apart(2, 3), alpha=0.5)],
    "gelu": [
        *unary(normal),
        *(case(normal(*s), approximate="tanh") for s in ((), (2, 3), (0, 3))),
    ],
    "clip": [
        *unary(apart), case(apart(2, 3), min=-0.3, max=0.3), case(apart(2, 3), min=-0.3),
        case(apart(2, 3), max=0.3), case(apart(0, 3), max=0.3), case(apart(), min=-1, max=1),
    ],
    "where": [
        case(mask(), normal(), normal()), case(mask(2, 3), normal(2, 3), normal(2, 3)),
        case(mask(2, 3), normal(3), normal(2, 1)), case(mask(3), normal(2, 3), normal()),
        case(mask(2, 3), normal(2, 3), 0.5), case(mask(2, 3), 0.5, normal(3)),
        case(mask(0, 3), normal(0, 3), normal(3)),
    ],
    "astype": [
        *(case(normal(*s), dtype="float64") for s in ((), (2, 3), (0, 3))),
        *(case(normal(*s), dtype="float32", smooth=False) for s in ((), (2, 3))),
    ],
    "dropout": [
        case(normal(), unit()), case(normal(2, 3), unit(2, 3)), case(normal(2, 3), unit(2, 3), p=0),
        case(normal(4, 5), unit(4, 5), p=0.9), case(normal(0, 3), unit(0, 3)),
    ],
}  # fmt: skip

ARRANGING: dict[str, list[Case]] = {
    "sum": [*reductions(normal), case(normal(0, 3)), case(normal(0, 3), axis=0)],
    "mean": reductions(normal),
    "max": reductions(apart),
    "min": reductions(apart),
    "var": [*reductions(normal), case(normal(2, 3), correction=1),
    case(normal(4, 3), axis=0, correction=1)],
    "logsumexp": reductions(normal),
    "softmax": along(normal),
    "log_softmax": along(normal),
    "reshape": [
        case(normal(2, 3), shape=(3, 2)), case(normal(2, 3), shape=(-1,)),
        case(normal(), shape=(1, 1)),
        case(normal(1, 1), shape=()), case(normal(0, 3), shape=(3, 0)),
    ],
    "permute_dims": [
        case(normal(), axes=()), case(normal(2, 3), axes=(1, 0)),
        case(normal(2, 3, 4), axes=(2, 0, 1)),
        case(normal(2, 3, 4), axes=(-1, 0, -2)), case(normal(0, 3), axes=(1, 0)),
    ],
    "matrix_transpose": [case(normal(2, 3)), case(normal(4, 2, 3)), case(normal(0, 3))],
    "expand_dims": [
        case(normal(), axis=0), case(normal(2, 3), axis=1), case(normal(2, 3), axis=-1),
        case(normal(0, 3), axis=0),
    ],
    "squeeze": [
        case(normal(1, 3), axis=0), case(normal(2, 1), axis=-1), case(normal(1, 2, 1), axis=(0, 2)),
        case(normal(1, 0), axis=0), case(normal(1), axis=0),
    ],
    "broadcast_to": [
        case(normal(3), shape=(2, 3)), case(normal(2, 1), shape=(4, 2, 3)),
        case(normal(), shape=(2,)),
        case(normal(2, 3), shape=(2, 3)), case(normal(1), shape=(0,)),
        case(normal(0, 1), shape=(0, 3)),
    ],
    "concat": [
        case(normal(2, 3), normal(1, 3)), case(normal(2, 1), normal(2, 3), normal(2, 2), axis=1),
        case(normal(2, 3), normal(2, 1), axis=-1), case(normal(2)),
        case(normal(0, 3), normal(2, 3)),
        case(normal(0, 3), normal(0, 3)),
    ],
    "stack": [
        case(normal(), normal()), case(normal(2, 3), normal(2, 3)),
        case(normal(2), normal(2), axis=1),
        case(normal(2, 3), normal(2, 3), normal(2, 3), axis=-1), case(normal(0, 3), normal(0, 3)),
    ],
    "split": [
        case(normal(6), sizes=3), case(normal(5, 2), sizes=(2, 3)),
        case(normal(2, 6), sizes=(1, 5), axis=1),
        case(normal(2, 4), sizes=2, axis=-1), case(normal(3), sizes=(0, 3)),
        case(normal(0, 3), sizes=2),
    ],
    "getitem": [
        case(normal(), index=()), case(normal(5), index=2), case(normal(4, 3), index=-1),
        case(normal(4, 3), index=slice(1, 3)), case(normal(4, 3), index=(slice(None, None, -2), 1)),
        case(normal(4, 3), index=(None, ..., slice(0, 2))), case(normal(4, 3), index=...),
        case(normal(4, 3), index=(0, 2)), case(normal(4, 3), index=slice(2, 2)),
        case(normal(0, 3), index=slice(None)), case(normal(5), index=ids(7, below=5, low=-5)),
        case(normal(4, 3), index=(ids(6, below=4), ids(6, below=3))),
        case(normal(4, 3), index=(ids(2, 1, below=4), ids(3, below=3))),
        case(normal(4, 3), index=(ids(6, below=4), 1)),
        case(normal(4, 3), index=ids(6, below=4), standard=False),
        case(normal(4, 3), index=(slice(None), ids(2, 2, below=3)), standard=False),
        case(normal(4, 3, 2), index=(..., ids(3, below=2)), standard=False),
    ],
    "getitem_adjoint": [
        case(normal(), index=2, shape=(5,)), case(normal(3), index=1, shape=(4, 3)),
        case(normal(2, 3), index=slice(1, 3), shape=(4, 3)),
        case(normal(0, 3), index=slice(2, 2), shape=(4, 3)),
        case(normal(6), index=(ids(6, below=4), ids(6, below=3)), shape=(4, 3)),
        case(normal(7), index=ids(7, below=3), shape=(3,)),
        case(normal(6, 3), index=ids(6, below=4), shape=(4, 3), standard=False),
    ],
    "take": [
        case(normal(5), ids(7, below=5)), case(normal(4, 3), ids(6, below=4)),
        case(normal(4, 3), ids(2, 2, below=3), axis=1),
        case(normal(2, 3, 4), ids(5, below=4), axis=-1), case(normal(4, 3), ids(below=4)),
        case(normal(4, 3), ids(0, below=4)), case(normal(0, 3), ids(2, below=3), axis=1),
        case(normal(4, 3), ids(3, below=4, dtype="int32")),
        case(normal(4, 3), ids(9, below=4, low=-4)),
    ],
    "scatter_add": [
        case(normal(7), ids(7, below=5), size=5), case(normal(6, 3), ids(6, below=4), size=4),
        case(normal(4, 2, 2), ids(2, 2, below=3), size=3, axis=1),
        case(normal(3), ids(below=4), size=4),
        case(normal(2, 3, 5), ids(5, below=4), size=4, axis=2),
        case(normal(0, 3), ids(0, below=4), size=4),
        case(normal(3, 3), ids(3, below=4, dtype="int32"), size=4),
        case(normal(9, 2), ids(9, below=4, low=-4), size=4),
    ],
}  # fmt: skip

LINEAR: dict[str, list[Case]] = {
    "matmul": [
        case(normal(3), normal(3)), case(normal(2, 3), normal(3, 4)), case(normal(2, 3), normal(3)),
        case(normal(3), normal(3, 4)), case(normal(5, 2, 3), normal(5, 3, 4)),
        case(normal(5, 2, 3), normal(3, 4)),
        case(normal(2, 3), normal(5, 3, 4)), case(normal(2, 1, 2, 3), normal(4, 3, 2)),
        case(normal(5, 2, 3), normal(3)), case(normal(3), normal(5, 3, 4)),
        case(normal(2, 1, 3), normal(1, 3, 2)),
        case(normal(0, 3), normal(3, 4)), case(normal(2, 0), normal(0, 3)),
        case(normal(0, 2, 3), normal(3, 4)),
    ],
    "affine": [
        case(normal(2, 3), normal(3, 4), normal(4)), case(normal(2, 3), normal(3, 4)),
        case(normal(2, 3), normal(3, 4), None), case(normal(3), normal(3, 4), normal(4)),
        case(normal(2, 5, 3), normal(3, 4), normal(4)), case(normal(0, 3), normal(3, 4), normal(4)),
        case(normal(2, 0, 3), normal(3, 4), normal(4)), case(normal(2, 0), normal(0, 4), normal(4)),
    ],
}  # fmt: skip

LOSSES: dict[str, list[Case]] = {
    "mean_squared_error": [*pairs_of_rows(normal, normal), case(normal(), normal())],
    "mean_absolute_error": [*pairs_of_rows(apart, shifted), case(apart(), shifted())],
    "huber": [case(normal(), normal()), *pairs_of_rows(normal, normal),
    *pairs_of_rows(apart, shifted, delta=0.26)],
    "categorical_crossentropy": [case(positive(), unit()), *pairs_of_rows(soft, soft),
    *pairs_of_rows(soft, onehot)],
    "sigmoid_cross_entropy": [
        case(normal(), unit()), *pairs_of_rows(normal, unit),
        case(normal(2, 3), ids(2, 3, below=2)),
        case(normal(2, 3), ids(2, 3, below=2, dtype="int32")),
    ],
    "softmax_cross_entropy": [
        *(
            case(normal(4, 5), *rest, reduction=r, label_smoothing=s)
            for r in ("mean", "sum", "none")
            for s in (0.0, 0.1)
            for rest in (
                (ids(4, below=5),), (ids(4, below=5), positive(5)),
                (onehot(4, 5),), (soft(4, 5), positive(5)),
            )
        ),
        *(
            case(
                normal(4, 5), some_ignored(4, below=5), *rest,
                reduction=r, ignore_index=2, label_smoothing=s,
            )
            for r in ("mean", "sum", "none")
            for s in (0.0, 0.1)
            for rest in ((), (positive(5),))
        ),
        case(normal(2, 3, 5), ids(2, 3, below=5)),
        case(normal(2, 3, 5), ids(2, 3, below=5), reduction="none"),
        case(normal(2, 3, 5), soft(2, 3, 5)), case(normal(5), ids(below=5)),
        case(normal(5), soft(5)),
        case(normal(4, 5), ids(4, below=5, dtype="int32")),
        case(normal(0, 5), ids(0, below=5), reduction="sum"),
        case(normal(0, 5), ids(0, below=5), reduction="none"), case(normal(3, 1), ids(3, below=1)),
    ],
}  # fmt: skip

SAMPLES = {**ELEMENTWISE, **ARRANGING, **LINEAR, **LOSSES, **image_samples.SAMPLES}
# These take no array without axes.
NEEDS_AN_AXIS = {
    "softmax", "log_softmax", "matrix_transpose", "squeeze", "concat", "split", "matmul", "affine",
    "take", "scatter_add", "softmax_cross_entropy", *image_samples.NEEDS_AN_AXIS,
}  # fmt: skip


def ops() -> dict[str, Op[...]]:
    """nnx's own ops by name."""
    own = {o.name: o for key, o in REGISTRY.items() if key.startswith("nnx.ops.")}
    assert all(getattr(nnx, name, o) is o for name, o in own.items())
    return own


def cases() -> list[Case]:
    """Every case of every op, each knowing its op; test ids are `relu-2`."""
    found = []
    for name, target in ops().items():
        for i, one in enumerate(SAMPLES.get(name, ())):
            one.op, one.id = target, f"{name}-{i}"
            found.append(one)
    return found


CASES = cases()
