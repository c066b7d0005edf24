"""How a backend replaces portable kernels by its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .errors import DtypeError
from .op import Kernel, Kernels, Op, derivative_of, signature
from .update import Update


class Overrides(Mapping[Any, Any]):
    """A backend's table of kernels that replace portable ones, by op (or Update).

    forward(op)             one forward with the portable one's parameters and extras
    derivative(op, "x")     one derivative kernel; it reads what the portable one may read
    fused(op)               forward and derivatives together, with extras of their own
    update(update)          an update kernel that writes in place
    prepare(kernel)         how `nnx.capture` repeats one of these kernels without new arrays
    """

    def __init__(self) -> None:
        self.table: dict[Any, Any] = {}
        self.prepared: dict[Kernel, Callable[..., Any]] = {}

    def __getitem__(self, target: Any) -> Any:
        return self.table[target]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.table)

    def __len__(self) -> int:
        return len(self.table)

    def forward(self, target: Op[...]) -> Callable[[Kernel], Kernel]:
        def define(kernel: Kernel) -> Kernel:
            _check_parameters(kernel, target)
            self.table[target] = Kernels(kernel, self._of(target).derivatives)
            return kernel

        return define

    def derivative(self, target: Op[...], *arguments: str) -> Callable[[Kernel], Kernel]:
        def define(kernel: Kernel) -> Kernel:
            now = self._of(target)
            if arguments not in {d.arguments for d in now.derivatives}:
                raise DtypeError(f"override of {target.name}.d{arguments}: there is none")
            mine = derivative_of(target, arguments, kernel)
            replaced = tuple(mine if d.arguments == arguments else d for d in now.derivatives)
            self.table[target] = Kernels(now.forward, replaced)
            return kernel

        return define

    def fused(self, target: Op[...]) -> Callable[[Kernel], Op[...]]:
        def define(kernel: Kernel) -> Op[...]:
            _check_parameters(kernel, target)
            return _Fused(kernel, target, self)

        return define

    def update(self, target: Update) -> Callable[[Kernel], Kernel]:
        def define(kernel: Kernel) -> Kernel:
            _check_parameters(kernel, target)
            self.table[target] = kernel
            return kernel

        return define

    def prepare(self, kernel: Kernel | Op[...]) -> Callable[[Kernel], Kernel]:
        """Register `f(empty, results, xp, *arrays, **attributes)` for one of the backend's kernels.

        It returns calls (function, args, attributes) that write what the kernel returned when it
        was recorded, `results`, from what then lies in its arguments; or None, and the kernel runs
        again and its results are copied. `empty(shape, dtype)` gives scratch that stays.
        """

        def define(f: Kernel) -> Kernel:
            self.prepared[kernel.forward if isinstance(kernel, Op) else kernel] = f
            return f

        return define

    def _of(self, target: Op[...]) -> Kernels:
        found: Kernels = self.get(target) or Kernels(
            target.forward, target.derivatives, portable=True
        )
        return found


def _check_parameters(kernel: Kernel, target: Op[...] | Update) -> None:
    mine, expected = signature(kernel), target.signature
    if (mine.arrays, mine.attributes) != (expected.arrays, expected.attributes):
        raise DtypeError(
            f"override of {target.name}: its parameters are {mine.arrays} and {mine.attributes}, "
            f"expected {expected.arrays} and {expected.attributes}"
        )


class _Fused(Op[...]):
    """The forward of `Overrides.fused`, to which `.d(...)` adds the derivatives."""

    def __init__(self, kernel: Kernel, target: Op[...], table: Overrides) -> None:
        super().__init__(kernel)
        self._target, self._table = target, table
        table.table[target] = Kernels(kernel, ())

    def d(self, *arguments: str) -> Callable[[Kernel], Kernel]:
        def define(kernel: Kernel) -> Kernel:
            super(_Fused, self).d(*arguments)(kernel)
            self._table.table[self._target] = Kernels(self.forward, self.derivatives)
            return kernel

        return define
