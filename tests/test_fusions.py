"""Fusions: each against the kernels it replaces, on random shapes; where one must not be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nnx
from nnx import optim
from nnx.backend import load_backend
from nnx.capture import capture
from nnx.op import op
from nnx.override import Fusion, Overrides

BACKENDS = [name for name in ("numpy", "numba") if nnx.backends()[name].available]
Made = tuple[Callable[..., Any], Callable[[np.random.Generator], tuple[Any, ...]]]


def floats(rng: np.random.Generator, *shape: int) -> Any:
    return rng.standard_normal(shape).astype("f4")


def layer_and(activation: Any, n: int, k: int, m: int) -> Made:
    """An affine layer, the activation, another layer, all gradients."""
    rng = np.random.default_rng(0)
    W, b, V, c = (nnx.Parameter(floats(rng, *s)) for s in ((k, m), (m,), (m, k), (k,)))

    def f(x: Any) -> Any:
        for p in (W, b, V, c):
            p.grad = None
        h = activation(nnx.affine(nnx.Tensor(x), W, b))
        y = nnx.affine(h, V, c)
        loss = nnx.sum(y * y)
        loss.backward()
        return loss, [p.grad for p in (W, b, V, c)]

    return f, lambda rng: (floats(rng, n, k),)


def classifier(reduction: str, n: int, k: int, m: int) -> Made:
    def f(x: Any, t: Any) -> Any:
        x = nnx.Tensor(x)
        x.requires_grad = True
        loss = nnx.softmax_cross_entropy(x, t, reduction=reduction, ignore_index=1)
        loss.backward()
        return loss, x.grad

    def draw(rng: np.random.Generator) -> tuple[Any, ...]:
        t = rng.integers(0, m + 1, n)
        t[0] = 0
        return floats(rng, n, m + 1), t

    return f, draw


def clipped(make: Callable[[Any], optim.Optimizer], n: int, k: int, m: int) -> Made:
    rng = np.random.default_rng(0)
    p = [nnx.Parameter(floats(rng, *s)) for s in ((n, k), (k, m), (m,))]
    optimizer = make(p)

    def f(x: Any) -> Any:
        optimizer.zero_grad()
        loss = nnx.sum((nnx.Tensor(x) @ p[0] @ p[1] + p[2]) ** 2)
        loss.backward()
        norm = optim.clip_grad_norm(p, 0.1)
        optimizer.step()
        return loss, norm, [v.data for v in p], [v.grad for v in p]

    return f, lambda rng: (floats(rng, 3, n),)


def sums(axis: int, product: bool, n: int, k: int, m: int) -> Made:
    def f(a: Any, b: Any) -> Any:
        a, b = nnx.Tensor(a), nnx.Tensor(b)
        return nnx.sum(a * b if product else nnx.exp(a), axis=axis, keepdims=m % 2 == 0)

    return f, lambda rng: (floats(rng, n, k), floats(rng, n, k))


def pooled(n: int, k: int, m: int) -> Made:
    """relu, max pooling, the gradient for the input; some windows overlap, some leave gaps."""
    size, stride = (1 + k % 3, 1 + m % 3), (1 + m % 2, 1 + k % 3)
    padding = (n % 2 if size[0] > 1 else 0, n % 2 if size[1] > 1 else 0)
    shape = (1 + n % 3, 1 + m % 2, 3 + k, 3 + m)
    z_shape = nnx.max_pool2d(np.zeros(shape), size=size, stride=stride, padding=padding).shape

    def f(x: Any, dz: Any) -> Any:
        x = nnx.Tensor(x)
        x.requires_grad = True
        z = nnx.max_pool2d(nnx.relu(x), size=size, stride=stride, padding=padding)
        z.backward(dz)
        return z, x.grad

    return f, lambda rng: (floats(rng, *shape), floats(rng, *z_shape))


CLIPPED = {
    "clip_and_sgd": lambda p: optim.SGD(p, 0.1, weight_decay=0.1),
    "clip_and_momentum": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "clip_and_adagrad": lambda p: optim.AdaGrad(p, 0.1),
    "clip_and_rmsprop": lambda p: optim.RMSProp(p, 0.1),
    "clip_and_rmsprop_momentum": lambda p: optim.RMSProp(p, 0.1, momentum=0.5),
    "clip_and_rmsprop_centered": lambda p: optim.RMSProp(p, 0.1, centered=True),
    "clip_and_rmsprop_centered_momentum": lambda p: optim.RMSProp(
        p, 0.1, centered=True, momentum=0.5
    ),
    "clip_and_adam": lambda p: optim.Adam(p, 0.1, weight_decay=0.1),
    "clip_and_adamw": lambda p: optim.AdamW(p, 0.1),
}
MAKERS: dict[str, Callable[[int, int, int], Made]] = {
    **{
        f"affine_{a}": lambda n, k, m, a=a: layer_and(getattr(nnx, a), n, k, m)
        for a in ("relu", "sigmoid", "tanh")
    },
    **{
        f"{a}_slope_with_bias_gradient": lambda n, k, m, a=a: layer_and(getattr(nnx, a), n, k, m)
        for a in ("relu", "sigmoid", "tanh")
    },
    "cross_entropy_with_gradient": lambda n, k, m: classifier(("mean", "sum")[k % 2], n, k, m),
    **{name: lambda n, k, m, f=f: clipped(f, n, k, m) for name, f in CLIPPED.items()},
    "max_pool2d_slope_of_relu": pooled,
    "sum_as_product": lambda n, k, m: sums((0, 1, -1)[m % 3], False, n, k, m),
    "product_of_rows": lambda n, k, m: sums((1, -1)[m % 2], True, n, k, m),
}


def fusions(backend: str) -> list[Fusion]:
    table = load_backend(backend).kernels
    assert isinstance(table, Overrides)
    return table.fusions


CASES = [(backend, fusion) for backend in BACKENDS for fusion in fusions(backend)]
by_case = pytest.mark.parametrize(
    ("name", "fusion"), CASES, ids=[f"{b}-{f.__name__}" for b, f in CASES]
)
sizes = st.integers(1, 40)


def flat(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [a for v in value for a in flat(v)]
    return [np.array(getattr(value, "data", value))]


def compared(name: str, fuse: str, n: int, k: int, m: int) -> tuple[list[Any], list[Any], Any]:
    """What three calls give eagerly and captured, and the plan."""
    (eager, draw), (f, _) = MAKERS[name](n, k, m), MAKERS[name](n, k, m)
    step = capture(f, fuse=fuse)
    found: tuple[list[Any], list[Any]] = [], []
    for seed in range(4):
        arrays = draw(np.random.default_rng(seed))
        found[0].extend(flat(eager(*arrays)))
        found[1].extend(flat(step(*arrays)))
    return *found, step.plan()


@by_case
def test_every_fusion_is_used_and_equals_what_it_replaces(name: str, fusion: Fusion) -> None:
    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(n=sizes, k=sizes, m=sizes)
    def check(n: int, k: int, m: int) -> None:
        with nnx.use_backend(name):
            eager, replayed, plan = compared(fusion.__name__, "fast", n, k, m)
        assert fusion.__name__ in plan.fused and f"{fusion.__name__} " in str(plan)
        for a, b in zip(eager, replayed, strict=True):
            if fusion.exact:
                assert np.array_equal(a, b)
            else:
                np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)

    check()


@by_case
def test_those_that_round_are_used_on_request_only(name: str, fusion: Fusion) -> None:
    with nnx.use_backend(name):
        eager, replayed, plan = compared(fusion.__name__, "exact", 7, 9, 5)
    assert (fusion.__name__ in plan.fused) == fusion.exact
    assert all(map(np.array_equal, eager, replayed))


def relu_layer(x: Any) -> Any:
    h = nnx.affine(nnx.Tensor(x), np.ones((3, 2), "f4"), np.ones(2, "f4"))
    return h, nnx.relu(h)


@pytest.mark.skipif("numba" not in BACKENDS, reason="numba is not installed")
def test_an_inner_result_that_is_needed_is_not_fused_away() -> None:
    W, b = np.ones((3, 2), "f4"), np.full(2, -1, "f4")

    def layer(x: Any, use: str) -> Any:
        h = nnx.affine(nnx.Tensor(x), W, b)
        return {"returned": (h, nnx.relu(h)), "used": nnx.relu(h) + nnx.exp(h)}.get(
            use, nnx.relu(h)
        )

    x = np.arange(12, dtype="f4").reshape(4, 3) - 6
    with nnx.use_backend("numba"):
        for use, fused in (("returned", 0), ("used", 0), ("not", 1)):
            step = capture(layer)
            for _ in range(3):
                assert all(map(np.array_equal, flat(step(x, use)), flat(layer(x, use))))
            assert step.plan().fused.get("affine_relu", 0) == fused


@pytest.mark.skipif("numba" not in BACKENDS, reason="numba is not installed")
def test_a_layer_without_a_bias_is_not_fused() -> None:
    W, x = np.ones((3, 2), "f4"), np.arange(12, dtype="f4").reshape(4, 3) - 6
    with nnx.use_backend("numba"):
        step = capture(lambda x: nnx.relu(nnx.affine(nnx.Tensor(x), W)))
        for _ in range(4):
            assert np.array_equal(step(x).data, np.maximum(x @ W, 0))
    assert step.plan().fused == {}


def test_a_cotangent_that_is_one_by_chance_is_not_taken_for_a_constant() -> None:
    def f(x: Any, t: Any, scale: Any) -> Any:
        x = nnx.Tensor(x)
        x.requires_grad = True
        nnx.softmax_cross_entropy(x, t).backward(scale)
        return x.grad

    step, rng = capture(f), np.random.default_rng(0)
    for scale in (1.0, 1.0, 1.0, 3.0):
        x, t = floats(rng, 4, 3), rng.integers(0, 3, 4)
        one = np.asarray(scale, "f4")
        assert np.array_equal(step(x, t, one), f(x, t, one))
    assert "cross_entropy_with_gradient" not in step.plan().fused


def test_a_gradient_that_is_read_between_clipping_and_update_keeps_them_apart() -> None:
    def make(wrap: Any) -> Any:
        p = [nnx.Parameter(np.ones((2, 2), "f4")), nnx.Parameter(np.ones(3, "f4"))]
        opt = optim.SGD(p, 0.1)

        def f(x: Any) -> Any:
            opt.zero_grad()
            nnx.sum((nnx.Tensor(x) @ p[0]) ** 2 * nnx.sum(p[1])).backward()
            optim.clip_grad_norm(p, 0.5)
            between = nnx.exp(p[0].grad)
            opt.step()
            return between, [v.data for v in p]

        step = wrap(f)
        found = [flat(step(np.full((1, 2), float(i), "f4"))) for i in range(5)]
        return found, step

    (eager, _), (replayed, step) = make(lambda f: f), make(capture)
    assert all(map(np.array_equal, flat(eager), flat(replayed)))
    assert step.plan().fused == {"clip_and_sgd": 1}  # the reading call can come before or after


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
def test_layers_without_a_bias(name: str, activation: str) -> None:
    W, V = (nnx.Parameter(np.full(s, 0.1, "f4")) for s in ((6, 5), (5, 3)))

    def f(x: Any) -> Any:
        W.grad = V.grad = None
        h = getattr(nnx, activation)(nnx.affine(nnx.Tensor(x), W))
        loss = nnx.sum(nnx.affine(h, V) ** 2)
        loss.backward()
        return loss, W.grad, V.grad

    with nnx.use_backend(name):
        step, rng = capture(f), np.random.default_rng(0)
        for _ in range(5):
            x = floats(rng, 4, 6)
            assert all(map(np.array_equal, flat(step(x)), flat(f(x))))


@op
def wide_sum(xp: Any, x: Any) -> Any:
    return xp.sum(x, axis=1, dtype=xp.float64)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("f", [lambda x: nnx.sum(0.5 * nnx.Tensor(x), axis=1), wide_sum])
def test_what_a_fusion_does_not_know_it_leaves(name: str, f: Any) -> None:
    """A Python number where it takes arrays, an option that it does not have."""
    with nnx.use_backend(name):
        step, rng = capture(f, fuse="fast"), np.random.default_rng(0)
        for _ in range(4):
            x = floats(rng, 4, 6)
            (replayed,), (eager,) = flat(step(x)), flat(f(x))
            assert replayed.dtype == eager.dtype
            np.testing.assert_allclose(replayed, eager, rtol=1e-5)
    assert "product_of_rows" not in step.plan().fused


def test_an_unknown_way_to_fuse() -> None:
    with pytest.raises(nnx.OptionError, match="fuse='all', expected 'exact' or 'fast'"):
        capture(relu_layer, fuse="all")


def test_all_fusions_have_a_case_here() -> None:
    for backend, fusion in CASES:
        assert fusion.__name__ in MAKERS, (backend, fusion.__name__)
