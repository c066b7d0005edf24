"""Replayed training equals eager training to the last bit, and plans change when they must."""

from __future__ import annotations

import numpy as np
import pytest
from capture_tools import batches, both, model, train, trainer

import nnx
from nnx import layers as L
from nnx import optim
from nnx.capture import capture

OPTIMIZERS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("AdaGrad", {"lr": 0.1, "lr_decay": 0.2, "initial_accumulator_value": 0.5}),
    ("RMSProp", {}),
    ("RMSProp", {"centered": True, "momentum": 0.8, "weight_decay": 0.05}),
    ("Adam", {}),
    ("Adam", {"weight_decay": 0.05}),
    ("AdamW", {}),
]


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=str)
def test_every_optimizer_to_the_last_bit(name, options):
    def make(wrap):
        net = model()
        return train(wrap, net, getattr(optim, name)(net.parameters(), **options), batches(24))

    both(make)


@pytest.mark.parametrize("between", [L.Dropout(0.3), L.Sigmoid(), L.Gelu(), L.Residual(L.Tanh())])
def test_layers_between(between):
    def make(wrap):
        net = model(between)
        return train(wrap, net, optim.Adam(net.parameters()), batches(24))

    both(make)


def test_dropout_draws_on_where_eager_execution_would():
    def make(wrap):
        net = model(L.Dropout(0.5))
        trained = train(wrap, net, optim.SGD(net.parameters(), lr=0.1), batches(6))
        return trained[0], [*trained[1], float(nnx.random.generator().random())]

    both(make)


def test_clipping():
    def make(wrap):
        net = model()
        return train(wrap, net, optim.SGD(net.parameters(), lr=0.5), batches(24), clip=0.3)

    both(make)


def test_a_schedule_needs_no_new_plan():
    def make(wrap):
        net = model()
        opt = optim.Adam(net.parameters())
        step, losses = wrap(trainer(net, opt)), []
        for i, (x, t) in enumerate(batches(24)):
            opt.param_groups[0]["lr"] = 0.01 * 0.9**i
            losses.append(float(step(x, t)))
        assert "1 plan" in repr(step) or wrap is not capture
        return net, losses

    both(make)


def test_another_option_is_noticed():
    def make(wrap):
        net = model()
        opt = optim.SGD(net.parameters(), lr=0.1)
        step, losses = wrap(trainer(net, opt)), []
        for i, (x, t) in enumerate(batches(24)):
            opt.param_groups[0]["weight_decay"] = 0.1 * (i // 8)
            opt.param_groups[0]["momentum"] = 0.9 * (i >= 12)
            losses.append(float(step(x, t)))
        return net, losses

    both(make)


@pytest.mark.parametrize("inside", [True, False])
def test_gradients_accumulate_over_two_batches(inside):
    def make(wrap):
        net = model()
        opt = optim.SGD(net.parameters(), lr=0.1)

        def gradients(x, t):
            loss = nnx.softmax_cross_entropy(net(nnx.Tensor(x)), t) * 0.5
            loss.backward()
            return loss

        def whole(x, t):
            opt.zero_grad()
            first, second = gradients(x[:8], t[:8]), gradients(x[8:], t[8:])
            opt.step()
            return first + second

        if inside:
            step = wrap(whole)
            return net, [float(step(x, t)) for x, t in batches(24)]
        step, losses = wrap(gradients), []
        for i, (x, t) in enumerate(batches(24)):
            if i % 2 == 0:
                opt.zero_grad()
            losses.append(float(step(x, t)))
            if i % 2:
                opt.step()
        return net, losses

    both(make)


def test_a_last_partial_batch_has_a_plan_of_its_own():
    def make(wrap):
        net = model()
        step, losses = wrap(trainer(net, optim.Adam(net.parameters()))), []
        for _ in range(4):
            for x, t in batches(4) + batches(1, rows=7):
                losses.append(float(step(x, t)))
        assert "2 plans" in repr(step) or wrap is not capture
        return net, losses

    both(make)


def test_the_least_recently_used_plan_is_dropped():
    step = capture(lambda x: nnx.relu(x), max_plans=2)
    for n in (1, 2, 3, 1):
        for _ in range(2):
            step(np.ones(n))
    assert "2 plans" in repr(step)
    assert [len(k[1]) and k[1][0][0] for k in step._plans] == [(3,), (1,)]


def test_eval_and_train():
    def make(wrap):
        net = model(L.Dropout(0.5))
        step, losses = wrap(trainer(net, optim.SGD(net.parameters(), lr=0.1))), []
        predict = wrap(net)
        for i, (x, t) in enumerate(batches(24)):
            net.train(i % 4 != 3)
            losses.append(float(step(x, t)))
            net.eval()
            losses.append(float(predict(x).sum()))
        return net, losses

    both(make)


def test_a_frozen_layer_that_thaws():
    def make(wrap):
        net = model()
        step, losses = wrap(trainer(net, optim.Adam(net.parameters()))), []
        for i, (x, t) in enumerate(batches(24)):
            for p in net[0].parameters():
                p.requires_grad = not 4 <= i < 12
            losses.append(float(step(x, t)))
        return net, losses

    both(make)


def test_parameters_that_moved_or_were_loaded():
    def make(wrap):
        net = model()
        opt = optim.Adam(net.parameters())
        step, losses = wrap(trainer(net, opt)), []
        for i, (x, t) in enumerate(batches(24)):
            if i == 8:
                net.load_state_dict({k: v * 0.5 for k, v in net.state_dict().items()})
                opt.load_state_dict(opt.state_dict())
            if i == 14:
                net.astype("float64")
            losses.append(float(step(x.astype(net[0].W.dtype), t)))
        return net, losses

    both(make)


def test_two_captured_functions_share_a_model():
    def make(wrap):
        net = model()
        opt = optim.Adam(net.parameters())
        step, predict, losses = wrap(trainer(net, opt)), wrap(net), []
        small = wrap(trainer(net, optim.SGD(net.parameters(), lr=0.01)))
        for i, (x, t) in enumerate(batches(24)):
            losses.append(float((step, small)[i % 3 == 2](x, t)))
            losses.append(float(predict(x).sum()))
        return net, losses

    both(make)
