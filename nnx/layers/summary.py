"""The table that `Layer.summary()` gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import NUMBERS
from ..tape import no_grad
from ..tensor import Parameter, Tensor, tensor
from .observe import evaluating, observed

if TYPE_CHECKING:
    from .base import Layer

NUMERIC = ("parameters", "bytes")


class Summary(str):
    """The table as text, which a console shows as it is and a notebook as HTML."""

    head: list[str]
    rows: list[list[str]]
    total: str

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        from html import escape

        from ..html import table

        right = [i for i, name in enumerate(self.head) if name in NUMERIC]
        return f"{table(self.head, self.rows, right)}<p>{escape(self.total)}</p>"


def summary(layer: Layer, input_shape: tuple[int, ...] | None) -> Summary:
    """One row per layer with parameters of its own, or without layers in it."""
    shown = _innermost(layer)
    head, rows = ["name", "layer", "parameters", "bytes", "trained"], list[list[str]]()
    counted: set[int] = set()
    for name, x in shown:
        mine = [p for p in _own_parameters(x) if id(p) not in counted]
        counted |= {id(p) for p in mine}
        size, taken, trained = _sizes(mine)
        whole = {0: "no", size: "yes"} if size else {0: "-"}
        rows.append([name or "-", repr(x).partition("\n")[0], f"{size:,}", f"{taken:,}"])
        rows[-1].append(whole.get(trained, f"{trained:,} of {size:,}"))
    if input_shape is not None:
        shapes = _shapes(layer, input_shape)
        head.insert(2, "output")
        for row, (_, x) in zip(rows, shown, strict=True):
            row.insert(2, shapes.get(id(x), "-"))
    size, taken, trained = _sizes(layer.parameters())
    total = f"{size:,} parameters ({taken:,} bytes), {trained:,} trained"
    made = Summary("\n".join([*_aligned(head, rows), total]))
    made.head, made.rows, made.total = head, rows, total
    return made


def _sizes(parameters: list[Parameter]) -> tuple[int, int, int]:
    """Numbers in them, their bytes, and how many of the numbers are trained."""
    widths = [np.dtype(p.backend.dtype_name(p.data)).itemsize for p in parameters]
    return (
        sum(p.size for p in parameters),
        sum(p.size * width for p, width in zip(parameters, widths, strict=True)),
        sum(p.size for p in parameters if p.requires_grad),
    )


def _aligned(head: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    rules = ["-" * w for w in widths]
    return [
        "  ".join(
            cell.rjust(w) if name in NUMERIC else cell.ljust(w)
            for name, cell, w in zip(head, row, widths, strict=True)
        ).rstrip()
        for row in (head, rules, *rows)
    ]


def _shapes(layer: Layer, input_shape: tuple[int, ...]) -> dict[int, str]:
    """Output shape of each layer, for one input."""
    shapes: dict[int, str] = {}
    parameters = layer.parameters()
    first: Any = parameters[0] if parameters else Tensor([0.0])

    def seen(_: str, x: Layer, y: Any) -> None:
        if isinstance(y, Tensor) and type(y.data) not in NUMBERS:
            shapes[id(x)] = str(("N", *y.shape[1:])).replace("'", "")

    x = tensor(first.backend.zeros((1, *input_shape), first.dtype))
    with no_grad(), evaluating(layer), observed(layer, seen):
        layer(x)
    return shapes


def _innermost(layer: Layer) -> list[tuple[str, Layer]]:
    """Names and layers that have parameters of their own, or no layers in them."""
    found = [(n, x) for n, x in layer.named_layers() if _own_parameters(x) or not _inner(x)]
    return found or [("", layer)]


def _own_parameters(layer: Layer) -> list[Any]:
    """Parameters that belong to no layer inside it."""
    others = {id(p) for x in _inner(layer) for p in x.parameters()}
    return [p for p in layer.parameters() if id(p) not in others]


def _inner(layer: Layer) -> list[Layer]:
    return [x for _, x in layer.named_layers() if x is not layer]
