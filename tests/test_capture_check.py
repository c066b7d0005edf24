"""What check=True finds, and that it changes nothing."""

from __future__ import annotations

import pytest
from capture_tools import batches, equal, model, trainer, values

import nnx
from nnx import optim
from nnx.capture import capture


def flipping(check):
    net, count = model(), [0]
    optimizer = optim.Adam(net.parameters())

    def f(x, t):
        count[0] += 1
        optimizer.zero_grad()
        loss = nnx.softmax_cross_entropy(net(nnx.Tensor(x)), t)
        if count[0] > 4:
            loss = loss + 1.0  # from the fifth call on
        loss.backward()
        optimizer.step()
        return loss

    return capture(f, check=check), net


def test_a_branch_that_flips_later_is_found_by_check_alone():
    step, _ = flipping(check=False)
    for x, t in batches(8):
        step(x, t)
    step, _ = flipping(check=True)
    data = batches(8)
    for x, t in data[:4]:
        step(x, t)
    with pytest.raises(nnx.CaptureError) as error:
        step(*data[4])
    assert "# from the fifth call on`: this call of the captured function came to" in str(
        error.value
    )


def test_check_changes_nothing():
    def run(wrap):
        net = model(nnx.layers.Dropout(0.3))
        step = wrap(trainer(net, optim.Adam(net.parameters()), clip=0.5))
        losses = [float(step(x, t)) for x, t in batches(10)]
        drawn = nnx.random.generator().random()
        return [*values(net), *(p.grad for p in net.parameters()), losses, drawn]

    assert equal(run(lambda f: f), run(lambda f: capture(f, check=True)))


def test_check_finds_a_plan_that_is_wrong():
    net = model()
    step = capture(trainer(net, optim.SGD(net.parameters(), lr=0.1)), check=True)
    data = batches(4)
    for x, t in data[:3]:
        step(x, t)
    replay = step._latest.run

    def without_the_update(*arrays):
        before = values(net)
        made = replay(*arrays)
        for p, old in zip(net.parameters(), before, strict=True):
            p.data[...] = old
        return made

    step._latest.run = without_the_update
    with pytest.raises(nnx.CaptureError, match=r"check: after a replay an array of shape"):
        step(*data[3])
