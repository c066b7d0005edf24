"""Looking into a model: what its layers give, without changing anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import Layer


@contextmanager
def observed(model: Layer, f: Callable[[str, Layer, Any], object]) -> Iterator[None]:
    """Call `f(name, layer, output)` whenever a layer of the model has run, inner ones first."""
    layers = list(model.named_layers())

    def watch(name: str, layer: Layer) -> None:
        forward = layer.forward

        def watched(*args: Any, **kwargs: Any) -> Any:
            y = forward(*args, **kwargs)
            f(name, layer, y)
            return y

        vars(layer)["forward"] = watched

    try:
        for name, layer in layers:
            watch(name, layer)
        yield
    finally:
        for _, layer in layers:
            vars(layer).pop("forward", None)


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
