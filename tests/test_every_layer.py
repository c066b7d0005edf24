"""What holds for every layer: replayed steps are eager ones, no step needs more memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from layer_samples import LAYERS, training

import nnx
from nnx import layers as L
from nnx import random
from nnx.capture import capture

BACKENDS = [name for name in ("numpy", "numba") if nnx.backends()[name].available]
each_layer = pytest.mark.parametrize("name", LAYERS)


def test_every_layer_is_here() -> None:
    found = {type(x).__name__ for make, _ in LAYERS.values() for _, x in make().named_layers()}
    assert set(L.__all__) - {"Layer"} <= found


@pytest.mark.parametrize("backend_name", BACKENDS)
@each_layer
def test_replayed_steps_are_eager_ones(name: str, backend_name: str) -> None:
    """Losses, weights, gradients, running statistics and the next draw, to the last bit."""
    found = []
    with nnx.use_backend(backend_name):
        for wrap in (lambda f: f, capture):
            model, step, batches = training(*LAYERS[name])
            run = wrap(step)
            losses = [float(run(*batch)) for batch in batches]
            grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            found.append((losses, model.state_dict(), grads, random.generator().random()))
    assert "1 plan" in repr(run)
    (losses, state, grads, draw), (replayed, other_state, other_grads, other_draw) = found
    assert losses == replayed and len(set(losses)) > 1 and draw == other_draw
    for a, b in ((state, other_state), (grads, other_grads)):
        assert a.keys() == b.keys()
        for key, value in a.items():
            np.testing.assert_array_equal(value, b[key], err_msg=key)


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        *(pytest.param(name, lambda f: f, id=f"{name}, eager") for name in LAYERS),
        *(pytest.param(n, capture, id=f"{n}, captured") for n in LAYERS if "deep" not in n),
    ],
)
def test_a_later_step_takes_no_more_memory(name: str, wrap: Any) -> None:
    """Than the second: at its highest, and of what it leaves."""
    _, step, batches = training(*LAYERS[name])
    run, highest, left = wrap(step), [], []
    tracemalloc.start()
    try:
        for batch in batches:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            run(*batch)
            highest.append(tracemalloc.get_traced_memory()[1] - before)
            left.append(held())
    finally:
        tracemalloc.stop()
    first = 4 if wrap is capture else 2  # by then it is planned
    assert max(highest[first:]) <= 1.02 * highest[1] + 1024, highest
    assert len(set(left[first:])) == 1, left


def held() -> int:
    """The bytes of all arrays that have been made since tracing began, and are there."""
    only = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    traces = tracemalloc.take_snapshot().filter_traces((only,)).traces
    return sum(trace.size for trace in traces)
