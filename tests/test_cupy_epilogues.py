"""What cuBLASLt does on the way of a product: chosen where it is right and faster.

On a stand-in for cuBLASLt, and on a GPU where there is one. What is not the faster way there is
made to be it: what it computes counts here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import fake_cublaslt
import fake_cupy
import numpy as np
import pytest
from capture_tools import batches
from cupy_tools import host, trained
from hypothesis import given, settings
from hypothesis import strategies as st

import nnx
from nnx import layers as L
from nnx import optim
from nnx.capture import capture
from nnx_cupy import gemm, product

FORWARD, BACKWARD = ("RELU_BIAS", "RELU_AUX_BIAS", "BIAS"), ("DRELU_BGRAD", "BGRADA")


@pytest.fixture
def lt(standin: Any) -> Any:
    """The stand-in for cuBLASLt."""
    return nnx.get_backend().cublaslt().bindings


@pytest.fixture
def prefer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`prefer(*names)` makes these epilogues take no time, and all else a second."""

    def choose(*names: str) -> None:
        def seconds(cupy: Any, do: Any) -> float:
            do()
            (way,) = do.args
            return 0.0 if way.name in names else 1.0

        monkeypatch.setattr(product, "seconds", seconds)

    return choose


def sgd(parameters: Any) -> optim.Optimizer:
    return optim.SGD(parameters, lr=0.1, momentum=0.9)


def deep(wrap: Any, steps: int = 30, **options: Any) -> Any:
    """A training of three layers with ReLU between them, and the captured step."""
    nnx.seed(1)
    return trained(wrap, sgd, steps, L.Linear(8, 8), L.Relu(), **options)


