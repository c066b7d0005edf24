"""Batch and layer normalisation on random shapes: PyTorch's values and gradients; replays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nnx
from nnx import layers as L
from nnx.capture import capture

torch = pytest.importorskip("torch", reason="PyTorch, the oracle, is not installed")
import torch_ops  # noqa: E402 - it imports torch

Host = np.ndarray[Any, Any]
SETTINGS = settings(
    max_examples=80, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
CLOSE = {"rtol": 1e-8, "atol": 1e-9}

LAYOUTS: dict[str, Callable[[Host], Host]] = {
    "plain": lambda a: a,
    "reversed axes": lambda a: np.ascontiguousarray(a.T).T,
    "channels last": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1),
    "sliced": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "backwards": lambda a: np.ascontiguousarray(a[::-1])[::-1],
}


class Call(NamedTuple):
    """What is given, which arrays ask for gradients, in which layouts x and dy are."""

    op: str
    shapes: tuple[tuple[int, ...] | None, ...]
    attrs: dict[str, Any]
    asking: tuple[bool, ...]
    layouts: tuple[str, str]
    block: int

    def arrays(self, seed: int, dtype: str = "float64") -> list[Host | None]:
        rng = np.random.default_rng(seed)
        made = [s if s is None else rng.standard_normal(s).astype(dtype) for s in self.shapes]
        made[0] = LAYOUTS[self.layouts[0]](made[0] + 3)
        return made


@st.composite
def norms(draw: Any) -> Call:
    name = draw(st.sampled_from(["batch_norm", "layer_norm"]))
    many = st.one_of(st.integers(1, 4), st.integers(1, 40))
    x = (draw(st.integers(0, 5)), *draw(st.lists(many, min_size=1, max_size=3)))
    attrs: dict[str, Any] = {"eps": draw(st.sampled_from([1e-5, 0.1]))}
    if name == "batch_norm":
        x = (max(1, x[0]), *x[1:])
        if draw(st.integers(0, 9)) == 0:
            x = (x[0], 0, *x[2:])
        scale: tuple[int, ...] = (x[1],)
    else:
        attrs["ndim"] = draw(st.integers(1, len(x) - 1))
        scale = x[len(x) - attrs["ndim"] :]
    shapes = (x, *(scale if draw(st.integers(0, 3)) else None for _ in range(2)))
    asking = [s is not None and draw(st.integers(0, 3)) > 0 for s in shapes]
    if not any(asking):
        asking[0] = True
    layouts = tuple(draw(st.sampled_from(sorted(LAYOUTS))) for _ in range(2))
    block = draw(st.sampled_from([1, 30, 200, 1 << 16]))
    return Call(name, shapes, attrs, tuple(asking), layouts, block)


@pytest.fixture
def block(backend: nnx.Backend) -> Iterator[Callable[[int], None]]:
    """Sets how many entries NumPy's kernels take at a time."""
    with pytest.MonkeyPatch.context() as patch:

        def of(size: int) -> None:
            if backend.name != "cupy":
                from nnx_numpy import norm

                patch.setattr(norm, "BLOCK", size)
                patch.setattr(norm, "FEW", 1)
                patch.setattr(norm, "SHORT", 1)

        yield of


def several(y: Any) -> tuple[Any, ...]:
    return y if isinstance(y, tuple) else (y,)


def weights(call: Call, dtype: str = "float64") -> list[Host]:
    """Of each result in the sum that is derived."""
    x = call.shapes[0]
    assert x is not None
    shapes = [x, x[1:2], x[1:2]] if call.op == "batch_norm" else [x]
    rng = np.random.default_rng(7)
    made = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    made[0] = LAYOUTS[call.layouts[1]](made[0])
    return made


def ours(call: Call, arrays: list[Any], ws: list[Any]) -> list[Any]:
    """The results, and the gradients that are asked for."""
    tensors = [
        a if a is None else nnx.Tensor(a, requires_grad=asks)
        for a, asks in zip(arrays, call.asking, strict=True)
    ]
    ys = several(getattr(nnx, call.op)(*tensors, **call.attrs))
    total = sum(nnx.sum(y * w) for y, w in zip(ys, ws, strict=True))
    if ys[0].size:
        total.backward()
    return [*ys, *(t.grad for t in tensors if t is not None)]


