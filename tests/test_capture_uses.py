"""What replayed functions take, return and leave; other ways to use them."""

from __future__ import annotations

import gc
import threading
import tracemalloc

import numpy as np
import pytest
from capture_tools import batches, both, equal, model, train, trainer, values

import nnx
from nnx import layers as L
from nnx import optim
from nnx.capture import capture


def test_the_explicit_style():
    def make(wrap):
        net, loss = model(), L.SoftmaxCrossEntropy()
        opt = optim.SGD(net.parameters(), lr=0.1)

        def step(x, t):
            y = loss.forward(net.forward(x), t)
            dx = net.backward(loss.backward())
            opt.step()
            return y, dx

        step, losses = wrap(step), []
        for x, t in batches(24):
            y, dx = step(x, t)
            losses += [float(y), float(dx.sum())]
        return net, losses

    net = both(make)
    with pytest.raises(nnx.StateError, match="backward\\(\\) before forward\\(\\)"):
        net.backward(np.ones((16, 5), np.float32))  # the replay kept nothing for it


def test_ignored_labels_come_and_go():
    def make(wrap):
        net = model()
        data = batches(12)
        for i in (1, 5, 6):
            data[i][1][:3] = -100
        return train(wrap, net, optim.SGD(net.parameters(), lr=0.1), data)

    both(make)


def test_a_wrong_label_raises_as_it_does_eagerly():
    net = model()
    opt = optim.Adam(net.parameters())
    step = capture(trainer(net, opt))
    for x, t in batches(3):
        step(x, t)
    before, count = values(net), opt.state_dict()["state"][0]["step"]
    with pytest.raises(nnx.LabelError, match="class id 9 at t"):
        step(x, np.full(16, 9))
    assert equal(values(net), before) and opt.state_dict()["state"][0]["step"] == count


def test_a_transposed_argument_has_a_plan_of_its_own():
    x = np.random.default_rng(0).standard_normal((6, 300)).astype(np.float32)
    step = capture(lambda a: (nnx.sum(nnx.Tensor(a)), nnx.mean(nnx.Tensor(a), axis=0)))
    for a in (x, x.T, x[::-1, ::3]):
        for _ in range(4):
            total, mean = step(a)
            assert np.array_equal(total.data, nnx.sum(a))
            assert np.array_equal(mean.data, nnx.mean(a, axis=0))
    assert "3 plans" in repr(step)


def test_results_are_copies_in_the_shape_that_was_returned():
    def f(pair, scale, *, name):
        a, b = pair
        return {name: nnx.Tensor(a) * scale, "both": [a, nnx.add(a, b), None, 3]}

    step = capture(f)
    results = [step((np.full(2, float(i)), np.ones(2)), 2.0, name="y") for i in range(4)]
    for i, got in enumerate(results):
        assert isinstance(got["y"], nnx.Tensor) and got["y"].data.tolist() == [2.0 * i] * 2
        assert [v.tolist() for v in got["both"][:2]] == [[i, i], [i + 1, i + 1]]
        assert got["both"][2:] == [None, 3]


def test_backward_through_an_older_use_raises_after_a_replay():
    net = model()
    step = capture(trainer(net, optim.SGD(net.parameters(), lr=0.1)))
    for x, t in batches(3):
        step(x, t)
    loss = nnx.softmax_cross_entropy(net(nnx.Tensor(x)), t)
    step(x, t)
    with pytest.raises(nnx.StateError, match="was changed after the forward pass"):
        loss.backward()


def test_a_captured_function_inside_another():
    def make(wrap):
        net = model()
        inner = wrap(lambda x, t: nnx.softmax_cross_entropy(net(nnx.Tensor(x)), t))
        opt = optim.SGD(net.parameters(), lr=0.1)

        def step(x, t):
            opt.zero_grad()
            loss = inner(x, t)
            loss.backward()
            opt.step()
            return loss

        step = wrap(step)
        return net, [float(step(x, t)) for x, t in batches(8)]

    both(make)


@pytest.mark.parametrize("rows", [100, 1000])
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_a_replay_allocates_nothing_that_grows(rows, name):
    nnx.seed(0)
    net = L.Sequential(L.Linear(784, 100), L.Relu(), L.Linear(100, 10))
    step = capture(trainer(net, getattr(optim, name)(net.parameters(), weight_decay=0.01)))
    (x, t), *_ = batches(1, rows=rows, n_in=784)
    for _ in range(4):
        step(x, t)
    gc.collect()
    tracemalloc.start()
    try:
        step(x, t)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 64 * 1024


def test_the_optimizers_step_alone():
    """Gradients that eager code leaves are taken from where they are."""

    def make(wrap):
        net = model()
        opt, losses = optim.Adam(net.parameters()), []
        update = wrap(lambda: opt.step())
        for x, t in batches(8):
            opt.zero_grad()
            loss = nnx.softmax_cross_entropy(net(nnx.Tensor(x)), t)
            loss.backward()
            update()
            losses.append(float(loss))
        return net, losses

    both(make)


