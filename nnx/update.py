"""Update kernels: the only ones that write. Optimizers, statistics, accumulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .backend import Backend, backend_of, override_for
from .signature import Kernel, signature

UPDATES: dict[str, Update] = {}


class Update:
    """A kernel that writes: the only kind that does. Optimizers, statistics, accumulation.

    The portable kernel is pure and returns the new value of each target; the backend writes it.
    A backend's override writes into the targets itself and returns nothing.
    """

    def __init__(self, kernel: Kernel, targets: tuple[str, ...]) -> None:
        self.kernel, self.targets = kernel, targets
        self.name, self.__doc__ = kernel.__name__, kernel.__doc__
        self.signature = signature(kernel)
        self.positions = tuple(self.signature.arrays.index(t) for t in targets)
        self.key = f"{kernel.__module__}.{self.name}"
        self._resolved: dict[Backend, tuple[Kernel, bool]] = {}

    def __call__(self, *args: Any, **attrs: Any) -> Any:
        """The arrays that now hold the targets: the same ones where the library writes in place."""
        backend = backend_of(args[self.positions[0]])
        kernel, writes = self._resolved.get(backend) or self._resolve(backend)
        values = backend.call(kernel, args, attrs)
        held: tuple[Any, ...]
        if writes:
            held = tuple([args[i] for i in self.positions])
        else:
            results = values if type(values) is tuple else (values,)
            pairs = zip(self.positions, results, strict=True)
            held = tuple([backend.write(args[i], value) for i, value in pairs])
        return held if len(self.positions) > 1 else held[0]

    def in_place(self, xp: Any, *args: Any, **attrs: Any) -> None:
        """The portable kernel as an override would be: it writes the targets itself."""
        values = self.kernel(xp, *args, **attrs)
        results = values if type(values) is tuple else (values,)
        for i, value in zip(self.positions, results, strict=True):
            args[i][...] = value

    def _resolve(self, backend: Backend) -> tuple[Kernel, bool]:
        """The kernel for that backend, and whether it writes by itself."""
        override = override_for(backend, self)
        found = (self.kernel, False) if override is None else (override, True)
        self._resolved[backend] = found
        return found


def update(*targets: str) -> Callable[[Kernel], Update]:
    """Make an update kernel that writes the arguments named."""

    def define(kernel: Kernel) -> Update:
        made = Update(kernel, targets)
        UPDATES[made.key] = made
        return made

    return define
