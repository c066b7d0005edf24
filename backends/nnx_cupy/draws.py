"""Random numbers of a graph: keys that it draws itself, in step with the host's generator."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from nnx.errors import CaptureError

from . import philox

Array = Any


class Drawn(NamedTuple):
    """An array that is to hold random numbers, and the line that asks for it."""

    generator: np.random.Generator
    array: Array
    where: str


class Draws:
    """Arrays of random numbers, with the keys that eager steps would draw for them, in that order.

    The device has a copy of the host's generator, which each launch brings forward. The host's own
    goes along with it; its state is sent only where it has been used or seeded otherwise since.
    """

    def __init__(self, generator: np.random.Generator, where: str) -> None:
        self.generator, self.arrays = generator, list[Array]()
        self.like = [((4,), np.dtype(np.uint64))]
        self._bits = generator.bit_generator
        name = type(self._bits).__name__
        if name != "PCG64":
            raise CaptureError(
                f"{where}: draws from numpy.random.{name}, of which a CUDA graph has no copy; "
                f"expected PCG64, that of numpy.random.default_rng(seed)"
            )
        self._before: Any = None
        self._after: Any = None
        self._device: Any = None  # the state of the copy, where that is known

    def bind(self, cupy: Any, parts: list[Array]) -> None:
        (self._state,) = parts
        self._keys = cupy.empty(len(self.arrays), "int64")

    def unpack(self, cupy: Any) -> None:
        philox.next_keys(self._state, self._keys)
        for i, array in enumerate(self.arrays):
            philox.fill(array, self._keys[i : i + 1])

    def advance(self) -> bool:
        """Draw a step's keys on the host; whether the device's generator is elsewhere."""
        there, self._device = self._device, None  # until there was a launch
        self._before = self._bits.state
        self.generator.integers(2**63, size=len(self.arrays))
        self._after = self._bits.state["state"]
        return bool(there != self._before["state"])

    def take_back(self) -> None:
        self._bits.state = self._before

    def write(self, views: list[np.ndarray[Any, Any]]) -> None:
        views[0][...] = philox.words_of(self._before["state"])

    def launched(self) -> None:
        self._device = self._after


def grouped(drawn: Iterable[Drawn]) -> list[Draws]:
    """By generator: one that a step draws from several times is one on the device too."""
    found: dict[int, Draws] = {}
    for generator, array, where in drawn:
        if id(generator) not in found:
            found[id(generator)] = Draws(generator, where)
        found[id(generator)].arrays.append(array)
    return list(found.values())
