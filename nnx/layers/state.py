"""Loading a state dict: all mismatches together, and nothing changed if there is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import incoming, written
from ..errors import StateError

if TYPE_CHECKING:
    from .base import Layer


def check_state(layer: Layer, state: Mapping[str, Any]) -> None:
    """StateError with all keys that do not fit."""
    held = dict(layer.named_state())
    problems = [f"missing: {k}" for k in held if k not in state]
    problems += [f"unexpected: {k}" for k in state if k not in held]
    for name, p in held.items():
        if name in state:
            shape = _shape(state[name])
            if shape != p.shape:
                problems.append(f"misshaped: {name} is {shape}, expected {p.shape}")
    if problems:
        raise StateError(
            "load_state_dict: the state does not fit the model, nothing was changed:\n  "
            + "\n  ".join(problems)
        )


def load_state(layer: Layer, state: Mapping[str, Any]) -> None:
    """Check every key first, then copy the values in, cast to the dtypes that are there."""
    check_state(layer, state)
    held = dict(layer.named_state())
    values = {name: incoming(state[name], p.data, p.backend) for name, p in held.items()}
    for name, p in held.items():
        p.update(written(p.data, values[name], p.backend))


def _shape(value: Any) -> tuple[int, ...] | str:
    try:
        return tuple(np.shape(value))
    except ValueError:
        return "ragged"