@pytest.mark.parametrize(
    "names",
    [(), ("BIAS",), ("BGRADA",), ("RELU_BIAS",), ("RELU_AUX_BIAS", "DRELU_BGRAD"),
     (*FORWARD, *BACKWARD)],
    ids=lambda names: " ".join(names) or "none",
)  # fmt: skip
def test_trainings_equal_eager_ones(device: Any, prefer: Any, names: tuple[str, ...]) -> None:
    prefer(*names)
    eager, _ = deep(lambda f: f)
    replayed, step = deep(capture, fuse="fast")
    for a, b in zip(eager, replayed, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    code = step.plan().code
    assert "one CUDA graph" in code
    assert {n for n in (*FORWARD, *BACKWARD) if f" + {n}" in code} <= set(names)
    if isinstance(nnx.get_backend().cublaslt().bindings, fake_cublaslt.CublasLt):
        used = {n for n in names if f" + {n}" in code}
        assert used == set(names) - ({"RELU_BIAS"} if "RELU_AUX_BIAS" in names else set())


def test_the_faster_way_is_taken_by_its_time(device: Any) -> None:
    """Here nothing is made faster: whatever is chosen, the training is the same."""
    eager, _ = deep(lambda f: f, 10)
    replayed, _ = deep(capture, 10, fuse="fast")
    for a, b in zip(eager, replayed, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_none_unless_it_is_asked_for(lt: Any, prefer: Any) -> None:
    prefer(*FORWARD, *BACKWARD)
    deep(capture)
    assert not lt.done


@pytest.mark.parametrize("name", [*FORWARD, *BACKWARD])
@pytest.mark.parametrize("how", ["wrong", "lacking", "failing"])
def test_one_that_is_wrong_or_missing_is_not_taken(
    lt: Any, prefer: Any, name: str, how: str
) -> None:
    prefer(*FORWARD, *BACKWARD)
    getattr(lt, how).add(fake_cublaslt.Epilogue[name])
    eager, _ = deep(lambda f: f)
    replayed, step = deep(capture, fuse="fast")
    for a, b in zip(eager, replayed, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    code = step.plan().code
    assert f" + {name}" not in code and " + " in code
    assert name != "RELU_AUX_BIAS" or " + DRELU_BGRAD" not in code


def test_a_relu_that_drops_nan_is_not_taken(lt: Any, prefer: Any) -> None:
    prefer(*FORWARD, *BACKWARD)
    lt.dropped = True
    _, step = deep(capture, fuse="fast")
    code = step.plan().code
    assert " + BIAS" in code and " + BGRADA" in code and "RELU" not in code


def test_nan_stays(device: Any, prefer: Any) -> None:
    prefer("RELU_BIAS")
    layer = L.Sequential(L.Linear(3, 4), L.Relu())
    step = capture(lambda x: layer(nnx.Tensor(x)), fuse="fast")
    x = np.ones((2, 3), np.float32)
    for value in (1, 1, 1, np.nan, 1):
        x[1, 2] = value
        y = host(step(nnx.asarray(x)).data)
        assert np.isfinite(y[0]).all() and np.isnan(y[1]).all() == (value != 1)


def test_a_mask_is_of_the_relu_that_lies_there(
    standin: Any, prefer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was written over, by another ReLU that no product has, tells nothing of that; also
    where nobody compares results.
    """
    prefer(*FORWARD, *BACKWARD)
    monkeypatch.setattr(product.Product, "_agrees", lambda self, way: self.do(way) is None)

    def run(wrap: Any, **options: Any) -> list[Any]:
        nnx.seed(0)
        first, second, last = L.Linear(12, 8), L.Linear(12, 8), L.Linear(8, 5)
        parameters = [*second.parameters(), *last.parameters()]
        opt = optim.SGD(parameters, lr=0.1)

        def step(x: Any, t: Any) -> Any:
            opt.zero_grad()
            with nnx.no_grad():
                before = nnx.sum(nnx.relu(first(nnx.Tensor(x))))
            y = second(nnx.Tensor(x))
            loss = nnx.softmax_cross_entropy(last(nnx.relu(y)), t)
            loss.backward()
            opt.step()
            return loss, before, y

        called = wrap(step, **options)
        found = [a for x, t in batches(8) for a in called(nnx.asarray(x), nnx.asarray(t))]
        return [host(a.data) for a in found] + [host(p.data) for p in parameters]

    for a, b in zip(run(lambda f: f), run(capture, fuse="fast"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["no bias", "one feature", "one row", "leading axes", "no rows"])
def test_shapes(device: Any, prefer: Any, form: str) -> None:
    prefer(*FORWARD, *BACKWARD)
    shape = {"one row": (1, 3), "leading axes": (2, 3, 3), "no rows": (0, 3)}.get(form, (4, 3))

    def run(wrap: Any, **options: Any) -> list[Any]:
        nnx.seed(0)
        width = 1 if form == "one feature" else 4
        net = L.Sequential(
            L.Linear(3, width, bias=form != "no bias"), L.Relu(), L.Linear(width, 2), L.Relu()
        )
        opt = optim.SGD(net.parameters(), lr=0.1)

        def step(x: Any) -> Any:
            opt.zero_grad()
            loss = nnx.sum(net(nnx.Tensor(x)) * net(nnx.Tensor(x)))
            loss.backward()
            opt.step()
            return loss

        called, rng = wrap(step, **options), np.random.default_rng(0)
        xs = [rng.standard_normal(shape).astype(np.float32) for _ in range(6)]
        found = [host(called(nnx.asarray(x)).data) for x in xs]
        return found + [host(p.data) for p in net.parameters()]

    for a, b in zip(run(lambda f: f), run(capture, fuse="fast"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


SIZES = st.one_of(st.integers(1, 8), st.integers(120, 140), st.just(257))


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(2, 8), SIZES, st.sampled_from(["float32", "float64", "float16"]))
def test_what_each_one_computes(rows: int, k: int, columns: int, dtype: str) -> None:
    """By its definition, from what was given, in float64."""
    rng = np.random.default_rng(rows * columns + k)
    with pytest.MonkeyPatch.context() as patch:
        cupy = fake_cupy.install(patch, fake_cupy.FakeCupy())
        fake_cublaslt.install(patch, cupy)
        lt = gemm.CublasLt()
        x, W, b, dout = (
            np.round(rng.standard_normal(s), 2).astype(dtype)
            for s in ((rows, k), (k, columns), columns, (rows, k))
        )
        mask = cupy.empty(gemm.mask_nbytes((rows, columns)), "uint8")

        def run(kind: str, a: Any, other: Any, vector: Any, shape: Any) -> Any:
            y = cupy.empty(shape, dtype)
            made = gemm.products(
                lt, y, a, other, "float32",
                gemm.Epilogue(kind, vector.data.ptr, mask.data.ptr if "RELU" in kind else 0),
            )  # fmt: skip
            assert made is not None and len(made) == 1
            workspace = cupy.empty(max(made[0].workspace, 1), "uint8")
            made[0].launch(workspace.data.ptr, workspace.nbytes, cupy.cuda.get_current_stream().ptr)
            return y.get()

        given = [cupy.asarray(a) for a in (x, W, b, dout)]
        wide = [a.astype("f8") for a in (x, W, b, dout)]
        y = wide[0] @ wide[1] + wide[2]
        close = functools.partial(
            np.testing.assert_allclose, rtol=0, atol={"float16": 0.05}.get(dtype, 1e-5)
        )
        close(run("BIAS", *given[:3], y.shape), y)
        close(run("RELU_AUX_BIAS", *given[:3], y.shape), np.maximum(y, 0))
        passed = run("RELU_BIAS", *given[:3], y.shape) > 0
        close(passed, y > 0, atol=0.0) if dtype == "float64" else None
        dy = (wide[3] @ wide[1]) * passed
        db = cupy.empty(columns, dtype)
        close(run("DRELU_BGRAD", given[3], given[1], db, y.shape), dy)
        close(db.get(), dy.sum(0), atol=1.0 if dtype == "float16" else 1e-3)
        dW, dz = cupy.empty(columns, dtype), cupy.asarray(y.astype(dtype))
        if rows > 1:
            close(run("BGRADA", given[0].T, dz, dW, (k, columns)), wide[0].T @ y, atol=rows * 0.02)
            close(dW.get(), y.sum(0), atol=rows * 0.02)
