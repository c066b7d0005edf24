"""Parameters and gradients as views of buffers: where they lie, and that nobody can tell."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nnx
from nnx import layers as L
from nnx import optim
from nnx.flat import neighbours

OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda ps: optim.SGD(ps, 0.1, weight_decay=0.01),
    "momentum": lambda ps: optim.SGD(ps, 0.1, momentum=0.9, dampening=0.5),
    "adagrad": lambda ps: optim.AdaGrad(ps, initial_accumulator_value=0.1),
    "rmsprop": lambda ps: optim.RMSProp(ps, centered=True, momentum=0.9),
    "adam": lambda ps: optim.Adam(ps, 0.01),
    "adamw": lambda ps: optim.AdamW(ps, 0.01),
}


def network(dtype: str = "float32") -> L.Sequential:
    nnx.seed(0)
    return L.Sequential(
        L.Linear(5, 7, dtype=dtype), L.Tanh(), L.Linear(7, 4, dtype=dtype), L.Tanh(),
        L.Linear(4, 3, dtype=dtype),
    )  # fmt: skip


def batches(count: int, dtype: str = "float32") -> list[Any]:
    rng = np.random.default_rng(1)
    return [
        (rng.standard_normal((6, 5)).astype(dtype), rng.integers(0, 3, 6)) for _ in range(count)
    ]


def backward(net: L.Layer, x: Any, t: Any) -> None:
    net.zero_grad()
    nnx.softmax_cross_entropy(net(nnx.Tensor(x)), t).backward()


def held(net: L.Layer) -> list[Any]:
    """References that keep all arrays where they are: training as if nothing were packed."""
    return [p.data for p in net.parameters()]


def equal(a: L.Layer, b: L.Layer) -> bool:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return all(np.array_equal(p.data, q.data) for p, q in pairs)


def test_parameters_and_gradients_are_views_of_one_buffer_each() -> None:
    net = network()
    before = net.state_dict()
    optim.SGD(net.parameters(), 0.1)
    flats = {id(p.flat) for p in net.parameters()}
    flat = net[0].W.flat
    assert len(flats) == 1 and flat is not None
    assert flat.data.size == sum(p.size for p in net.parameters()) == flat.grads.size
    for buffer in (flat.data, flat.grads):
        assert buffer.__array_interface__["data"][0] % 64 == 0
    for name, p in net.named_parameters():
        assert np.shares_memory(p.data, flat.data) and np.array_equal(p.data, before[name])
    backward(net, *batches(1)[0])
    for p in net.parameters():
        assert np.shares_memory(p.grad, flat.grads)
    places = sorted((p.place, p.size) for p in net.parameters())
    assert flat.starts == [sum(size for _, size in places[:i]) for i in range(len(places) + 1)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_is_the_same_as_with_arrays_apart(name: str) -> None:
    packed, apart = network(), network()
    keep = held(apart)
    optimizers = [OPTIMIZERS[name](net.parameters()) for net in (packed, apart)]
    assert packed[0].W.flat is not None and apart[0].W.flat is None
    for i, (x, t) in enumerate(batches(12)):
        for net, opt in zip((packed, apart), optimizers, strict=True):
            net[2].W.requires_grad = not 3 <= i < 6  # frozen for a while
            backward(net, x, t)
            if i % 4 == 3:
                net[0].b.grad = None
            if i % 3 == 2:
                optim.clip_grad_value(net.parameters(), 0.05)
            opt.step()
        assert equal(packed, apart)
    saved = [opt.state_dict()["state"] for opt in optimizers]
    assert saved[0].keys() == saved[1].keys()
    for a, b in zip(saved[0].values(), saved[1].values(), strict=True):
        assert all(np.array_equal(a[k], b[k]) for k in a)
    assert keep


def calls_of_update(monkeypatch: pytest.MonkeyPatch, opt: optim.Optimizer) -> list[int]:
    """The sizes of the arrays that one step updates, call by call."""
    sizes: list[int] = []
    kernel = opt.plan(opt.param_groups[0]).kernel
    call = type(kernel).__call__

    def counted(self: Any, p: Any, *args: Any, **attrs: Any) -> Any:
        sizes.append(p.size)
        return call(self, p, *args, **attrs)

    with monkeypatch.context() as patch:
        patch.setattr(type(kernel), "__call__", counted)
        opt.step()
    return sizes


def test_one_call_updates_the_model_or_each_run_with_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = network()
    opt = optim.Adam(net.parameters())
    total = sum(p.size for p in net.parameters())
    backward(net, *batches(1)[0])
    assert calls_of_update(monkeypatch, opt) == [total]
    in_order = sorted(net.parameters(), key=lambda p: p.place)
    in_order[2].requires_grad = False
    backward(net, *batches(1)[0])
    before, after = sum(p.size for p in in_order[:2]), sum(p.size for p in in_order[3:])
    assert calls_of_update(monkeypatch, opt) == [before, after]
    in_order[2].requires_grad = True  # it has had one update less, and has numbers of its own
    backward(net, *batches(1)[0])
    assert calls_of_update(monkeypatch, opt) == [before, in_order[2].size, after]


def test_an_array_that_somebody_holds_stays_where_it_is() -> None:
    W, b = np.ones((3, 2), "f4"), np.zeros(2, "f4")
    layer = nnx.Affine(W, b)
    rest = L.Linear(2, 2)
    part = nnx.Parameter(np.zeros((4, 2), "f4")[:2])  # all its memory is not its own
    opt = optim.SGD([*layer.parameters(), *rest.parameters(), part], 1.0)
    assert layer.W.data is W and layer.W.flat is None and part.flat is None
    assert rest.W.flat is rest.b.flat is not None
    for p in (*layer.parameters(), *rest.parameters(), part):
        p.grad = np.full(p.shape, 0.5, "f4")
    opt.step()
    assert np.all(W == 0.5) and np.all(b == -0.5) and np.all(part.data == -0.5)


def test_a_gradient_that_somebody_holds_is_not_overwritten() -> None:
    net = network()
    opt = optim.SGD(net.parameters(), 0.1)
    (x, t), (x2, t2) = batches(2)
    backward(net, x, t)
    first = net[0].W.grad
    values = first.copy()
    backward(net, x2, t2)
    assert np.array_equal(first, values) and not np.array_equal(net[0].W.grad, values)
    opt.step()
    del first
    backward(net, x, t)
    assert net[0].W.grad is net[0].W.slot


@pytest.mark.parametrize(
    "view",
    [lambda g: g.T, lambda g: g[1:], lambda g: g.reshape(-1), lambda g: g.T[::2].view("i4")],
)
def test_a_gradient_is_not_overwritten_while_a_view_of_it_is_held(view: Any) -> None:
    net, apart = network(), network()
    keep = held(apart)
    optim.SGD(net.parameters(), 0.1)
    views: list[Any] = []
    for x, t in batches(3):
        for n in (net, apart):
            backward(n, x, t)
            views.append(view(n[0].W.grad))
    for a, b in zip(views[::2], views[1::2], strict=True):
        assert np.array_equal(a, b)
    del views[:], a, b
    backward(net, x, t)
    assert net[0].W.grad is net[0].W.slot and keep


def test_accumulation_adds_in_the_buffer() -> None:
    net, apart = network(), network()
    keep = held(apart)
    optim.SGD(net.parameters(), 0.1)
    for x, t in batches(3):
        for n in (net, apart):
            nnx.softmax_cross_entropy(n(nnx.Tensor(x)), t).backward()
    for p, q in zip(net.parameters(), apart.parameters(), strict=True):
        assert p.grad is p.slot and np.array_equal(p.grad, q.grad)
    assert keep


def test_a_parameter_shared_by_two_layers() -> None:
    nnx.seed(0)
    first = L.Linear(4, 4)
    twice = L.Sequential(first, L.Tanh(), first, L.Linear(4, 3))
    opt = optim.Adam(twice.parameters(), 0.01)
    assert len(opt.param_groups[0]["params"]) == 4
    x, t = np.ones((2, 4), "f4"), np.array([0, 1])
    before = first.W.data.copy()
    backward(twice, x, t)
    opt.step()
    assert twice[2].W is first.W and not np.array_equal(first.W.data, before)


@pytest.mark.parametrize("move", ["astype", "to"])
def test_a_model_that_moves_is_packed_again_and_keeps_its_state(move: str, strict: str) -> None:
    moved, stayed = network(), network()
    optimizers = [optim.Adam(net.parameters(), 0.01) for net in (moved, stayed)]
    objects, last = moved.parameters(), moved[0].W.flat
    for i, (x, t) in enumerate(batches(6)):
        if i == 3:
            if move == "astype":
                moved.astype("float64").astype("float32")
            else:
                moved.to(strict)
                assert all(p.flat is None for p in objects)  # its arrays have no views
                moved.to("numpy")
        for net, opt in zip((moved, stayed), optimizers, strict=True):
            backward(net, x, t)
            opt.step()
    assert equal(moved, stayed) and moved.parameters() == objects
    if move == "astype":  # the other backend may share the memory, which then stays where it is
        assert len({id(p.flat) for p in objects}) == 1 and moved[0].W.flat not in (None, last)


def test_the_first_step_packs_what_was_moved_without_its_layer() -> None:
    net = network()
    opt = optim.SGD(net.parameters(), 0.1)
    for p in net.parameters():
        p.move(p.backend, "float64")
    backward(net, *batches(1, "float64")[0])
    opt.step()
    assert len({id(p.flat) for p in net.parameters()}) == 1 and net[0].W.flat is not None


@pytest.mark.parametrize("head_first", [False, True])
def test_a_second_optimizer_of_some_of_the_parameters(head_first: bool) -> None:
    packed, apart = network(), network()
    keep = held(apart)
    made = []
    for net in (packed, apart):
        if head_first:
            head = optim.SGD(net[4].parameters(), 0.5, momentum=0.9)
            whole = optim.Adam(net.parameters(), 0.01)
        else:
            whole = optim.Adam(net.parameters(), 0.01)
            head = optim.SGD(net[4].parameters(), 0.5, momentum=0.9)
        made.append((whole, head))
    for i, (x, t) in enumerate(batches(8)):
        for net, (whole, head) in zip((packed, apart), made, strict=True):
            backward(net, x, t)
            (head if i % 2 else whole).step()
    assert equal(packed, apart) and keep


def test_two_dtypes_have_two_buffers_and_none_is_made_for_one_parameter() -> None:
    wide, narrow, single = network("float64"), network(), L.Linear(2, 2, bias=False)
    optim.SGD([*wide.parameters(), *narrow.parameters()], 0.1)
    assert wide[0].W.flat is not narrow[0].W.flat
    assert wide[0].W.dtype == np.float64 and narrow[0].W.dtype == np.float32
    optim.SGD(single.parameters(), 0.1)
    assert single.W.flat is None


def test_assigned_data_is_written_through() -> None:
    net = network()
    optim.SGD(net.parameters(), 0.1)
    flat = net[0].W.flat
    assert flat is not None
    net[0].W.data = np.full((5, 7), 2.0, "f4")
    net.load_state_dict({**net.state_dict(), "0.b": np.full(7, 3.0, "f4")})
    assert net[0].W.flat is flat and np.shares_memory(net[0].W.data, flat.data)
    assert np.count_nonzero(flat.data == 2.0) == 35 and np.count_nonzero(flat.data == 3.0) == 7


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_of_model_and_optimizer_trains_alike(copied: Callable[[Any], Any]) -> None:
    net = network()
    opt = optim.Adam(net.parameters(), 0.01)
    first, *rest = batches(4)
    backward(net, *first)
    opt.step()
    net2, opt2 = copied((net, opt))
    assert not np.shares_memory(net2[0].W.data, net[0].W.data)
    for x, t in rest:
        for n, o in ((net, opt), (net2, opt2)):
            backward(n, x, t)
            o.step()
    assert equal(net, net2) and net2[0].W.flat is not None


def test_neighbours() -> None:
    net = network()
    parameters = net.parameters()
    optim.SGD(parameters, 0.1)
    assert [len(near) for near in neighbours(parameters)] == [1] * 6  # no gradients there yet
    backward(net, *batches(1)[0])
    (near,) = neighbours(parameters)
    assert [p.place for p in near] == [0, 1, 2, 3, 4, 5]
    near[3].grad = near[3].grad.copy()
    found = sorted([p.place for p in part] for part in neighbours(parameters))
    assert found == [[0, 1, 2], [3], [4, 5]]


def test_an_empty_parameter_has_its_place() -> None:
    parameters = [nnx.Parameter(np.ones(s, "f4")) for s in ((3,), (0, 4), (2, 2))]
    opt = optim.Adam(parameters, 0.1)
    for p in parameters:
        p.take_gradient(np.ones(p.shape, "f4"))
    opt.step()
    assert [p.shape for p in parameters] == [(3,), (0, 4), (2, 2)]
    assert np.all(parameters[0].data < 1) and np.all(parameters[2].data < 1)
