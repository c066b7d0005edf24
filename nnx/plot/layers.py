"""What goes through a model: a histogram for each layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import asarray
from ..backend import backend_of
from ..data.dataset import HostArray
from ..layers import Layer
from ..layers.observe import evaluating, observed
from ..tape import no_grad
from ..tensor import Tensor
from .figures import TRAIN, Picture, grid, host, is_layer, whole

MOST = 24  # histograms in a picture


def activations(model: Layer, x: Any, bins: int) -> Picture:
    """See `nnx.plot.activations`."""
    is_layer("activations", model)
    whole("activations", "bins", bins)
    seen = _seen(model, x)
    picture, axes = grid(min(len(seen), MOST), (3.0, 2.3), 4)
    for ax, (name, values) in zip(axes, seen.items(), strict=False):
        finite = values[np.isfinite(values)]
        ax.hist(finite, bins=bins, color=TRAIN)
        ax.set_yscale("log")
        ax.set_title(f"{name}\n{_figures(values, finite)}", fontsize=8)
        ax.tick_params(labelsize=7)
        ax.set_xlabel("value", fontsize=8)
    for ax in axes[::4]:
        ax.set_ylabel("entries", fontsize=8)
    if len(seen) > MOST:
        picture.suptitle(f"the first {MOST} of {len(seen)}")
    return picture


def _seen(model: Layer, x: Any) -> dict[str, HostArray]:
    """The input, and the output of each layer that holds no other, flat; calls together."""
    outputs: dict[str, list[HostArray]] = {}

    def see(name: str, layer: Layer, y: Any) -> None:
        if len(list(layer.named_layers())) == 1 and hasattr(y, "shape"):
            title = f"{name} {type(layer).__name__}".strip()
            outputs.setdefault(title, []).append(host(y).ravel())

    given = _on_backend_of(model, x)
    with evaluating(model), no_grad(), observed(model, see):
        model(given)
    named = {"input": host(given).ravel()}
    named.update((name, np.concatenate(parts)) for name, parts in outputs.items())
    return {name: values for name, values in named.items() if values.size}


def _on_backend_of(model: Layer, x: Any) -> Tensor:
    """x on the model's backend, floats in its dtype."""
    if isinstance(x, Tensor):
        return x
    parameters = model.parameters()
    if not parameters:
        return Tensor(x if hasattr(x, "shape") else asarray(x))
    backend = parameters[0].backend
    array = asarray(x, backend=backend)
    if "float" in backend_of(array).dtype_name(array):
        array = asarray(array, backend.dtype_name(parameters[0].data), backend=backend)
    return Tensor(array)


def _figures(values: HostArray, finite: HostArray) -> str:
    if finite.size < values.size:
        return f"{values.size - finite.size:,} of {values.size:,} not finite"
    zeros = f", {100 * np.mean(values == 0):.0f} % zeros" if (values == 0).any() else ""
    return f"mean {values.mean():.3g}, sd {values.std():.3g}{zeros}"
