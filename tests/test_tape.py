"""The tape: accumulation, deep graphs, memory, freed graphs, changed parameters."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest
from leaves import leaf, message, values

import nnx
from nnx import Parameter, Tensor

# Accumulation


def test_a_second_backward_adds(backend: nnx.Backend) -> None:
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    (x * 3).sum().backward()
    assert values(x.grad) == [5.0, 7.0]


def test_the_same_graph_twice_does_not_double(backend: nnx.Backend) -> None:
    """Cotangents of the first walk are gone when the second begins."""
    x = leaf([2.0])
    y = x * x
    z = (y * y).sum()
    z.backward(retain_graph=True)
    assert values(x.grad) == [32.0]
    z.backward()
    assert values(x.grad) == [64.0]


def test_a_leafs_gradient_has_its_own_memory() -> None:
    """add passes dout on as it is; two leaves and the caller must not share it."""
    x, y = leaf([1.0, 2.0]), leaf([1.0, 2.0])
    dout = np.ones(2)
    (x + y).backward(dout)
    assert not np.shares_memory(x.grad, y.grad)
    assert not np.shares_memory(x.grad, dout)
    x.sum().backward()
    assert (values(x.grad), values(y.grad), dout.tolist()) == ([2.0, 2.0], [1.0, 1.0], [1.0, 1.0])


def test_accumulation_keeps_the_array() -> None:
    x = leaf([1.0])
    x.sum().backward()
    first = x.grad
    x.sum().backward()
    assert x.grad is first


def test_a_tensor_used_twice(backend: nnx.Backend) -> None:
    x = leaf([3.0])
    y = x * x  # both arguments
    (y + x * y).sum().backward()  # x^2 + x^3
    assert values(x.grad) == [2 * 3.0 + 3 * 9.0]


def test_a_diamond_waits_for_all_paths(backend: nnx.Backend) -> None:
    x = leaf([0.5])
    a = nnx.exp(x)
    b, c = a * 2, a * a
    (b * c).sum().backward()  # 2 e^{3x}
    assert values(x.grad) == pytest.approx([6 * np.exp(1.5)])


def test_backward_of_a_leaf(backend: nnx.Backend) -> None:
    x = leaf(2.0)
    x.backward()
    x.backward(3.0)
    assert values(x.grad) == 4.0


def test_constants_get_no_gradient(backend: nnx.Backend) -> None:
    x, c = leaf([1.0, 2.0]), Tensor(nnx.asarray(np.array([3.0, 4.0])))
    y = x * c
    y.sum().backward()
    assert c.grad is None and y.grad is None
    assert values(x.grad) == [3.0, 4.0]


def test_unused_outputs_of_split_arrive_as_zeros(backend: nnx.Backend) -> None:
    x = leaf([1.0, 2.0, 3.0, 4.0])
    first, _, third = nnx.split(x, (1, 2, 1))
    (first * 5 + third).sum().backward()
    assert values(x.grad) == [5.0, 0.0, 0.0, 1.0]


# Depth


@pytest.mark.parametrize("depth", [12_000, 50_000])
def test_deep_graphs(depth: int) -> None:
    """Neither the walk nor freeing the graph recurses."""
    x = y = leaf([1.0])
    for _ in range(depth):
        y = y + 1.0
    y.sum().backward()
    assert values(x.grad) == [1.0]
    del y
    gc.collect()


def test_a_deep_graph_is_freed_without_backward() -> None:
    y = leaf([1.0])
    for _ in range(50_000):
        y = y * 1.0
    del y


def test_a_wide_graph_is_visited_once_each() -> None:
    """2^60 paths, 60 nodes."""
    x = y = leaf([1.0])
    for _ in range(60):
        y = y + y
    y.sum().backward()
    assert values(x.grad) == [2.0**60]


# Memory


def test_thirty_adds_keep_one_array() -> None:
    """Nodes keep only what derivatives read, and add's read nothing."""
    x = Tensor(np.zeros(1_000_000), requires_grad=True)
    tracemalloc.start()
    try:
        y: Tensor = x + 1.0
        for _ in range(29):
            y = y + 1.0
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 8.5e6


def test_backward_frees_what_was_saved() -> None:
    x = Tensor(np.zeros(1_000_000), requires_grad=True)
    tracemalloc.start()
    try:
        y = nnx.sum(nnx.exp(nnx.exp(x)))
        y.backward()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 8.5e6  # the gradient alone


# Freed graphs, changed parameters


def test_a_second_backward_needs_retain_graph(backend: nnx.Backend) -> None:
    x = leaf([2.0])
    y = (x * x).sum()
    y.backward()
    assert message(nnx.StateError, y.backward) == (
        "backward through sum a second time: what it had saved was freed after the first; call "
        "backward(retain_graph=True) the first time"
    )
    assert values(x.grad) == [4.0]


def test_a_shared_part_that_was_freed(backend: nnx.Backend) -> None:
    x = leaf([2.0])
    shared = x * x
    shared.sum().backward()
    assert "backward through multiply a second time" in message(
        nnx.StateError, (shared * 2).sum().backward
    )


def test_a_parameter_changed_since_forward(backend: nnx.Backend) -> None:
    w = Parameter(nnx.asarray(np.array([1.0, 2.0])))
    y = (w * w).sum()
    w.data = np.array([5.0, 6.0])
    assert message(nnx.StateError, y.backward) == (
        "backward through multiply: its argument 'x1' (shape (2,)) was changed after the forward "
        "pass that used it, by an optimizer step or an assignment to .data; call backward() "
        "before the change"
    )
    assert w.grad is None


def test_a_change_that_no_derivative_reads(backend: nnx.Backend) -> None:
    w = Parameter(nnx.asarray(np.array([1.0, 2.0])))
    y = (w + 1.0).sum()
    w.data = np.array([5.0, 6.0])
    y.backward()
    assert values(w.grad) == [1.0, 1.0]


def test_an_optimizer_step_counts_as_a_change(backend: nnx.Backend) -> None:
    w = Parameter(nnx.asarray(np.array([1.0, 2.0])))
    y = (w * w).sum()
    y.backward(retain_graph=True)
    nnx.optim.SGD([w], lr=0.1).step()
    assert "changed after the forward pass" in message(nnx.StateError, y.backward)