def theirs(call: Call, arrays: list[Any]) -> list[Host | None]:
    tensors = [
        a if a is None else torch.tensor(a.copy(), requires_grad=asks)
        for a, asks in zip(arrays, call.asking, strict=True)
    ]
    ys = several(torch_ops.ORACLE[call.op](*tensors, **call.attrs))
    if ys[0].numel():
        total = sum(
            (y * torch.tensor(w.copy())).sum() for y, w in zip(ys, weights(call), strict=True)
        )
        total.backward()
    grads = [t.grad for t in tensors if t is not None]
    return [v if v is None else v.numpy(force=True) for v in (*ys, *grads)]


@SETTINGS
@given(call=norms())
def test_values_and_gradients(call: Call, block: Any) -> None:
    block(call.block)
    arrays = call.arrays(0)
    given = [a if a is None else nnx.asarray(a) for a in arrays]
    ws = [nnx.asarray(w) for w in weights(call)]
    for a, b in zip(ours(call, given, ws), theirs(call, arrays), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(nnx.to_numpy(a), b, **CLOSE)


@SETTINGS
@given(call=norms(), dtype=st.sampled_from(["float32", "float64"]))
def test_replays_are_equal_to_the_bit(call: Call, dtype: str, backend: Any, block: Any) -> None:
    if backend.name == "cupy":
        pytest.skip("these are the layouts of host arrays")
    block(call.block)

    def f(arrays: list[Any], ws: list[Any]) -> Any:
        return ours(call, arrays, ws)

    step, ws = capture(f), weights(call, dtype)
    for seed in range(4):
        arrays = call.arrays(seed, dtype)
        for a, b in zip(f(arrays, ws), step(arrays, ws), strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert a.dtype == b.dtype == dtype
                assert np.array_equal(nnx.to_numpy(a), nnx.to_numpy(b))
    assert "1 plan" in repr(step)


@pytest.mark.parametrize("op", ["batch_norm", "layer_norm"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_large_mean_costs_no_digits(op: str, dtype: str, backend: nnx.Backend) -> None:
    x = np.random.default_rng(0).standard_normal((32, 3, 40)) + 1e4
    y = several(getattr(nnx, op)(nnx.asarray(x.astype(dtype))))[0]
    wide = several(torch_ops.ORACLE[op](torch.tensor(x.astype(dtype).astype("f8"))))[0].numpy()
    assert np.abs(nnx.to_numpy(y) - wide).max() < (2e-3 if dtype == "float32" else 1e-9)


def test_running_statistics_under_capture_equal_eager_ones(backend: nnx.Backend) -> None:
    rng = np.random.default_rng(0)
    batches = [nnx.asarray(rng.standard_normal((6, 3, 5, 4)).astype("f4") + 1) for _ in range(5)]

    def trained(wrap: Any) -> list[Host]:
        model = L.BatchNorm2d(3)
        optimizer = nnx.optim.SGD(model.parameters(), lr=0.1)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = nnx.mean(model(nnx.Tensor(x)) ** 3)
            loss.backward()
            optimizer.step()
            return loss

        step = wrap(step)
        losses = [nnx.to_numpy(step(x)).copy() for x in batches]
        return [*losses, *(nnx.to_numpy(v) for v in model.state_dict().values())]

    eager, captured = trained(lambda f: f), trained(capture)
    for a, b in zip(eager, captured, strict=True):
        np.testing.assert_array_equal(a, b)
    expected = torch.nn.BatchNorm2d(3)
    for x in batches:
        expected(torch.tensor(nnx.to_numpy(x)))
    model = L.BatchNorm2d(3)
    for x in batches:
        model(x)
    np.testing.assert_allclose(nnx.to_numpy(model.mean), expected.running_mean.numpy(), rtol=1e-5)
    np.testing.assert_allclose(nnx.to_numpy(model.var), expected.running_var.numpy(), rtol=1e-5)
