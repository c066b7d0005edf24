"""Plans: what they report, how they share memory, and every op replayed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from capture_tools import batches, model, trainer
from hypothesis import given
from hypothesis import strategies as st
from samples import SAMPLES

import nnx
from nnx import optim
from nnx.capture import capture
from nnx.capture.memory import fit

CASES = [case for cases in SAMPLES.values() for case in cases]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_every_op_replays_to_the_last_bit(case: Any, dtype: str) -> None:
    """Forward and derivatives, on values that the recording has not seen."""
    first, attrs = case.make(dtype)
    fixed = any(isinstance(v, np.ndarray) for v in attrs.values())  # which the values must fit

    def f(*arrays: Any) -> Any:
        left = iter(arrays)
        args = [nnx.Tensor(next(left)) if isinstance(a, np.ndarray) else a for a in first]
        learned = [a for a in args if isinstance(a, nnx.Tensor) and a.dtype.kind == "f"]
        for a in learned:
            a.requires_grad = True
        y = case.op(*args, **attrs)
        ys = y if isinstance(y, tuple) else (y,)
        if ys[0].requires_grad:
            nnx.sum(ys[0] * ys[0]).backward()
        return ys, [a.grad for a in learned]

    step = capture(f)
    with np.errstate(all="ignore"):
        for seed in range(4):
            args, _ = case.make(dtype, 0 if fixed else seed)
            arrays = [a for a in args if isinstance(a, np.ndarray)]
            (ys, grads), (replayed, regrads) = f(*arrays), step(*arrays)
            for y, z in zip(ys, replayed, strict=True):
                _same(y.data, z.data, case)
            for g, h in zip(grads, regrads, strict=True):
                assert (g is None) == (h is None)
                if g is not None:
                    _same(g, h, case)
    assert "1 plan" in repr(step)


def _same(a: Any, b: Any, case: Any) -> None:
    assert a.shape == b.shape and a.dtype == b.dtype
    if case.op.name == "gelu" and a.shape == ():
        # erf of a NumPy scalar inside a kernel is computed in Python's double precision.
        np.testing.assert_allclose(a, b, rtol=2e-6)
    else:
        assert np.array_equal(a, b, equal_nan=True)


def test_the_report() -> None:
    net = model()
    step = capture(trainer(net, optim.SGD(net.parameters(), lr=0.1)))
    for x, t in batches(3):
        step(x, t)
    report = step.plan()
    assert report.kernels["affine"] == 2 and report.kernels["sgd"] == 1
    assert report.fused == {"cross_entropy_with_gradient": 1}
    assert report.input_bytes == 16 * 12 * 4 + 16 * 8  # so small that they are copied
    assert report.planned_bytes == report.shared_bytes + report.kept_bytes
    assert 0 < report.shared_bytes < report.planned_bytes
    assert report.shared_bytes < report.eager_bytes < report.made_bytes
    text = str(report)
    assert text.startswith(f"kernels   {sum(report.kernels.values())}: affine 2, affine_W 2")
    assert "fused     cross_entropy_with_gradient 1" in text
    assert f"{report.buffers} in {report.shared_bytes:,} shared bytes" in text
    assert f"eager     {report.eager_bytes:,} bytes at once, {report.made_bytes:,} in all" in text


def test_results_whose_lives_do_not_overlap_share_memory() -> None:
    """A chain of ten needs two places where a result may not lie on its argument, else one."""

    def chain(f: Any) -> Any:
        def run(x: Any) -> Any:
            y = nnx.Tensor(x)
            for _ in range(10):
                y = f(y)
            return nnx.sum(y)

        return run

    x = np.ones((64, 64), np.float32)
    both_ways = (lambda y: y + y.T, 2)  # reads an argument in another order than it writes
    for f, places in ((nnx.exp, 1), (lambda y: nnx.matmul(y, y), 2), both_ways):
        step = capture(chain(f))
        with np.errstate(over="ignore"):
            for _ in range(3):
                step(x)
        assert step.plan().shared_bytes == places * x.nbytes
        assert step.plan().made_bytes == 10 * x.nbytes + 4
        assert step.plan().eager_bytes == 2 * x.nbytes


def test_an_argument_that_is_still_needed_keeps_its_memory() -> None:
    def f(x: Any) -> Any:
        a = nnx.Tensor(x) + 1.0
        b = nnx.exp(a)
        c = b * a
        view = nnx.reshape(a, (-1,))
        d = nnx.tanh(c)
        return nnx.sum(d) + nnx.sum(view)  # a lives on through its view

    step = capture(f)
    for i in range(5):
        x = np.full((8, 8), i / 10, np.float32)
        assert float(step(x)) == float(f(x))


def test_what_is_not_used_is_not_computed() -> None:
    def f(x: Any) -> Any:
        nnx.exp(x)
        return nnx.tanh(x)

    step = capture(f)
    for _ in range(3):
        step(np.ones(3))
    assert step.plan().kernels == {"tanh": 1}


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 20), st.integers(0, 6))))
def test_blocks_that_live_together_lie_apart(blocks: list[tuple[int, int, int]]) -> None:
    sizes = {i: 64 * size for i, (size, _, _) in enumerate(blocks)}
    spans = {i: (start, start + length) for i, (_, start, length) in enumerate(blocks)}
    starts = fit(sizes, spans)
    for i in sizes:
        for j in range(i):
            together = spans[i][0] <= spans[j][1] and spans[j][0] <= spans[i][1]
            apart = starts[i] + sizes[i] <= starts[j] or starts[j] + sizes[j] <= starts[i]
            assert apart or not together
