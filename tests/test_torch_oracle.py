"""PyTorch on the CPU, in float64, as an independent oracle: values, gradients, second gradients."""

from __future__ import annotations

import math
from typing import Any

import calculus
import numpy as np
import pytest
import samples
from calculus import Host, host, outputs, placed, smooth_positions
from makers import Case

import nnx

torch = pytest.importorskip("torch", reason="PyTorch, the oracle, is not installed")
import torch_ops  # noqa: E402 - it imports torch

each_case = pytest.mark.parametrize("case", samples.CASES, ids=lambda c: c.id)
CLOSE = {"rtol": 1e-11, "atol": 1e-12}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_every_op_has_an_oracle() -> None:
    assert set(torch_ops.ORACLE) == set(samples.ops())


def to_torch(value: Any, leaf: bool = False) -> Any:
    if isinstance(value, tuple):
        return tuple(to_torch(v) for v in value)
    if not isinstance(value, np.ndarray):
        return value
    made = torch.from_numpy(np.ascontiguousarray(value).reshape(value.shape).copy())
    return made.requires_grad_() if leaf else made


def tolerance(case: Case) -> dict[str, float]:
    return CLOSE if case.smooth else {"rtol": 1e-6, "atol": 1e-7}


def in_torch(
    case: Case, args: list[Any], attrs: dict[str, Any], douts: list[Host], v: list[Host]
) -> tuple[list[Any], list[Any], list[Any]]:
    """Outputs; gradients of <y, dout>; gradients of <those, v> for the arguments and the douts."""
    places = smooth_positions(case.op, args)
    tensors = [to_torch(a, leaf=i in places) for i, a in enumerate(args)]
    inputs = [tensors[i] for i in places]
    oracle, options = torch_ops.ORACLE[case.op.name], {k: to_torch(a) for k, a in attrs.items()}
    y = outputs(oracle(*tensors, **options))
    dys = [to_torch(d, leaf=True) for d in douts]
    total = sum((a * b).sum() for a, b in zip(y, dys, strict=True))
    grads = torch.autograd.grad(total, inputs, create_graph=True)
    second = sum((a * to_torch(b)).sum() for a, b in zip(grads, v, strict=True))
    second = second + 0 * total  # so that a constant gradient has a history too
    seconds = torch.autograd.grad(second, [*inputs, *dys], materialize_grads=True)
    return [*y], [*grads], [*seconds]


def in_nnx(
    case: Case, args: list[Any], attrs: dict[str, Any], douts: list[Host], v: list[Host]
) -> tuple[list[Any], list[Any], list[Any]]:
    places = smooth_positions(case.op, args)
    placed_attrs = {k: placed(a) for k, a in attrs.items()}
    fixed = [placed(a) for a in args]
    inputs = [nnx.Tensor(fixed[i], requires_grad=True) for i in places]
    dys = [nnx.Tensor(placed(d), requires_grad=True) for d in douts]
    n = len(inputs)

    def call(*given: Any) -> Any:
        all_args = list(fixed)
        for i, a in zip(places, given, strict=True):
            all_args[i] = a
        return outputs(case.op(*all_args, **placed_attrs))

    def first(*given: Any) -> Any:
        return _total(call(*given[:n]), given[n:])

    def second(*given: Any) -> Any:
        grads = nnx.grad(first, tuple(range(n)))(*given)
        return _total(grads, [placed(a) for a in v])

    grads = nnx.grad(first, tuple(range(n)))(*inputs, *dys)
    seconds = nnx.grad(second, tuple(range(n + len(dys))))(*inputs, *dys)
    return list(call(*inputs)), list(grads), list(seconds)


def _total(arrays: Any, others: Any) -> Any:
    total: Any = 0
    for a, b in zip(arrays, others, strict=True):
        total = total + nnx.sum(a * b)
    return total


@each_case
def test_values_and_both_orders(case: Case, backend: nnx.Backend) -> None:
    if not case.standard:
        calculus.skip_where_strict(backend)
    args, attrs = case.make("float64", 11)
    douts = calculus.like(calculus.value(case.op, args, attrs), 12)
    v = calculus.like([args[i] for i in smooth_positions(case.op, args)], 13)
    expected = in_torch(case, args, attrs, douts, v)
    found = in_nnx(case, args, attrs, douts, v)
    for order, (theirs, ours) in enumerate(zip(expected, found, strict=True)):
        for a, b in zip(theirs, host(ours), strict=True):
            assert b.shape == tuple(a.shape)
            np.testing.assert_allclose(
                b, a.numpy(force=True), err_msg=f"order {order}", **tolerance(case)
            )


