"""Looking into a model: what each layer in it gives for one input, without changing anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..tape import no_grad

if TYPE_CHECKING:
    from .base import Layer


@contextmanager
def evaluating(layer: Layer) -> Iterator[None]:
    """`with evaluating(model):` evaluation mode; each layer's own mode is put back."""
    modes = [(x, x.training) for _, x in layer.named_layers()]
    layer.eval()
    try:
        yield
    finally:
        for x, mode in modes:
            x.training = mode


def watch(layer: Layer, inner: Iterable[Layer], x: Any, seen: Callable[[Layer, Any], None]) -> None:
    """Call the layer once on the Tensor x, in evaluation mode; `seen` gets what each of `inner`
    returns, whenever it does.

    Each stands in for its own forward meanwhile.
    """
    inner = list(inner)
    for one in inner:
        _stand_in(one, seen)
    try:
        with no_grad(), evaluating(layer):
            layer(x)
    finally:
        for one in inner:
            del vars(one)["forward"]


def _stand_in(layer: Layer, seen: Callable[[Layer, Any], None]) -> None:
    plain = layer.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        y = plain(*args, **kwargs)
        seen(layer, y)
        return y

    vars(layer)["forward"] = forward


def innermost(layer: Layer) -> list[tuple[str, Layer]]:
    """Names and layers that have parameters of their own, or no layers in them."""
    found = [(n, x) for n, x in layer.named_layers() if own_parameters(x) or not _inner(x)]
    return found or [("", layer)]


def own_parameters(layer: Layer) -> list[Any]:
    """Parameters that belong to no layer inside it."""
    others = {id(p) for x in _inner(layer) for p in x.parameters()}
    return [p for p in layer.parameters() if id(p) not in others]


def _inner(layer: Layer) -> list[Layer]:
    return [x for _, x in layer.named_layers() if x is not layer]
