"""What a case is: a row of a table, of which each implementation makes something to be timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from .op_table import Array

BATCHES = 8  # that a training step goes through in turn, so that no input stays in a cache
RATES = {"sgd": 1e-3, "adam": 1e-5}  # low: the loss still falls after all the steps that are timed
NONE_SUCH = "has none such"  # what an implementation says of a case that it is without
TITLES = {"sgd": "SGD", "adam": "Adam"}


class Prepared(NamedTuple):
    """One implementation of a case, ready to be called again and again.

    run           one call; it may return before the device has finished
    values        what `run` returned, as NumPy arrays: what is compared between implementations
    synchronize   waits for the device
    """

    run: Callable[[], Any]
    values: Callable[[Any], list[Array]]
    synchronize: Callable[[], None] = lambda: None


class Gemm(NamedTuple):
    """A matrix product: (m, k) times (k, n); `left`, `right`: that factor is a transposed view."""

    m: int
    k: int
    n: int
    left: bool = False
    right: bool = False

    @property
    def flops(self) -> int:
        return 2 * self.m * self.k * self.n


class Update(NamedTuple):
    """What an optimizer does to memory in a step: bytes it holds, and bytes it reads and writes."""

    held: int
    moved: int


@dataclass(frozen=True)
class Case:
    """One row of a table: the label says it all."""

    kind: ClassVar[str]

    @property
    def name(self) -> str:
        raise NotImplementedError

    @property
    def size(self) -> str:
        raise NotImplementedError

    @property
    def what(self) -> str:
        raise NotImplementedError

    @property
    def label(self) -> str:
        return f"{self.name}, {self.size}, {self.what}"

    @property
    def trains(self) -> bool:
        """Whether `run` is a training step and gives its loss."""
        return False

    def gemms(self) -> list[Gemm]:
        """The matrix products of a training step, in order: what its floor is computed from."""
        return []

    def update(self) -> Update | None:
        """What the optimizer moves in a training step; None where nothing is trained."""
        return None
