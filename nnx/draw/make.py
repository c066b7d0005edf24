"""From what `nnx.draw` is given to a drawing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..arrays import asarray
from ..backend import NUMBERS
from ..errors import OptionError, StateError
from ..layers import Layer
from ..layers.explicit import names_of
from ..layers.observe import evaluating
from ..tensor import Tensor, leaf
from .drawing import Drawing
from .names import Names
from .trace import trace


def make(what: Any, x: Any, names: Mapping[str, Any], dout: Any, limit: int) -> Drawing:
    """See `nnx.draw`."""
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise OptionError(f"draw: limit={limit!r}, expected an int of at least 1")
    if not isinstance(names, Mapping):
        raise OptionError(
            f"draw: names is a {type(names).__name__}, expected a dict such as {{'x': x}}"
        )
    if isinstance(what, Layer):
        what, names = _called(what, x, names)
    elif not isinstance(what, Tensor):
        raise OptionError(
            f"draw: got a {type(what).__name__}, expected a Tensor, computed from Tensors such as "
            f"nnx.Tensor(array), or a layer with its input: nnx.draw(layer, x=array)"
        )
    elif x is not None:
        raise OptionError("draw: x is the input of a layer; a Tensor is drawn without: nnx.draw(t)")
    if what._node is None:
        raise StateError(
            "draw: nothing was recorded of this Tensor: it was not computed, or no input had "
            "requires_grad=True, or it was under no_grad() or in a captured function; compute it "
            "again without these, or draw the model: nnx.draw(model, x=array)"
        )
    return Drawing(trace(what, 1 if dout is None else dout, Names(names), limit))


def _called(layer: Layer, x: Any, names: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]]:
    """The layer's output on x, and names that include its inputs and parameters."""
    if x is None:
        raise OptionError("draw: a layer is drawn for an input: nnx.draw(layer, x=array)")
    given = x if isinstance(x, tuple) else (x,)
    known = names_of(type(layer).forward)
    called = [*known[: len(given)], *(f"x{i}" for i in range(len(known), len(given)))]
    inputs = {
        name: v if name in layer.constants else _leaf(v)
        for name, v in zip(called, given, strict=True)
    }
    with evaluating(layer):
        y = layer.forward(*inputs.values())
    if not isinstance(y, Tensor):
        raise OptionError(
            f"draw: {type(layer).__name__}.forward gives a {type(y).__name__}, expected one "
            f"Tensor; draw a part of what it gives for Tensors: nnx.draw(layer(nnx.Tensor(x))[0])"
        )
    return y, {"": layer, **{k: v for k, v in inputs.items() if hasattr(v, "shape")}, **names}


def _leaf(v: Any) -> Any:
    """An input with a gradient: ints have one too, as in the notebook."""
    v = asarray(v) if isinstance(v, list) else v
    bare = not isinstance(v, Tensor) and (hasattr(v, "shape") or type(v) in NUMBERS)
    return leaf(v) if bare else v