# Kinks: where two derivatives would do, nnx takes PyTorch's.

KINKS = {
    "relu": ([[-1.0, 0.0, 2.0]], {}),
    "leaky_relu": ([[-1.0, 0.0, 2.0]], {"slope": 0.1}),
    "elu": ([[-1.0, 0.0, 2.0]], {"alpha": 0.5}),
    "abs": ([[-1.0, 0.0, 2.0]], {}),
    "clip": ([[-2.0, -1.0, 0.0, 1.0, 2.0]], {"min": -1.0, "max": 1.0}),
    "maximum": ([[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]], {}),
    "minimum": ([[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]], {}),
    "max": ([[[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]], {"axis": 1}),
    "min": ([[[1.0, 1.0, 3.0], [2.0, 2.0, 2.0]]], {"axis": None}),
    "huber": ([[0.5, 0.0, -1.0, 3.0], [0.0, 0.0, 0.0, 2.0]], {"delta": 0.5, "reduction": "sum"}),
    "mean_absolute_error": ([[0.5, 1.0], [0.0, 1.0]], {}),
    "pow": ([[0.0, 2.0, 0.0, 1.0], [2.0, 0.0, 0.0, 3.0]], {}),
    "gelu": ([[0.0]], {}),
}


@pytest.mark.parametrize("name", KINKS)
def test_kinks(name: str, backend: nnx.Backend) -> None:
    values, attrs = KINKS[name]
    args = [np.asarray(v) for v in values]
    op = samples.ops()[name]
    _, found = calculus.gradients(
        op, [placed(a) for a in args], attrs,
        [placed(np.ones_like(v)) for v in calculus.value(op, args, attrs)],
    )  # fmt: skip
    places = smooth_positions(op, args)
    tensors = [to_torch(a, leaf=i in places) for i, a in enumerate(args)]
    torch_ops.ORACLE[name](*tensors, **attrs).sum().backward()
    for i, g in zip(places, host(found), strict=True):
        np.testing.assert_allclose(g, tensors[i].grad.numpy(), rtol=1e-12)


def test_pow_by_a_number_at_zero(backend: nnx.Backend) -> None:
    for exponent in (0, 1, 2, 0.0, 3.0):
        x = nnx.Tensor([0.0, -2.0], requires_grad=True)
        theirs = torch.tensor([0.0, -2.0], requires_grad=True)
        (x**exponent).sum().backward()
        (theirs**exponent).sum().backward()
        assert nnx.to_numpy(x.grad).tolist() == theirs.grad.tolist()


# Cross-entropy


def cross_entropy_both(
    x: Host, t: Host, weight: Host | None = None, **attrs: Any
) -> tuple[Host, Host, Host, Host]:
    """nnx's loss and gradient, PyTorch's loss and gradient."""
    ours = nnx.Tensor(placed(x), requires_grad=True)
    loss = nnx.softmax_cross_entropy(ours, placed(t), placed(weight), **attrs)
    dout = placed(np.ones(loss.shape))
    loss.backward(dout)
    theirs = to_torch(x, leaf=True)
    expected = torch_ops.softmax_cross_entropy(theirs, to_torch(t), to_torch(weight), **attrs)
    expected.sum().backward()
    return loss.numpy(), nnx.to_numpy(ours.grad), expected.detach().numpy(), theirs.grad.numpy()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("targets", ["ids", "one-hot", "soft"])
@pytest.mark.parametrize("size", [1e4, 1e300])
def test_huge_logits(size: float, targets: str, reduction: str, backend: nnx.Backend) -> None:
    x = np.array([[1.0, -1.0, 0.0], [-0.5, 0.25, 1.0]]) * size
    t = {
        "ids": np.array([1, 2]),
        "one-hot": np.eye(3)[[1, 2]],
        "soft": np.array([[0.2, 0.3, 0.5], [0.0, 0.5, 0.5]]),
    }[targets]
    loss, grad, expected, expected_grad = cross_entropy_both(x, t, reduction=reduction)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(grad, expected_grad, atol=1e-15)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("soft", [False, True])
def test_masked_logits(soft: bool, reduction: str, backend: nnx.Backend) -> None:
    """-inf masks a class: it has probability 0, and no gradient unless it is the target."""
    x = np.array([[1.0, -np.inf, 0.0], [-0.5, 0.25, -np.inf]])
    ids = np.array([0, 1])
    loss, grad, expected, expected_grad = cross_entropy_both(x, ids, reduction=reduction)
    if soft:  # PyTorch computes 0 * inf = NaN here; nnx counts a target of 0 as 0
        loss, grad, *_ = cross_entropy_both(x, np.eye(3)[ids], reduction=reduction)
    np.testing.assert_allclose(loss, expected, rtol=1e-13)
    np.testing.assert_allclose(grad, expected_grad, rtol=1e-13, atol=1e-16)


def test_masked_target_is_infinite(backend: nnx.Backend) -> None:
    loss, _, expected, _ = cross_entropy_both(np.array([[1.0, -np.inf]]), np.array([1]))
    assert loss == expected == math.inf


def test_nothing_to_count_is_nan(backend: nnx.Backend) -> None:
    with np.errstate(all="ignore"):
        loss, _, expected, _ = cross_entropy_both(np.ones((2, 3)), np.array([7, 7]), ignore_index=7)
    assert np.isnan(loss) and np.isnan(expected)


# Higher orders in use


def network(xp: Any, x: Any, W1: Any, b1: Any, W2: Any) -> Any:
    """A critic: two layers and a smooth activation; one number per row."""
    return xp.tanh(x @ W1 + b1) @ W2


def weights() -> list[Host]:
    rng = np.random.default_rng(3)
    return [rng.standard_normal(s) for s in ((4, 3), (3, 5), (5,), (5, 1))]


def test_gradient_penalty(backend: nnx.Backend) -> None:
    """mean of (|d critic / dx| - 1)^2 (Gulrajani et al., 2017), differentiated for the weights."""
    arrays = weights()
    x, *params = (nnx.Tensor(placed(a), requires_grad=True) for a in arrays)
    dx = nnx.grad(lambda x: nnx.sum(network(nnx, x, *params)))(x)
    penalty = nnx.mean((nnx.sqrt(nnx.sum(dx * dx, axis=1)) - 1) ** 2)
    penalty.backward()
    tx, *tparams = (to_torch(a, leaf=True) for a in arrays)
    (tdx,) = torch.autograd.grad(network(torch, tx, *tparams).sum(), tx, create_graph=True)
    expected = ((tdx.square().sum(1).sqrt() - 1) ** 2).mean()
    expected.backward()
    assert float(penalty) == pytest.approx(expected.item(), rel=1e-12)
    for ours, theirs in zip([x, *params], [tx, *tparams], strict=True):
        np.testing.assert_allclose(nnx.to_numpy(ours.grad), theirs.grad.numpy(), **CLOSE)


def test_hessian_vector_product(backend: nnx.Backend) -> None:
    arrays = weights()
    v = placed(np.random.default_rng(4).standard_normal((3, 5)))
    x, W1, b1, W2 = (nnx.Tensor(placed(a)) for a in arrays)

    def loss(W: Any) -> Any:
        return nnx.sum(nnx.sigmoid(network(nnx, x, W, b1, W2)) ** 2)

    found = nnx.grad(lambda W: nnx.sum(nnx.grad(loss)(W) * v))(W1.data)
    tx, _, tb1, tW2 = (to_torch(a) for a in arrays)
    _, expected = torch.autograd.functional.hvp(
        lambda W: (torch.sigmoid(network(torch, tx, W, tb1, tW2)) ** 2).sum(),
        to_torch(arrays[1]), to_torch(nnx.to_numpy(v)),
    )  # fmt: skip
    np.testing.assert_allclose(nnx.to_numpy(found), expected.numpy(), **CLOSE)


def test_backward_with_create_graph_is_the_same(backend: nnx.Backend) -> None:
    """x.grad is a Tensor with a history, and its own backward adds to it."""
    data = np.array([0.3, -1.2, 2.0])
    x, tx = nnx.Tensor(placed(data), requires_grad=True), to_torch(data, leaf=True)
    nnx.sum(nnx.gelu(x)).backward(create_graph=True)
    g = x.grad
    assert isinstance(g, nnx.Tensor)
    x.grad = None
    nnx.sum(g * g).backward()
    (tg,) = torch.autograd.grad(torch.nn.functional.gelu(tx).sum(), tx, create_graph=True)
    (tg * tg).sum().backward()
    np.testing.assert_allclose(nnx.to_numpy(x.grad), tx.grad.numpy(), **CLOSE)


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "gelu", "silu", "softplus", "exp", "erf"])
def test_third_derivatives(name: str, backend: nnx.Backend) -> None:
    op, f = samples.ops()[name], torch_ops.ORACLE[name]
    third = nnx.grad(nnx.grad(nnx.grad(op)))(placed(np.asarray(0.7)))
    x = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    y = f(x)
    for _ in range(3):
        (y,) = torch.autograd.grad(y, x, create_graph=True)
    assert float(nnx.to_numpy(third)) == pytest.approx(y.item(), rel=1e-11)
