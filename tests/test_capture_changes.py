"""What changes between the first calls, or in them, and a replay would not repeat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from capture_tools import batches, both, model, train, trainer

import nnx
from nnx import layers as L
from nnx import optim
from nnx.capture import capture

X = np.arange(8.0)
CHANGED = "was changed in place outside nnx"


def failing(f: Callable[..., Any], *args: Any, match: str) -> None:
    step = capture(f)

    def twice() -> None:
        for _ in range(2):
            step(*args)

    with pytest.raises(nnx.CaptureError, match=match):
        twice()
    assert "0 plans" in repr(step)


def test_seeding_inside() -> None:
    def f(x: Any) -> Any:
        nnx.seed(5)  # here
        return nnx.dropout(nnx.Tensor(x), 0.5)

    state = nnx.random.generator().bit_generator.state
    failing(f, X, match="# here`: nnx.seed in a captured function, which a replay would not repeat")
    assert nnx.random.generator().bit_generator.state == state


def test_seeding_between_calls() -> None:
    def make(wrap: Any) -> Any:
        net = model(L.Dropout(0.5))
        step = wrap(trainer(net, optim.SGD(net.parameters(), 0.1)))
        losses = []
        for x, t in batches(6):
            nnx.seed(3)
            losses.append(float(step(x, t)))
        return net, losses

    both(make)


@pytest.mark.parametrize(
    ("option", "changed"),
    [
        ("lr", lambda v: v * 0.5),
        ("weight_decay", lambda v: v + 0.1),
        ("momentum", lambda v: 0.9 - v),
    ],
)
def test_an_option_that_the_function_changes(option: str, changed: Any) -> None:
    net = model()
    opt = optim.SGD(net.parameters(), 0.1)
    step = trainer(net, opt)

    def f(x: Any, t: Any) -> Any:
        opt.param_groups[0][option] = changed(opt.param_groups[0][option])
        return step(x, t)

    failing(f, *batches(1)[0], match=f"the captured function changed its optimizer's {option} from")


@pytest.mark.parametrize("option", ["momentum", "weight_decay"])
def test_an_option_that_changes_between_the_first_calls(option: str) -> None:
    """Calls of a rare shape are far apart: much may happen between the first two of them."""

    def make(wrap: Any) -> Any:
        net = model()
        opt = optim.SGD(net.parameters(), 0.1, momentum=0.9)
        step, losses = wrap(trainer(net, opt)), []
        for i, (x, t) in enumerate(batches(6)):
            opt.param_groups[0][option] = (0.9, 0.8, 0.7, 0.7, 0.7, 0.7)[i] if i else 0.0
            losses.append(float(step(x, t)))
        return net, losses

    both(make)


def test_state_that_is_loaded_between_the_first_calls() -> None:
    def make(wrap: Any) -> Any:
        nnx.seed(0)
        net = L.Sequential(L.Linear(12, 5, bias=False))  # alone: its state lies in no buffer
        opt = optim.Adam(net.parameters(), 0.1)
        step, losses = wrap(trainer(net, opt)), []
        for rows in (8, 8, 8, 3, 8, 3, 8, 3):
            (x, t), *_ = batches(1, rows)
            losses.append(float(step(x, t)))
            if rows == 3:
                opt.load_state_dict(opt.state_dict())
        return net, losses

    both(make)


def test_an_array_that_is_changed_after_its_use() -> None:
    held = X.copy()

    def f(x: Any) -> Any:
        y = nnx.Tensor(x) * nnx.Tensor(held)
        held[:] = held[::-1].copy()  # its sum stays
        return y

    failing(f, X, match=CHANGED)


def test_an_array_that_is_changed_before_its_use() -> None:
    order, rng = np.arange(8), np.random.default_rng(3)

    def f(x: Any) -> Any:
        rng.shuffle(order)
        return nnx.take(nnx.Tensor(x), order, axis=0)  # the use

    failing(f, X, match=f"# the use`: here or before, an array of shape .8,. {CHANGED}")


@pytest.mark.parametrize("size", [1, 7, 8192, 20001])
def test_checksums_see_values_and_their_order(size: int) -> None:
    checksum = nnx.get_backend().replay().checksum
    rng = np.random.default_rng(0)
    for dtype in ("float64", "float32", "uint8"):
        a = (rng.random(size) * 100).astype(dtype)
        seen = {checksum(a)}
        for i in {0, size // 2, size - 1}:
            b = a.copy()
            b[i] += 1
            seen.add(checksum(b))
        if size > 1:
            seen |= {checksum(a[::-1].copy()), checksum(np.roll(a, 1))}
        assert len(seen) == 1 + len({0, size // 2, size - 1}) + 2 * (size > 1)
        assert checksum(a.copy()) in seen
    assert checksum(np.empty((0, 3))) == checksum(np.empty((0, 3)))


def test_calls_that_differ_in_strides_that_do_not_matter() -> None:
    """An axis of length 1 may have any stride: each has a plan of its own."""

    def f(x: Any) -> Any:
        return nnx.sum(nnx.Tensor(x) * 2.0, axis=0)

    step, rows = capture(f), np.arange(24.0).reshape(4, 6)
    column = rows[:, :1].copy()
    for x in (rows[0][None], rows[1:2], rows[::2][:1], column, np.asfortranarray(column)) * 3:
        assert np.array_equal(step(x).data, f(x).data)


@pytest.mark.parametrize(
    ("zero", "kind"),
    [(0.0, float), (0.0, np.float64), (0.0, np.float32), (0j, complex), (0j, np.complex128)],
)
def test_negative_zero_is_another_number(zero: Any, kind: Any) -> None:
    step = capture(lambda x, c: nnx.Tensor(x) / abs(c) * np.copysign(1.0, c.real).item())
    with np.errstate(divide="ignore"):
        for _ in range(3):
            for c in (kind(zero), kind(-zero)):
                assert np.array_equal(
                    step(np.ones(2), c).data, np.full(2, np.copysign(np.inf, c.real))
                )
    assert "2 plans" in repr(step)


def test_losses_of_half_precision() -> None:
    def make(wrap: Any) -> Any:
        nnx.seed(0)
        net = L.Sequential(L.Linear(12, 5, dtype="float16"))
        data = [(x.astype("float16"), t) for x, t in batches(6)]
        return train(wrap, net, optim.SGD(net.parameters(), 0.05), data)

    both(make)
