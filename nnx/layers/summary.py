"""The table that `Layer.summary()` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..backend import NUMBERS
from ..tape import no_grad
from ..tensor import Parameter, Tensor, tensor

if TYPE_CHECKING:
    from .base import Layer


def table(layer: Layer, input_shape: tuple[int, ...] | None) -> str:
    """One row per layer with parameters of its own, or without layers in it."""
    shown = [(name, x) for name, x in layer.named_layers() if _own(x) or not _inner(x)]
    shown = shown or [("", layer)]
    shapes = _shapes(layer, [x for _, x in shown], input_shape) if input_shape is not None else {}
    rows = [("name", "layer", "output", "parameters")]
    counted: set[int] = set()
    for name, x in shown:
        mine = {id(p): p.size for p in _own(x) if id(p) not in counted}
        counted |= mine.keys()
        rows.append((name or "-", repr(x), shapes.get(id(x), "-"), f"{sum(mine.values()):,}"))
    total = sum(p.size for p in layer.parameters())
    frozen = sum(p.size for p in layer.parameters() if not p.requires_grad)
    widths = [max(len(r[i]) for r in rows) for i in range(4)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]
    lines.insert(1, "  ".join("-" * w for w in widths))
    lines.append(f"{total:,} parameters, {total - frozen:,} trained")
    return "\n".join(lines)


def _inner(layer: Layer) -> list[Layer]:
    return [x for _, x in layer.named_layers() if x is not layer]


def _own(layer: Layer) -> list[Parameter]:
    """Parameters that belong to no layer inside it."""
    others = {id(p) for x in _inner(layer) for p in x.parameters()}
    return [p for p in layer.parameters() if id(p) not in others]


def _shapes(layer: Layer, inner: list[Layer], input_shape: tuple[int, ...]) -> dict[int, str]:
    """Output shape of each layer shown, seen by standing in for its forward for one call."""
    shapes: dict[int, str] = {}
    parameters = layer.parameters()
    first: Any = parameters[0] if parameters else Tensor([0.0])

    def watch(x: Layer) -> None:
        plain = x.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            y = plain(*args, **kwargs)
            if isinstance(y, Tensor) and type(y.data) not in NUMBERS:
                shapes[id(x)] = str(("N", *y.shape[1:])).replace("'", "")
            return y

        vars(x)["forward"] = forward

    modes = [(x, x.training) for _, x in layer.named_layers()]
    for x in inner:
        watch(x)
    try:
        with no_grad():
            layer.eval()(tensor(first.backend.zeros((1, *input_shape), first.dtype)))
    finally:
        for x in inner:
            del vars(x)["forward"]
        for x, mode in modes:
            x.training = mode
    return shapes
