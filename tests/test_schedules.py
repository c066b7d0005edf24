"""Learning rates over a run; PyTorch's schedulers are the oracle."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import nnx
from nnx.optim import schedules
from nnx.optim.schedules import Progress, Schedule

RATE = 0.3
torch_schedules = torch.optim.lr_scheduler


def of_torch(make: Callable[[Any], Any], steps: int) -> list[float]:
    """The rate of each step."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    schedule = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        schedule.step()
    return rates


def of_nnx(schedule: Schedule, steps: int, steps_per_epoch: int = 1) -> list[float]:
    epochs = steps // steps_per_epoch
    return [RATE * schedule(Progress(i, steps_per_epoch, epochs)) for i in range(steps)]


@pytest.mark.parametrize(
    ("schedule", "oracle"),
    [
        (schedules.constant(), lambda o: torch_schedules.ConstantLR(o, 1.0)),
        (schedules.step(5), lambda o: torch_schedules.StepLR(o, 5)),
        (schedules.step(3, 0.5), lambda o: torch_schedules.StepLR(o, 3, 0.5)),
        (schedules.exponential(0.9), lambda o: torch_schedules.ExponentialLR(o, 0.9)),
        (schedules.cosine(), lambda o: torch_schedules.CosineAnnealingLR(o, 20)),
        (
            schedules.one_cycle(),
            lambda o: torch_schedules.OneCycleLR(o, RATE, 20, cycle_momentum=False),
        ),
        (
            schedules.one_cycle(rise=0.5, start=0.1, end=0.001),
            lambda o: torch_schedules.OneCycleLR(
                o, RATE, 20, pct_start=0.5, div_factor=10, final_div_factor=100,
                cycle_momentum=False,
            ),
        ),
        (schedules.warmup(5), lambda o: torch_schedules.LinearLR(o, 0.2, total_iters=4)),
    ],
)  # fmt: skip
def test_rates_are_pytorchs(schedule: Schedule, oracle: Callable[[Any], Any]) -> None:
    expected = of_torch(oracle, 20)
    assert of_nnx(schedule, 20) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert len(set(expected)) > 1 or schedule(Progress(7, 1, 20)) == 1


def test_warmup_is_multiplied_with_what_follows() -> None:
    both = of_nnx(schedules.warmup(4, then=schedules.cosine()), 20)
    cosine = of_nnx(schedules.cosine(), 20)
    assert both[:4] == pytest.approx([r * (i + 1) / 4 for i, r in enumerate(cosine[:4])])
    assert both[4:] == cosine[4:]


def test_epochs_count_steps() -> None:
    """The same at ten steps per epoch as at one, where both are between epochs."""
    for schedule in (schedules.step(0.3), schedules.exponential(0.5), schedules.cosine()):
        fine = of_nnx(schedule, 200, steps_per_epoch=10)
        assert fine[::10] == pytest.approx(of_nnx(schedule, 20))
    assert of_nnx(schedules.step(0.3, 0.5), 10, 10) == pytest.approx(
        [RATE * 0.5 ** (i // 3) for i in range(10)]
    )


ALL = [f"{name}:0.7" for name in schedules.SCHEDULES if name not in ("constant", "cosine")]


@given(
    st.sampled_from(["constant", "cosine", *ALL]), st.integers(1, 9), st.integers(1, 9), st.data()
)
def test_factors_lie_between_0_and_1(
    name: str, steps_per_epoch: int, epochs: int, data: st.DataObject
) -> None:
    step = data.draw(st.integers(0, steps_per_epoch * epochs - 1))
    factor = schedules.named(name)(Progress(step, steps_per_epoch, epochs))
    assert type(factor) is float and 0 < factor <= 1


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("constant", schedules.constant()),
        ("step:4", schedules.step(4)),
        ("step:4,0.5", schedules.step(4, 0.5)),
        ("exponential:0.8", schedules.exponential(0.8)),
        ("one-cycle:0.2", schedules.one_cycle(0.2)),
        ("warmup", schedules.warmup()),
        ("warmup:2+step:5,0.3", schedules.warmup(2, then=schedules.step(5, 0.3))),
    ],
)
def test_names(text: str, same: Schedule) -> None:
    assert of_nnx(schedules.named(text), 20, 2) == of_nnx(same, 20, 2)


@pytest.mark.parametrize(
    "text",
    ["", "warm", "cosine:", "cosine:1,2", "step", "step:", "step:a", "step:1,2,3", "cosine+step:2",
     "warmup:2+", "warmup:2+lion", "step:1+cosine"],
)  # fmt: skip
def test_unknown_names(text: str) -> None:
    with pytest.raises(nnx.OptionError, match=r"unknown schedule .* expected one of constant, cos"):
        schedules.named(text)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.step(0), "step: epochs=0, expected a number above 0"),
        (lambda: schedules.exponential(math.nan), "exponential: gamma=nan, expected a number abov"),
        (lambda: schedules.warmup(True), "warmup: epochs=True, expected a number"),
        (lambda: schedules.one_cycle(rise=1.0), "one_cycle: rise=1.0, expected a part of all ste"),
        (lambda: schedules.named("step:inf"), "step: epochs=inf, expected a number above 0"),
    ],
)
def test_numbers_out_of_range(make: Callable[[], Schedule], message: str) -> None:
    with pytest.raises(nnx.OptionError, match=message):
        make()
