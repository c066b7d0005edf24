"""From rounds to figures: medians, ratios, rows, worked out by hand."""

from __future__ import annotations

import pytest

from nnx.bench import run, summary
from nnx.bench.cases import NetworkCase, OpCase
from nnx.bench.rounds import Timed
from nnx.bench.summary import Round

CASE = NetworkCase((64, 32, 10), 32, "sgd")


def rounds(*seconds: float, noisy: tuple[int, ...] = ()) -> list[Round]:
    return [Round(s, i not in noisy) for i, s in enumerate(seconds)]


def test_median_and_quartiles() -> None:
    assert summary.spread([4.0, 1.0, 3.0, 2.0, 5.0]) == (3.0, 2.0, 4.0)
    assert summary.spread([1.0, 2.0]) == (1.5, 1.0, 2.0)


def test_seconds_are_those_of_clean_rounds() -> None:
    assert summary.seconds(rounds(1.0, 50.0, 3.0, noisy=(1,))) == (2.0, 1.0, 3.0)
    assert summary.seconds(rounds(1.0, 50.0, noisy=(0, 1))) == (25.5, 1.0, 50.0)


def test_a_ratio_is_taken_within_rounds() -> None:
    """The ratio of the medians would be 3."""
    above, below = rounds(2.0, 4.0, 8.0, 3.0, 1.0), rounds(1.0, 2.0, 4.0, 0.5, 1.0)
    assert summary.ratio(above, below) == (2.0, 2.0, 2.0)
    above = rounds(2.0, 4.0, 8.0, noisy=(0,))
    below = rounds(1.0, 1.0, 1.0, noisy=(1,))
    assert summary.ratio(above, below) == (8.0, 8.0, 8.0)  # one pair in which both are clean
    below = rounds(1.0, 1.0, 1.0, noisy=(1, 2))
    assert summary.ratio(above, below) == (4.0, 2.0, 8.0)  # none is


def test_parts_are_added_round_by_round() -> None:
    parts = [rounds(1.0, 2.0), rounds(10.0, 20.0, noisy=(1,))]
    assert summary.added(parts, [1.0, 0.5]) == [(6.0, True), (12.0, False)]


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ([9.0, 5.0, 3.0, 3.0], 16),  # slower, slower, faster from 16 on
        ([0.5, 5.0, 3.0, 3.0], 16),  # a lucky first batch does not count
        ([0.5, 1.0, 3.0, 3.0], 1),
        ([9.0, 9.0, 9.0, 9.0], None),
        ([9.0, 1.0, 3.0, 9.0], None),
    ],
)
def test_crossover(device: list[float], expected: int | None) -> None:
    assert summary.crossover([1, 4, 16, 64], [1.0, 2.0, 4.0, 8.0], device) == expected


def timed() -> dict[str, Timed]:
    """Three rounds; the second was disturbed for PyTorch."""
    return {
        "torch": Timed(rounds(8.0, 99.0, 12.0, noisy=(1,)), cores=1.5),
        "jax": Timed(rounds(4.0, 5.0, 3.0)),
        "torch-compile": Timed(reason="no compiler"),
        "naive": Timed(reason="loss differs", wrong=True),
        "numpy": Timed(rounds(4.0, 4.0, 4.0)),
        "numba": Timed(rounds(2.0, 2.0, 6.0)),
        "floor products": Timed(rounds(0.5, 0.5, 0.5)),
        "floor update": Timed(rounds(0.2, 0.4, 0.6)),
    }


def test_a_row_by_hand() -> None:
    found = run.row(CASE, 1, timed(), "torch", frozenset({"numpy", "numba"}))
    assert (found["name"], found["size"], found["what"]) == ("64-32-10", "batch 32", "SGD")
    torch = found["times"]["torch"]
    assert torch["seconds"] == [10.0, 8.0, 12.0]
    assert (torch["clean"], torch["noisy"], torch["cores"]) == (2, [1], 1.5)
    assert torch["rounds"] == [8.0, 99.0, 12.0]
    assert found["times"]["numpy"].get("speed") == [2.5, 2.0, 3.0]  # 8/4, 12/4
    assert found["times"]["numba"].get("speed") == [3.0, 2.0, 4.0]  # 8/2, 12/6
    assert found["best"] == {
        "column": "numba",
        "against": {"torch": [3.0, 2.0, 4.0], "jax": [2.0, 0.5, 2.5]},  # 4/2, 5/2, 3/6
    }
    assert found["empty"] == {"torch-compile": "no compiler", "naive": "loss differs"}
    assert found["wrong"] == ["naive"]
    floor = found["floor"]
    assert floor is not None
    assert floor["flops"] == sum(gemm.flops for gemm in CASE.gemms())
    assert floor["update"] == pytest.approx([0.6, 0.3, 0.9])  # SGD moves 3/2 of what a copy does
    # numba over products and update: 2/0.8, 2/1.1, 6/1.4
    assert floor.get("distance") == pytest.approx([2.5, 1.818, 4.286])


def test_a_row_without_the_baseline_or_nnx() -> None:
    given = {"torch": Timed(reason="died"), "jax": Timed(rounds(1.0))}
    found = run.row(OpCase("relu", (6, 8)), 1, given, "torch", frozenset({"numpy"}))
    assert "speed" not in found["times"]["jax"]
    assert found["best"] is None and found["floor"] is None