def test_derivatives_of_derivatives():
    def make(wrap):
        net = model()
        opt = optim.SGD(net.parameters(), lr=0.1)

        def step(x, t):
            opt.zero_grad()
            x = nnx.Tensor(x, requires_grad=True)
            slope = nnx.grad(lambda v: nnx.sum(nnx.tanh(net(v))))(x)
            loss = nnx.softmax_cross_entropy(net(x), t) + nnx.mean(slope * slope)
            loss.backward()
            opt.step()
            return loss

        step = wrap(step)
        return net, [float(step(x, t)) for x, t in batches(8)]

    both(make)


def test_casts_and_constants_inside():
    def f(x):
        wide = nnx.Tensor(nnx.asarray(x, "float64"))
        return wide * nnx.asarray([0.5, 1.5, 2.5], "float64") + nnx.Tensor(2.0, dtype="float64")

    step = capture(f)
    for i in range(4):
        x = np.arange(3, dtype=np.float32) + i
        assert np.array_equal(step(x).data, x.astype("float64") * [0.5, 1.5, 2.5] + 2)


def test_state_that_is_made_at_first_use_lasts():
    class Scaled(L.Layer):
        def __init__(self):
            self.weight = None

        def forward(self, x):
            if self.weight is None:
                self.weight = nnx.Parameter(nnx.asarray([2.0, 3.0], "float64"))
            return x * self.weight

    layer = Scaled()
    step = capture(layer)
    for i in range(5):
        assert step(np.full(2, float(i))).tolist() == [2.0 * i, 3.0 * i]
    assert "1 plan" in repr(step)


def test_numbers_among_the_arguments_tell_plans_apart():
    step = capture(lambda x, k: nnx.Tensor(x) / k)
    for k in (1, 1.0, -0.0, 0.0, True) * 3:
        with np.errstate(divide="ignore"):
            assert np.array_equal(step(np.ones(2), k).data, np.ones(2) / k)
    assert "5 plans" in repr(step)


def test_threads_wait_for_each_other():
    def make(wrap):
        net = model()
        step = wrap(trainer(net, optim.SGD(net.parameters(), lr=0.0)))
        data, losses = batches(40), [0.0] * 40

        def work(start):
            for i in range(start, 40, 4):
                losses[i] = float(step(*data[i]))

        if wrap is capture:
            threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        else:
            for k in range(4):
                work(k)
        for p in net.parameters():
            p.grad = None  # of whichever came last
        return net, losses

    both(make)


def test_a_group_that_is_added_later_is_updated():
    def make(wrap):
        net = model()
        opt = optim.Adam(net[0].parameters())
        step, losses = wrap(trainer(net, opt)), []
        for i, (x, t) in enumerate(batches(12)):
            if i == 6:
                opt.add_param_group({"params": net[2].parameters(), "lr": 0.1})
            net.zero_grad()
            losses.append(float(step(x, t)))
        return net, losses

    both(make)


def test_parameters_that_lie_elsewhere_are_read_there():
    net = model()
    predict = capture(net.eval())
    (x, _), *_ = batches(1)
    for _ in range(3):
        predict(x)
    for p in net.parameters():
        p.move(p.backend, "float64")
        p.move(p.backend, "float32")
        p.data = p.data * 2
    assert np.array_equal(predict(x), net(x))


@pytest.mark.parametrize("kept", [(0,), (1,), (2,), (0, 1), (0, 1, 2, 3, 4)])
def test_gradients_that_the_caller_keeps(kept):
    """What is kept before a plan is there stays as it is; a replay may write into what it left."""

    def make(wrap):
        net = model()
        step = wrap(trainer(net, optim.SGD(net.parameters(), lr=0.1)))
        losses, grads = [], []
        for i, (x, t) in enumerate(batches(8)):
            losses.append(float(step(x, t)))
            if i in kept:
                grads.append((net[0].W.grad, net[0].W.grad.copy()))
        if wrap is not capture:
            assert all(np.array_equal(g, values) for g, values in grads)
        return net, losses

    both(make)


def test_a_prediction_before_and_after_the_first_gradients():
    """The function does not touch them: they are not its affair."""
    net, ((x, t), *_) = model(), batches(1)
    step = trainer(net, optim.SGD(net.parameters(), lr=0.1))
    predict = capture(lambda x: net(nnx.Tensor(x)).data)
    with nnx.no_grad():
        predict(x)
    step(x, t)
    assert all(p.grad is p.slot for p in net.parameters())
    with nnx.no_grad():
        for _ in range(3):
            expected = net(nnx.Tensor(x)).data
            np.testing.assert_array_equal(predict(x), expected)
        assert "1 plan>" in repr(predict)
    assert all(p.grad is p.slot for p in net.parameters())
    for p in net.parameters():
        p.grad = None
    with nnx.no_grad():
        predict(x)
    assert all(p.grad is None for p in net.parameters()) and "1 plan>" in repr(predict)
