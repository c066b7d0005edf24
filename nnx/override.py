"""How a backend replaces portable kernels by its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .backend import Array
from .errors import DtypeError
from .op import Derivative, Kernel, Kernels, Op, Signature, derivative_of, signature
from .update import Update

Run = tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]
Empty = Callable[..., Array]  # empty(shape, dtype=...)


class Calls:
    """A kernel written as the calls it makes, which `nnx.capture` repeats into the same arrays.

        @overrides.forward(nnx.ops.silu)
        @calls
        def silu(new, empty, x):
            y = new(x.shape, dtype=x.dtype)
            return y, [(my.silu_into, (x, y), {})]

    It gives the result (as any kernel: with extras, a tuple) and calls (function, args, attributes)
    that write all of it. `new` makes the arrays of the result, `empty` scratch. None says that the
    arrays are not such as it takes, and the kernel that it replaces runs.

    inplace     the arguments in whose memory the first result may lie, if of one layout with it
    otherwise   the kernel that runs instead; by default the one that this replaces
    """

    def __init__(
        self, f: Callable[..., Any], inplace: tuple[str, ...], otherwise: Kernel | None
    ) -> None:
        self.f, self.inplace, self.otherwise = f, inplace, otherwise
        self.__name__, self.__qualname__, self.__doc__ = f.__name__, f.__qualname__, f.__doc__
        self.__code__ = f.__code__
        self.names = f.__code__.co_varnames[2 : f.__code__.co_argcount]

    def __call__(self, xp: Any, *args: Any, **attrs: Any) -> Any:
        made = self.f(xp.empty, xp.empty, *args, **attrs)
        if made is None:
            assert self.otherwise is not None
            return self.otherwise(xp, *args, **attrs)
        result, runs = made
        for f, given, options in runs:
            f(*given, **options)
        return result

    def again(
        self, results: Sequence[Array], empty: Empty, args: Any, attrs: Mapping[str, Any]
    ) -> list[Run] | None:
        """The calls that write these results anew, from what then lies in the arguments."""
        left = iter(results)
        made = self.f(lambda shape, dtype: next(left), empty, *args, **attrs)
        return None if made is None else made[1]

    def lends(self, args: Sequence[Any]) -> list[Array]:
        return [a for name, a in zip(self.names, args, strict=False) if name in self.inplace]


def calls(
    f: Any = None, *, inplace: tuple[str, ...] = (), otherwise: Kernel | None = None
) -> Any:
    """Make a kernel of a function that gives the calls; see `Calls`."""
    if f is None:
        return lambda g: Calls(g, inplace, otherwise)
    return Calls(f, inplace, otherwise)


class Overrides(Mapping[Any, Any]):
    """A backend's table of kernels that replace portable ones, by op (or Update).

    forward(op)             one forward with the portable one's parameters and extras
    derivative(op, "x")     one derivative kernel; it reads what the portable one may read
    fused(op)               forward and derivatives together, with extras of their own
    update(update)          an update kernel that writes in place

    Each may be written as `calls`. `parent` is the table of the backend's parent, whose kernels
    run where these do not take the arrays.
    """

    def __init__(self, parent: Overrides | None = None) -> None:
        self.table: dict[Any, Any] = {}
        self.parent = parent

    def __getitem__(self, target: Any) -> Any:
        return self.table[target]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.table)

    def __len__(self) -> int:
        return len(self.table)

    def forward(self, target: Op[...]) -> Callable[[Any], Any]:
        def define(kernel: Any) -> Any:
            _check_parameters(kernel, target)
            _otherwise(kernel, self.inherited(target).forward)
            self.table[target] = Kernels(kernel, self._of(target).derivatives)
            return kernel

        return define

    def derivative(self, target: Op[...], *arguments: str) -> Callable[[Any], Any]:
        def define(kernel: Any) -> Any:
            now = self._of(target)
            if arguments not in {d.arguments for d in now.derivatives}:
                raise DtypeError(f"override of {target.name}.d{arguments}: there is none")
            inherited = {d.arguments: d for d in self.inherited(target).derivatives}
            _otherwise(kernel, inherited[arguments].kernel)
            mine = derivative_of(target, arguments, kernel, _lead(kernel))
            replaced = tuple(mine if d.arguments == arguments else d for d in now.derivatives)
            self.table[target] = Kernels(now.forward, replaced)
            return kernel

        return define

    def fused(self, target: Op[...]) -> Callable[[Any], Fused]:
        def define(kernel: Any) -> Fused:
            _check_parameters(kernel, target)
            return Fused(kernel, target, self)

        return define

    def update(self, target: Update) -> Callable[[Any], Any]:
        def define(kernel: Any) -> Any:
            _check_parameters(kernel, target)
            self.replace(target, kernel)
            return kernel

        return define

    def replace(self, target: Update, kernel: Any) -> None:
        """As `update`, for a kernel whose parameters are `*args, **attrs`."""
        found = None if self.parent is None else self.parent.get(target)
        _otherwise(kernel, target.in_place if found is None else found)
        self.table[target] = kernel

    def inherited(self, target: Op[...]) -> Kernels:
        """What runs without this table: the parent's kernels, else the portable ones."""
        found: Kernels | None = None if self.parent is None else self.parent.get(target)
        return found or Kernels(target.forward, target.derivatives, portable=True)

    def _of(self, target: Op[...]) -> Kernels:
        found: Kernels | None = self.get(target)
        return found or self.inherited(target)


class Fused:
    """The forward of `Overrides.fused`; `.d(...)` adds the derivatives."""

    def __init__(self, kernel: Any, target: Op[...], table: Overrides) -> None:
        self.kernel, self._target, self._table = kernel, target, table
        table.table[target] = Kernels(kernel, ())

    def d(self, *arguments: str) -> Callable[[Any], Any]:
        def define(kernel: Any) -> Any:
            now: Kernels = self._table.table[self._target]
            mine: Derivative = derivative_of(self._target, arguments, kernel, _lead(kernel))
            made = Kernels(self.kernel, (*now.derivatives, mine))
            self._table.table[self._target] = made
            return kernel

        return define


def _lead(kernel: Any) -> int:
    """How many parameters come before the arrays: `xp`, or `new, empty`."""
    return 2 if isinstance(kernel, Calls) else 1


def _otherwise(kernel: Any, inherited: Kernel) -> None:
    if isinstance(kernel, Calls) and kernel.otherwise is None:
        kernel.otherwise = inherited


def _check_parameters(kernel: Any, target: Op[...] | Update) -> None:
    mine: Signature = signature(kernel, _lead(kernel))
    expected = target.signature
    if (mine.arrays, mine.attributes) != (expected.arrays, expected.attributes):
        raise DtypeError(
            f"override of {target.name}: its parameters are {mine.arrays} and {mine.attributes}, "
            f"expected {expected.arrays} and {expected.attributes}"
        )
