"""What a recorded run changes, to be put back where memory runs out before there is a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..backend import Array, Backend
from .log import Leaf, set_gradient

if TYPE_CHECKING:
    from .recording import Recording

T = TypeVar("T")


class Undo:
    """Values of what a run writes, on the host: a device whose memory is full has no room."""

    def __init__(self, base: Backend) -> None:
        self._base = base
        self._values: dict[int, tuple[Array, np.ndarray[Any, Any]]] = {}
        self._before: list[Callable[[], None]] = []

    def writes(self, root: Array) -> None:
        """Told of memory before it is written."""
        if id(root) not in self._values:
            self._values[id(root)] = root, np.array(self._base.to_numpy(root))

    def counts(self, source: Any) -> None:
        """Told of an optimizer before it counts a step."""
        steps = source.steps()
        self._before.append(lambda: source.rewind(steps))

    def draws(self, generator: Any) -> None:
        """Told of a generator before it draws."""
        bits = generator.bit_generator
        state = bits.state
        self._before.append(lambda: setattr(bits, "state", state))

    def restore(self, leaves: Iterable[Leaf]) -> None:
        """All as it was before the run; the last change is undone first."""
        for root, values in self._values.values():
            self._base.put(root, values)
        for change in reversed(self._before):
            change()
        for leaf in leaves:
            set_gradient(leaf.tensor, leaf.grad)
            leaf.tensor._version = leaf.version
        self.forget()

    def forget(self) -> None:
        self._values.clear()
        self._before.clear()


@contextmanager
def all_or_nothing(record: Recording, given: list[Array]) -> Iterator[None]:
    """A block that runs and plans a recording: where memory runs out, it has done nothing.

    given   the arrays that the function was called with
    """
    try:
        yield
    except MemoryError:
        record.undo()
        record.forget()
        given.clear()
        raise


def planned(make: Callable[[], T]) -> T:
    """What `make` gives. Where memory runs out, the error comes without the frames of nnx's that
    it went through: they hold what was made so far as long as somebody handles it.
    """
    try:
        return make()
    except MemoryError as error:
        full = copy(error)
    raise full
