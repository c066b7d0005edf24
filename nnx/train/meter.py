"""Means over the rows of batches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..arrays import to_numpy
from ..backend import Array, Backend
from ..errors import StateError


class Meter:
    """Means over rows, summed up where the batches lie.

    Adding a batch does not wait for the device; `means` does.
    """

    def __init__(self, names: Sequence[str], backend: Backend) -> None:
        self.names, self.rows = tuple(names), 0
        self._sums: list[Any] = [0.0] * len(self.names)
        self._on_host = backend.on_host

    def add(self, rows: int, values: Sequence[Array]) -> None:
        """A batch of so many rows, with its mean for each name."""
        if self._on_host:
            values = [float(value) for value in values]
        for i, value in enumerate(values):
            self._sums[i] = self._sums[i] + value * rows
        self.rows += rows

    def means(self) -> dict[str, float]:
        """Each name's mean; NaN before the first row."""
        return {
            name: float(to_numpy(total)) / self.rows if self.rows else math.nan
            for name, total in zip(self.names, self._sums, strict=True)
        }

    def state(self) -> dict[str, Any]:
        sums = {name: float(to_numpy(s)) for name, s in zip(self.names, self._sums, strict=True)}
        return {"rows": self.rows, "sums": sums}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with the sums of `state()`; StateError if they are of other names."""
        if tuple(state["sums"]) != self.names:
            raise StateError(f"it has {', '.join(state['sums'])}, expected {', '.join(self.names)}")
        self._sums = [float(total) for total in state["sums"].values()]
        self.rows = int(state["rows"])
