"""Random programs: captured, they do to the last bit what they do eagerly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from programs import Program

import nnx

SEEDS = {"numpy": range(20, 60), "numba": range(10, 25)}
RUNS = [(name, s) for name, seeds in SEEDS.items() if nnx.backends()[name].available for s in seeds]


def history(seed: int, wrap: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """After each step: what happened before it, what it returned, and the state it left."""
    program = Program(seed, wrap)
    for i in range(8):
        event = program.happen() if i else "start"
        yield event, copied((program.call(*program.batch()), program.state()))


def copied(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [copied(v) for v in value]
    if isinstance(value, dict):
        return {k: copied(v) for k, v in value.items()}
    value = getattr(value, "__nnx_data__", value)
    return value.copy() if isinstance(value, np.ndarray) else value


def same(a: Any, b: Any) -> bool:
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, np.ndarray):
        equal = np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        return type(b) is np.ndarray and a.dtype == b.dtype and equal
    return type(a) is type(b) and bool(a == b)


@pytest.mark.parametrize(("name", "seed"), RUNS)
def test_a_program_does_the_same_captured(name: str, seed: int) -> None:
    with nnx.use_backend(name), np.errstate(all="ignore"):
        eager = list(history(seed, lambda f: f))
        for i, (_, found) in enumerate(history(seed, nnx.capture)):
            assert same(found, eager[i][1]), f"step {i}, after {[e for e, _ in eager[1 : i + 1]]}"
