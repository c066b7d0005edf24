"""A layer beside the same function in PyTorch, in float64: outputs and every gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import nnx
from nnx import layers as L

torch = pytest.importorskip("torch", reason="PyTorch, the oracle, is not installed")
CLOSE = {"rtol": 1e-9, "atol": 1e-11}


def outputs(y: Any) -> list[Any]:
    return [v for part in y for v in outputs(part)] if isinstance(y, (tuple, list)) else [y]


def put(parameter: Any, value: Any) -> None:
    """Give a parameter of PyTorch the values of one of nnx's, in its own layout."""
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.array(nnx.to_numpy(value))))


def agree(
    layer: L.Layer,
    theirs: Callable[..., Any],
    inputs: Sequence[Any],
    pairs: Sequence[tuple[Any, Any]],
    seed: int = 0,
) -> None:
    """Outputs, gradients of inputs and of parameters: by the tape, and by the layer's backward.

    theirs   of PyTorch's tensors, one for each input; inputs that are no floats have no gradient
    pairs    (nnx's parameter, a function that gives PyTorch's gradient as nnx lays it out)
    """
    rng = np.random.default_rng(seed)
    floats = [isinstance(a, np.ndarray) and a.dtype.kind == "f" for a in inputs]
    ours = [
        nnx.Tensor(a, requires_grad=f) if isinstance(a, np.ndarray) else a
        for a, f in zip(inputs, floats, strict=True)
    ]
    given = [
        torch.tensor(a, requires_grad=f) if isinstance(a, np.ndarray) else a
        for a, f in zip(inputs, floats, strict=True)
    ]
    expected = outputs(theirs(*given))
    douts = [rng.normal(size=tuple(y.shape)) for y in expected]
    torch.autograd.backward(expected, [torch.tensor(d) for d in douts])
    y = outputs(layer(*ours))
    assert [v.shape for v in y] == [tuple(v.shape) for v in expected]
    for a, b in zip(y, expected, strict=True):
        np.testing.assert_allclose(a.data, b.detach().numpy(), **CLOSE)
    layer.zero_grad()
    for v, dout in zip(y, douts, strict=True):
        v.backward(dout, retain_graph=True)
    _compare([t.grad for t, f in zip(ours, floats, strict=True) if f], given, pairs)
    bare = outputs(layer.forward(*inputs))
    for a, b in zip(bare, y, strict=True):
        np.testing.assert_array_equal(a, b.data)
    if layer.training:
        found = layer.backward(douts[0] if len(douts) == 1 else tuple(douts))
        found = found if isinstance(found, tuple) else (found,)
        smooth = [g for g in found if "float" in str(g.dtype)]
        _compare(smooth, given, pairs)


def _compare(grads: Sequence[Any], given: Sequence[Any], pairs: Sequence[tuple[Any, Any]]) -> None:
    theirs = [t for t in given if isinstance(t, torch.Tensor) and t.requires_grad]
    for g, t in zip(grads, theirs, strict=True):
        np.testing.assert_allclose(g, t.grad.numpy(), **CLOSE)
    for p, grad in pairs:
        np.testing.assert_allclose(p.grad, grad().numpy(), **CLOSE)
