"""Optimizers step by step against PyTorch, and what `step()` updates and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

from nnx import optim
from nnx.backend import get_backend
from nnx.errors import DtypeError, MixedBackendsError, ShapeError
from nnx.tensor import Parameter, Tensor

torch = pytest.importorskip("torch")

CASES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05}),
    ("AdaGrad", {}),
    ("AdaGrad", {"lr": 0.1, "lr_decay": 0.2, "weight_decay": 0.05}),
    ("AdaGrad", {"lr": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3}),
    ("RMSProp", {}),
    ("RMSProp", {"lr": 0.02, "alpha": 0.9, "eps": 1e-3, "weight_decay": 0.05}),
    ("RMSProp", {"momentum": 0.8, "weight_decay": 0.05}),
    ("RMSProp", {"centered": True}),
    ("RMSProp", {"centered": True, "momentum": 0.8, "weight_decay": 0.05}),
    ("Adam", {}),
    ("Adam", {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.05}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.3}),
]
TORCH = {"AdaGrad": "Adagrad", "RMSProp": "RMSprop"}
SHAPES = [(4, 3), (3,), (2, 3, 2, 2), ()]


def ours(name, params, **options):
    return getattr(optim, name)(params, **options)


def theirs(name, params, **options):
    return getattr(torch.optim, TORCH.get(name, name))(params, **options)


def pair(dtype="float64", seed=0):
    """The same parameters as nnx's and as PyTorch's."""
    rng = np.random.default_rng(seed)
    values = [np.asarray(rng.standard_normal(s), dtype) for s in SHAPES]
    return [Parameter(v.copy()) for v in values], [
        torch.nn.Parameter(torch.tensor(v)) for v in values
    ]


def give_gradients(mine, other, rng):
    for p, q in zip(mine, other, strict=True):
        g = np.asarray(rng.standard_normal(p.shape), p.dtype)
        p.grad, q.grad = g, torch.tensor(g)


def assert_close(mine, other, rtol, atol):
    for p, q in zip(mine, other, strict=True):
        assert p.dtype == q.detach().numpy().dtype
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=rtol, atol=atol)


@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda v: str(v))
@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [("float64", 1e-12, 1e-14), ("float32", 2e-5, 2e-6)]
)
def test_ten_steps_are_pytorchs(name, options, dtype, rtol, atol):
    mine, other = pair(dtype)
    a, b = ours(name, mine, **options), theirs(name, other, **options)
    rng = np.random.default_rng(1)
    for _ in range(10):
        give_gradients(mine, other, rng)
        a.step()
        b.step()
        assert_close(mine, other, rtol, atol)


@pytest.mark.parametrize("name", ["SGD", "AdaGrad", "RMSProp", "Adam", "AdamW"])
def test_defaults_are_pytorchs(name):
    mine, other = pair()
    defaults = ours(name, mine).param_groups[0]
    for key, value in theirs(name, other).param_groups[0].items():
        if key in defaults and key != "params":
            assert defaults[key] == value, key


def test_groups_have_options_of_their_own_and_lr_may_change():
    mine, other = pair()
    groups = [[0, 1], [2, 3]]
    options = [{"lr": 0.1, "weight_decay": 0.3}, {}]
    a, b = (
        make([{"params": [ps[i] for i in g], **o} for g, o in zip(groups, options, strict=True)])
        for make, ps in ((optim.AdamW, mine), (torch.optim.AdamW, other))
    )
    rng = np.random.default_rng(1)
    for step in range(10):
        for group in (*a.param_groups, *b.param_groups):
            group["lr"] *= 0.9
            group["weight_decay"] = 0.01 * step
        give_gradients(mine, other, rng)
        a.step()
        b.step()
        assert_close(mine, other, 1e-12, 1e-14)


def test_add_param_group_while_training():
    mine, other = pair()
    a, b = optim.Adam(mine[:2]), torch.optim.Adam(other[:2])
    rng = np.random.default_rng(1)
    for step in range(6):
        if step == 3:
            a.add_param_group({"params": mine[2:], "lr": 0.1})
            b.add_param_group({"params": other[2:], "lr": 0.1})
        give_gradients(mine, other, rng)
        a.step()
        b.step()
    assert_close(mine, other, 1e-12, 1e-14)
    assert [len(g["params"]) for g in a.param_groups] == [2, 2]


def test_numpy_scalars_as_options_do_not_promote_float32():
    mine, _ = pair("float32")
    opt = optim.Adam(mine, lr=np.float64(0.1))
    opt.param_groups[0]["lr"] = np.float64(0.2)
    for p in mine:
        p.grad = np.ones(p.shape, "float32")
    opt.step()
    assert all(p.dtype == np.float32 for p in mine)
    assert all(a.dtype == np.float32 for s in opt._states.values() for a in s.arrays)


def test_a_parameter_without_gradient_is_neither_decayed_nor_counted():
    mine, other = pair()
    a, b = optim.Adam(mine, weight_decay=0.1), torch.optim.Adam(other, weight_decay=0.1)
    rng = np.random.default_rng(1)
    for step in range(6):
        give_gradients(mine, other, rng)
        if step % 2:
            mine[0].grad = other[0].grad = None
        before = mine[0].data.copy()
        a.step()
        b.step()
        if step % 2:
            np.testing.assert_array_equal(mine[0].data, before)
    assert_close(mine, other, 1e-12, 1e-14)


def test_a_frozen_parameter_is_left_alone_and_nothing_is_allocated_for_it():
    mine, _ = pair()
    opt = optim.Adam(mine)
    mine[0].requires_grad = False
    before = mine[0].data.copy()
    for p in mine:
        p.grad = np.ones(p.shape)
    opt.step()
    np.testing.assert_array_equal(mine[0].data, before)
    assert mine[0] not in opt._states and len(opt._states) == 3
    assert list(opt.state_dict()["state"]) == [1, 2, 3]


def test_zero_grad_sets_none():
    mine, other = pair()
    opt = optim.SGD(mine)
    give_gradients(mine, other, np.random.default_rng(1))
    opt.zero_grad()
    assert all(p.grad is None for p in mine)


def test_after_tape_explicit_and_create_graph_backward():
    from nnx import layers

    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((5, 4)), rng.standard_normal((5, 3))
    results = []
    for style in ("tape", "explicit", "create_graph"):
        net = layers.Linear(4, 3, W_init=lambda s, r=None: np.ones(s), dtype="float64")
        opt = optim.Adam(net.parameters())
        for _ in range(3):
            opt.zero_grad()
            if style == "explicit":
                net.forward(x)
                net.backward(dy)
            else:
                net(Tensor(x)).backward(dy, create_graph=style == "create_graph")
            opt.step()
        results.append(net.W.data)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_state_follows_a_parameter_to_another_dtype():
    mine, other = pair("float32")
    a, b = optim.Adam(mine), torch.optim.Adam([q.detach().double() for q in other])
    double = b.param_groups[0]["params"]
    rng = np.random.default_rng(1)
    for step in range(6):
        if step == 3:
            for p in mine:
                p.move(get_backend(), "float64")
        for p, q in zip(mine, double, strict=True):
            p.grad = np.asarray(rng.standard_normal(p.shape), p.dtype)
            q.grad = torch.tensor(np.asarray(p.grad, "float64"))
        a.step()
        b.step()
    for p, q in zip(mine, double, strict=True):
        assert p.dtype == np.float64
        np.testing.assert_allclose(p.data, q.numpy(), rtol=1e-5, atol=1e-6)
    assert all(x.dtype == np.float64 for s in a._states.values() for x in s.arrays)


def test_momentum_switched_on_while_training():
    p = Parameter(np.zeros(2))
    opt = optim.SGD([p], 1.0)
    p.grad = np.ones(2)
    opt.step()
    opt.param_groups[0]["momentum"] = 0.5
    opt.step()
    opt.step()
    np.testing.assert_array_equal(p.data, [-1 - 1 - 1.5] * 2)


def test_backward_through_an_updated_parameter_is_an_error():
    p = Parameter(np.ones(2))
    loss = (p * p).sum()
    p.grad = np.ones(2)
    optim.SGD([p]).step()
    with pytest.raises(Exception, match="changed after the forward pass"):
        loss.backward()


@pytest.mark.parametrize(
    ("grad", "error", "message"),
    [
        (np.ones(3), ShapeError, r"SGD: the gradient of parameter 1 has shape \(3,\), .* \(2,\)"),
        (np.ones(2, "f4"), DtypeError, r"gradient of parameter 1 is float32, .* float64; call opt"),
        (1.0, DtypeError, r"gradient of parameter 1 is a float, expected an array of shape \(2,\)"),
        (
            torch.ones(2).double(),
            MixedBackendsError,
            r"parameter 1 is an array of backend .*Tensor",
        ),
    ],
)
def test_a_gradient_that_does_not_fit_changes_nothing(grad, error, message):
    mine = [Parameter(np.ones(2)), Parameter(np.ones(2))]
    mine[0].grad, mine[1].grad = np.ones(2), grad
    opt = optim.SGD(mine)
    with pytest.raises(error, match=message):
        opt.step()
    np.testing.assert_array_equal(mine[0].data, np.ones(2))


def test_the_list_of_a_groups_parameters_may_change():
    """Parameters of one shape: comparing them would compare their values."""
    mine = [Parameter(np.full(3, i, "f4")) for i in range(4)]
    other = [torch.nn.Parameter(torch.tensor(p.data.copy())) for p in mine]
    a, b = optim.SGD(mine[:3], 0.1), torch.optim.SGD(other[:3], 0.1)
    assert mine[0].flat is not None
    for change in (
        lambda g, ps: None,
        lambda g, ps: None,
        lambda g, ps: g["params"].append(ps[3]),
        lambda g, ps: g["params"].pop(0),
        lambda g, ps: g.update(params=[ps[0], ps[1], ps[3]]),
        lambda g, ps: g["params"].reverse(),
    ):
        change(a.param_groups[0], mine)
        change(b.param_groups[0], other)
        for p, q in zip(mine, other, strict=True):
            p.grad = None
            p.take_gradient(np.ones(3, "f4"))  # into the buffer, where there is one
            q.grad = torch.ones(3)
        a.step()
        b.step()
        for p, q in zip(mine, other, strict=True):
            np.testing.assert_array_equal(p.data, q.detach().numpy())
