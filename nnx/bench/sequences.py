"""Training steps on sequences: a recurrent layer, and a transformer's block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from .case import BATCHES, TITLES, Case, Gemm, Update
from .op_table import Array, normal


class SequenceInputs(NamedTuple):
    """Host arrays: weights by nnx's names; batches x with targets t (N, T, out)."""

    weights: dict[str, Array]
    batches: list[tuple[Array, Array]]


@dataclass(frozen=True)
class SequenceCase(Case):
    """A training step on x (batch, length, width), with the mean squared error and SGD."""

    rate: ClassVar[float] = 0.01
    batch: int
    length: int
    width: int

    @property
    def size(self) -> str:
        return f"{self.batch}x{self.length}x{self.width}"

    @property
    def what(self) -> str:
        return TITLES["sgd"]

    @property
    def trains(self) -> bool:
        return True

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the parameters."""
        raise NotImplementedError

    def out(self) -> int:
        """The width of the results."""
        return self.width

    def inputs(self, seed: int = 0) -> SequenceInputs:
        """Weights of variance 1 / rows, scales of 1, biases of 0; random batches."""
        rng = np.random.default_rng(seed)
        weights = {
            name: normal(rng, shape) * np.float32(shape[0] ** -0.5) if len(shape) == 2
            else np.full(shape, name.endswith("gamma"), np.float32)
            for name, shape in self.shapes().items()
        }  # fmt: skip
        lead = (self.batch, self.length)
        batches = [
            (normal(rng, (*lead, self.width)), normal(rng, (*lead, self.out())))
            for _ in range(BATCHES)
        ]
        return SequenceInputs(weights, batches)

    def update(self) -> Update | None:
        numbers = sum(int(np.prod(shape)) for shape in self.shapes().values())
        return Update(2 * 4 * numbers, 3 * 4 * numbers)


@dataclass(frozen=True)
class LSTMCase(SequenceCase):
    """One LSTM layer; its bias is one vector."""

    kind = "lstm"
    hidden: int

    @property
    def name(self) -> str:
        return f"LSTM {self.width}-{self.hidden}"

    @property
    def size(self) -> str:
        return f"batch {self.batch}, {self.length} steps"

    def out(self) -> int:
        return self.hidden

    def shapes(self) -> dict[str, tuple[int, ...]]:
        gates = 4 * self.hidden
        return {"W": (self.width, gates), "U": (self.hidden, gates), "b": (gates,)}

    def gemms(self) -> list[Gemm]:
        """All steps' inputs at once, then step by step; back likewise; the weights' at once."""
        n, gates, rows = self.batch, 4 * self.hidden, self.batch * self.length
        return [
            Gemm(rows, self.width, gates),
            *[Gemm(n, self.hidden, gates)] * self.length,
            *[Gemm(n, gates, self.hidden, right=True)] * self.length,
            Gemm(self.hidden, rows, gates, left=True),
            Gemm(self.width, rows, gates, left=True),
        ]


@dataclass(frozen=True)
class BlockCase(SequenceCase):
    """A causal transformer block: attention, and two Linear layers with gelu between."""

    kind = "block"
    heads: int

    @property
    def name(self) -> str:
        return f"transformer block, {self.heads} heads"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for name in ("norm1", "norm2"):
            found |= {f"{name}.gamma": (self.width,), f"{name}.beta": (self.width,)}
        for name, shape in self._linear().items():
            found |= {f"{name}.W": shape, f"{name}.b": shape[1:]}
        return found

    def _linear(self) -> dict[str, tuple[int, int]]:
        w = self.width
        return {
            "attention.qkv": (w, 3 * w), "attention.out": (w, w), "mlp.0": (w, 4 * w),
            "mlp.3": (4 * w, w),
        }  # fmt: skip

    def gemms(self) -> list[Gemm]:
        """Of the scores those that count: half, and the diagonal. Of x no gradient is needed, but
        of the first norm's scale.
        """
        rows, e, seen = self.batch * self.length, self.width // self.heads, (self.length + 1) // 2
        heads = self.batch * self.heads
        found = []
        for i, o in self._linear().values():
            found += [Gemm(rows, i, o), Gemm(i, rows, o, left=True)]
            found.append(Gemm(rows, o, i, right=True))
        scores, values = Gemm(self.length, e, seen, right=True), Gemm(self.length, seen, e)
        turned = Gemm(seen, self.length, e, left=True)
        return [*found, *[scores, values, turned, scores, values, turned] * heads]
