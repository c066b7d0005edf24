"""numba's replays: programs of instructions, and matrix products with the bits of NumPy's."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from capture_tools import batches, both, equal, model, train, values
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import nnx
from nnx import layers as L
from nnx import optim
from nnx.capture import capture

pytest.importorskip("numba")

from nnx_numba import blas, dense, loops, program, updates
from nnx_numba.instructions import SPECS, operands

needs_blas = pytest.mark.skipif(not blas.bits(), reason="NumPy's BLAS is not its wheels' OpenBLAS")


@pytest.fixture(autouse=True)
def on_numba() -> Any:
    with nnx.use_backend("numba"):
        yield


def matrix(rng: np.random.Generator, rows: int, columns: int, turned: bool, dtype: Any) -> Any:
    shape = (columns, rows) if turned else (rows, columns)
    a = rng.standard_normal(shape).astype(dtype)
    return a.T if turned else a


@needs_blas
@settings(max_examples=200, deadline=None)
@given(
    m=st.integers(1, 40), k=st.integers(1, 40), n=st.integers(1, 40), turned=st.tuples(
        st.booleans(), st.booleans()), dtype=st.sampled_from(["float32", "float64"]),
)  # fmt: skip
def test_products_have_the_bits_of_numpys(m: int, k: int, n: int, turned: Any, dtype: str) -> None:
    rng = np.random.default_rng([m, k, n])
    a, b = matrix(rng, m, k, turned[0], dtype), matrix(rng, k, n, turned[1], dtype)
    out = np.full((m, n), np.nan, dtype)
    for f in (np.dot, np.matmul):
        made = program.translated((f, (a, b, out), {}))
        if made is None:
            assert min(m, k, n) == 1
            continue
        program.Program([made], {}).runner()()
        assert np.array_equal(out, f(a, b))


@needs_blas
@given(k=st.integers(2, 30), n=st.integers(2, 30))
def test_a_vector_times_a_matrix(k: int, n: int) -> None:
    rng = np.random.default_rng([k, n])
    v, W, out = rng.standard_normal(k), rng.standard_normal((k, n)), np.empty(n)
    made = program.translated((np.dot, (v, W, out), {}))
    assume(made is not None)
    program.Program([made], {}).runner()()
    assert np.array_equal(out, np.dot(v, W))


@needs_blas
def test_what_numpy_does_in_other_ways_is_left_to_it() -> None:
    a = np.ones((4, 4))
    for x, y in ((a, a.T), (a[:, ::2], np.ones((2, 4))), (a[:, :1].T, a[:, :1]), (a[0], a[0])):
        assert blas.product(x, y, np.empty((x.shape[0], y.shape[-1]))) is None


def loops_of(module: Any) -> set[Any]:
    found = [f for n, f in vars(module).items() if not n.startswith("_") and hasattr(f, "py_func")]
    return {f for f in found if f.py_func.__module__ == module.__name__}


def test_every_loop_of_a_kernel_is_an_instruction() -> None:
    helpers = {loops.below}
    assert loops_of(loops) | loops_of(dense) | loops_of(updates) == set(SPECS) | helpers


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loop", SPECS, ids=lambda f: f.py_func.__name__)
def test_an_instruction_does_what_its_loop_does(loop: Any, dtype: str) -> None:
    rng = np.random.default_rng(0)

    def made(kind: str) -> Any:
        rng_of = {
            "v": lambda: rng.random(5).astype(dtype), "m": lambda: rng.random((3, 5)).astype(dtype),
            "l": lambda: rng.integers(0, 5, 3), "n": lambda: np.array(0.25, dtype),
            "i": lambda: -100, "b": lambda: True, "f": lambda: 0.75,
        }  # fmt: skip
        return rng_of[kind]()

    spec = SPECS[loop].split()
    args = [made(kind) for kind in spec]
    if loop is loops.cross_entropy:
        args[4] = np.zeros(3, dtype)
    if loop is loops.scaled_rows:
        args[1] = np.ones(3, dtype)
    same = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    loop(*args)
    program.Program([(loop, np.dtype(dtype), operands(loop, tuple(same)))], {}).runner()()
    for a, b in zip(args, same, strict=True):
        assert np.array_equal(a, b)


def trained(net: L.Layer, rows: int = 16) -> Any:
    return both(lambda wrap: train(wrap, net, optim.Adam(net.parameters()), batches(6, rows=rows)))


@pytest.mark.parametrize("rows", [1, 2, 33])
@pytest.mark.parametrize("hidden", [1, 8])
def test_networks_with_rows_and_columns_train_as_eagerly(rows: int, hidden: int) -> None:
    def make(wrap: Any) -> Any:
        nnx.seed(1)
        between = L.Linear(hidden, hidden)
        net = model(L.Tanh(), between, L.Sigmoid(), hidden=hidden)
        return train(wrap, net, optim.Adam(net.parameters()), batches(6, rows=rows))

    both(make)


def test_without_the_blas_products_are_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(wrap: Any) -> Any:
        net = model()
        return train(wrap, net, optim.SGD(net.parameters(), 0.1), batches(6))

    with_blas = both(make)
    monkeypatch.setattr(blas, "bits", lambda: 0)
    without = both(make)
    assert equal(values(with_blas), values(without))
    net = model()
    step = capture(lambda x: nnx.relu(net(nnx.Tensor(x))))
    for x, _ in batches(3):
        step(x)
    assert step.plan().code.count("dot(") == 2 and step.plan().code.count("program") == 2


def test_a_program_keeps_all_that_it_needs() -> None:
    """Its operands are addresses: what they are of must live as long as it does."""
    net = model()
    step = capture(net.eval())
    for x, _ in batches(3):
        expected = net(x)
        step(x)
    gc.collect()
    junk = [np.random.default_rng(i).standard_normal(1000) for i in range(200)]
    assert np.array_equal(step(x), expected) and len(junk) == 200


def test_wrong_labels_are_refused_before_anything_runs() -> None:
    net = model()
    opt = optim.Adam(net.parameters())
    step = capture(lambda x, t: loss_and_step(net, opt, x, t))
    for x, t in batches(3):
        step(x, t)
    before, count = values(net), opt.state_dict()["state"][0]["step"]
    for wrong in (5, -1):
        with pytest.raises(nnx.LabelError, match=f"class id {wrong} at t"):
            step(x, np.full(16, wrong))
    assert equal(values(net), before) and opt.state_dict()["state"][0]["step"] == count
    step(x, np.full(16, -100))  # ignored, all of them


def loss_and_step(net: Any, opt: Any, x: Any, t: Any) -> Any:
    opt.zero_grad()
    loss = nnx.softmax_cross_entropy(net(nnx.Tensor(x)), t)
    loss.backward()
    opt.step()
    return loss
