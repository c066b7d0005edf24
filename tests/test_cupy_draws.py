"""Random numbers in a replay on cupy: those of eager steps, whatever else draws in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from capture_tools import batches, model, trainer
from cupy_tools import host, trained
from fake_cupy import FakeCupy

import nnx
from nnx import layers as L
from nnx import optim, random
from nnx.capture import capture

Between = Callable[[], Any]


def masks(wrap: Callable[..., Any], between: dict[int, Between]) -> list[Any]:
    """What two layers of dropout leave of ones in 12 calls; `between` is done before some."""
    nnx.seed(5)
    first, second = L.Dropout(0.5), L.Dropout(0.25)
    x = nnx.asarray(np.ones((6, 7), np.float32))
    called = wrap(lambda x: (first(nnx.Tensor(x)), second(nnx.Tensor(x))))
    found = []
    for i in range(12):
        between.get(i, lambda: None)()
        found += [host(y.data) for y in called(x)]
    return [*found, random.generator().random()]


@pytest.mark.parametrize(
    "between",
    [
        {},
        {6: lambda: nnx.seed(3), 9: lambda: nnx.seed(3)},
        {5: lambda: random.generator().random(), 8: lambda: random.generator().integers(7)},
        {7: lambda: L.Dropout(0.5)(nnx.Tensor(nnx.asarray(np.ones(3, np.float32))))},
    ],
    ids=["nothing", "seeds", "draws on the host", "an eager mask"],
)
def test_replayed_masks_are_eager_ones(device: Any, between: dict[int, Between]) -> None:
    for a, b in zip(masks(lambda f: f, between), masks(capture, between), strict=True):
        np.testing.assert_array_equal(a, b)


def test_two_plans_draw_from_one_generator(device: Any) -> None:
    def run(wrap: Callable[..., Any]) -> list[Any]:
        nnx.seed(1)
        layer = L.Dropout(0.5)
        one, other = (wrap(lambda x: layer(nnx.Tensor(x))) for _ in range(2))
        x = nnx.asarray(np.ones((4, 9), np.float32))
        return [host(f(x).data) for _ in range(6) for f in (one, one, other)]

    for a, b in zip(run(lambda f: f), run(capture), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_generator_of_ones_own(device: Any) -> None:
    def run(wrap: Callable[..., Any]) -> list[Any]:
        own = np.random.default_rng(3)
        layer, x = L.Dropout(0.5), nnx.asarray(np.ones((4, 9), np.float32))
        called = wrap(lambda x: layer(nnx.Tensor(x)))
        with random.using(own):
            return [host(called(x).data) for _ in range(6)] + [own.random()]

    for a, b in zip(run(lambda f: f), run(capture), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_generator_that_a_graph_has_no_copy_of(device: Any) -> None:
    layer, x = L.Dropout(0.5), nnx.asarray(np.ones(3, np.float32))
    step = capture(lambda x: layer(nnx.Tensor(x)))
    with random.using(np.random.Generator(np.random.MT19937(0))):
        step(x)
        with pytest.raises(nnx.CaptureError, match=r"draws from numpy.random.MT19937, of which a"):
            step(x)


def test_nothing_is_sent_for_masks(standin: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a constant rate, and arguments on the device, a step is the launch alone."""
    sent: list[int] = []
    memcpy = standin.cuda.runtime.memcpyAsync

    def noted(to: int, source: int, size: int, kind: int, stream: int) -> None:
        sent.append(kind)
        memcpy(to, source, size, kind, stream)

    monkeypatch.setattr(standin.cuda.runtime, "memcpyAsync", noted)
    net = model(L.Dropout(0.5))
    step = capture(trainer(net, optim.SGD(net.parameters(), lr=0.1)))
    counts = []
    for i, (x, t) in enumerate(batches(12)):
        if i == 8:
            nnx.seed(1)
        step(nnx.asarray(x), nnx.asarray(t))
        counts.append(sent.count(standin.cuda.runtime.memcpyHostToDevice))
    assert counts == [0, 0, *[1] * 6, *[2] * 4]


def test_a_step_that_failed_draws_again(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy on the device has not gone on: the next step sends the state."""
    from nnx_cupy import static

    def run(failing: bool) -> Any:
        calls = 0
        send = static.Ring.send

        def broken(self: Any, *args: Any) -> Any:
            nonlocal calls
            calls += 1
            if failing and calls == 3:
                raise KeyboardInterrupt
            return send(self, *args)

        monkeypatch.setattr(static.Ring, "send", broken)
        nnx.seed(0)
        layer, x = L.Dropout(0.5), nnx.asarray(np.ones((4, 9), np.float32))
        step = capture(lambda x: layer(nnx.Tensor(x)))
        found = []
        for _ in range(8):
            nnx.seed(len(found))
            try:
                found.append(host(step(x).data))
            except KeyboardInterrupt:
                continue
        return found

    for a, b in zip(run(True), run(False)[:7], strict=True):
        np.testing.assert_array_equal(a, b)


def test_trainings_with_masks_are_the_same_each_time(device: Any) -> None:
    def sgd(parameters: Any) -> optim.Optimizer:
        return optim.SGD(parameters, lr=0.1)

    first, _ = trained(capture, sgd, 20, L.Dropout(0.5))
    again, _ = trained(capture, sgd, 20, L.Dropout(0.5))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
