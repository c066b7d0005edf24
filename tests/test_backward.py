"""Around a backward: no_grad, threads, detach, hooks, the gradient that is given."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from leaves import leaf, message, values

import nnx
from nnx import Tensor

# no_grad, detach


def test_no_grad_records_nothing(backend: nnx.Backend) -> None:
    x = leaf([1.0])
    with nnx.no_grad():
        y = x * 2
        with nnx.no_grad():
            pass
        assert not (y * x).requires_grad, "the outer block goes on after an inner one"
    assert not y.requires_grad and y.is_leaf
    assert (x * 2).requires_grad
    assert message(nnx.StateError, y.backward) == (
        "backward() on a Tensor that does not require a gradient: it was computed under "
        "no_grad(), or no input had requires_grad=True"
    )


def test_no_grad_ends_with_an_error(backend: nnx.Backend) -> None:
    with pytest.raises(ZeroDivisionError), nnx.no_grad():
        raise ZeroDivisionError
    assert (leaf([1.0]) * 2).requires_grad


def test_no_grad_is_the_threads_own() -> None:
    x, seen = leaf([1.0]), {}
    inside, leave = threading.Event(), threading.Event()

    def quiet() -> None:
        with nnx.no_grad():
            inside.set()
            leave.wait(10)
            seen["quiet"] = (x * 2).requires_grad

    thread = threading.Thread(target=quiet)
    thread.start()
    assert inside.wait(10)
    seen["other"] = (x * 2).requires_grad
    leave.set()
    thread.join()
    assert seen == {"quiet": False, "other": True}


def test_threads_may_walk_the_same_leaves() -> None:
    """Each its own graph over a shared constant; each gradient is right."""
    c = np.arange(1000.0)

    def work(out: list[Any], k: float) -> None:
        for _ in range(20):
            x = leaf(np.ones(1000))
            nnx.sum(nnx.exp(x * 0.0) * c * x * k).backward()
            out.append(np.array_equal(x.grad, c * k))

    results: list[Any] = []
    threads = [threading.Thread(target=work, args=(results, float(k))) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [True] * 80


def test_detach_shares_data_and_stops(backend: nnx.Backend) -> None:
    x = leaf([3.0])
    y = x * x
    d = y.detach()
    assert d.data is y.data and not d.requires_grad and d.is_leaf
    (y * d).sum().backward()
    assert values(x.grad) == [9.0 * 6.0]


# Hooks


def test_hooks_on_a_leaf(backend: nnx.Backend) -> None:
    """Called once, with the whole gradient; what one returns replaces it."""
    x, seen = leaf([2.0]), []
    remove = x.register_hook(lambda g: seen.append(values(g)))
    x.register_hook(lambda g: g * 10)
    (x * x + x).sum().backward()
    assert seen == [[5.0]] and values(x.grad) == [50.0]
    remove()
    (x * 1.0).sum().backward()
    assert seen == [[5.0]] and values(x.grad) == [60.0]


def test_hooks_inside(backend: nnx.Backend) -> None:
    x, seen = leaf([2.0]), []
    y = x * 3
    remove = y.register_hook(lambda g: g * 100)
    y.register_hook(lambda g: seen.append(values(g)))
    z = (y * y + y).sum()
    z.backward(retain_graph=True)
    assert seen == [[1300.0]] and values(x.grad) == [3900.0]
    remove()
    z.backward()
    assert seen == [[1300.0], [13.0]] and values(x.grad) == [3939.0]


def test_a_hook_on_one_output_of_several(backend: nnx.Backend) -> None:
    x = leaf([1.0, 2.0])
    first, second = nnx.split(x, 2)
    second.register_hook(lambda g: g * 7)
    (first + second).sum().backward()
    assert values(x.grad) == [1.0, 7.0]


def test_hooks_get_tensors_where_the_walk_is_recorded(backend: nnx.Backend) -> None:
    x, seen = leaf([2.0]), []
    y = x * x
    y.register_hook(lambda g: seen.append(type(g)))
    y.sum().backward(create_graph=True)
    assert seen == [Tensor]


# dout


def test_dout_is_checked(backend: nnx.Backend) -> None:
    y = leaf([1.0, 2.0]) * 2
    assert message(nnx.ShapeError, y.backward) == (
        "backward() without an argument needs a scalar, the Tensor has shape (2,); give dout of "
        "that shape, or call .sum() or .mean() first"
    )
    assert message(nnx.ShapeError, y.backward, nnx.asarray(np.ones(3))) == (
        "backward: dout has shape (3,), expected (2,)"
    )
    assert message(nnx.DtypeError, y.backward, nnx.asarray(np.ones(2, "float32"))) == (
        "backward: dout is float32, the output is float64; write nnx.asarray(dout, 'float64')"
    )


def test_dout_of_another_backend(strict: str) -> None:
    y = leaf([1.0, 2.0]) * 2
    dout = nnx.asarray(np.ones(2), backend=strict)
    assert message(nnx.MixedBackendsError, y.backward, dout) == (
        "backward: dout is not an array of 'numpy', as the output is; write "
        "nnx.asarray(dout, backend='numpy')"
    )


@pytest.mark.parametrize("dout", [3, 3.0, np.float64(3), np.float32(3)])
def test_a_number_as_dout(dout: Any, backend: nnx.Backend) -> None:
    x = leaf([1.0, 2.0])
    (x * 2).backward(dout)
    assert values(x.grad) == [6.0, 6.0]
    assert backend.dtype_name(x.grad) == "float64"
