"""The book's style: forward on bare arrays, then backward, for any layer.

The forward runs on a private tape, so nothing about derivatives is written here.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..backend import NUMBERS
from ..backward import accumulate_into, gradients
from ..errors import ShapeError, StateError
from ..tape import is_recording, no_grad
from ..tensor import Parameter, Tensor, leaf

if TYPE_CHECKING:
    from .base import Layer


class Record(NamedTuple):
    """The last forward: the inputs that backward gives gradients for, and the output."""

    inputs: list[Tensor]
    output: Any


def forward(
    layer: Layer, f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run `f` on Tensors made of the bare arrays; remember them if backward may follow."""
    layer._record = None
    names = names_of(f) if kwargs or layer.constants else ()
    if kwargs:
        args, kwargs = _by_position(names, args, kwargs)
    inputs: list[Tensor] = []
    numbers = all(type(a) in NUMBERS for a in args) or getattr(layer, "_takes_numbers", False)
    made = [
        a if i < len(names) and names[i] in layer.constants else _input(a, numbers, inputs)
        for i, a in enumerate(args)
    ]
    named = {k: v if k in layer.constants else _input(v, False, inputs) for k, v in kwargs.items()}
    if not (layer.training and is_recording()):
        with no_grad():
            return _bare(f(layer, *made, **named))
    output = f(layer, *made, **named)
    layer._record = Record(inputs, output)
    return _bare(output)


def _input(a: Any, numbers: bool, inputs: list[Tensor]) -> Any:
    """A Tensor for an array, also for those in a list or tuple; anything else as it is."""
    if hasattr(a, "shape") or (numbers and type(a) in NUMBERS):
        inputs.append(leaf(a))
        return inputs[-1]
    if type(a) in (list, tuple):
        return type(a)([_input(v, False, inputs) for v in a])
    return a


@functools.lru_cache(maxsize=256)
def names_of(f: Callable[..., Any]) -> tuple[str, ...]:
    """The names of forward's positional parameters, without `self`."""
    parameters = list(inspect.signature(f).parameters.values())[1:]
    return tuple(
        p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    )


def _by_position(
    names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """`forward(y=b, x=a)` as `forward(a, b)`: gradients come in the order of the parameters."""
    rest = dict(kwargs)
    for name in names[len(args) :]:
        if name not in rest:
            break
        args += (rest.pop(name),)
    return args, rest


def _bare(y: Any) -> Any:
    if isinstance(y, Tensor):
        return y.data
    if isinstance(y, (tuple, list)):
        return type(y)(_bare(v) for v in y)
    if isinstance(y, dict):
        return {k: _bare(v) for k, v in y.items()}
    return y


def backward(layer: Layer, record: Record | None, dout: Any) -> Any:
    """Walk the private tape; overwrite the parameters' gradients; give the inputs' ones."""
    if record is None:
        raise StateError(
            "backward() before forward(): call forward on bare arrays first, in training mode "
            "(after eval(), under no_grad(), and on Tensors nothing is kept here; "
            "on Tensors call loss.backward())"
        )
    grads = _cotangents(record.output, dout)
    for p in layer.parameters():
        p.grad = None
    for t, g in grads.values():
        if isinstance(t, Parameter):
            accumulate_into(t, g, False)  # a copy: g may be dout itself, or another's gradient
    out = [grads[id(t)][1] if id(t) in grads else _zeros(t) for t in record.inputs]
    return out[0] if len(out) == 1 else tuple(out)


def refuse_tuple(dout: Any, shape: tuple[int, ...]) -> None:
    """A layer's tuple of gradients, passed on whole, is the book reader's likely slip."""
    if isinstance(dout, (tuple, list)):
        raise ShapeError(
            f"backward was given a {type(dout).__name__} of {len(dout)}, expected one array of "
            f"shape {shape}; a layer with several gradients, as Affine with its (dx, dW, db), "
            f"returns a tuple: take [0]"
        )


def _zeros(t: Tensor) -> Any:
    """The output did not depend on this input."""
    return 0 if t.shape == () and type(t.data) in NUMBERS else t.backend.zeros(t.shape, t.dtype)


def _cotangents(output: Any, dout: Any) -> dict[int, tuple[Tensor, Any]]:
    if isinstance(output, Tensor):
        refuse_tuple(dout, output.shape)
        if not output.requires_grad:
            return {}
        return gradients(output, dout, retain_graph=True)
    given = output if isinstance(output, (tuple, list)) else ()
    outputs = [y for y in given if isinstance(y, Tensor) and y.requires_grad]
    if not outputs:
        raise StateError(
            f"backward: forward returned {type(output).__name__}, expected an array or a tuple of "
            f"arrays, computed from its inputs; return these, or call forward on Tensors"
        )
    douts = dout if isinstance(dout, (tuple, list)) else [dout] * len(outputs)
    if len(douts) != len(outputs):
        raise ShapeError(f"backward: {len(outputs)} outputs, {len(douts)} gradients given")
    total: dict[int, tuple[Tensor, Any]] = {}
    for y, d in zip(outputs, douts, strict=True):
        for key, (t, g) in gradients(y, d, retain_graph=True).items():
            total[key] = (t, g if key not in total else total[key][1] + g)
    return total
