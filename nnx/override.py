"""How a backend replaces portable kernels by its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .calls import Calls
from .errors import DtypeError
from .op import Op, derivative_of
from .signature import Derivative, Kernel, Kernels, Signature, signature
from .update import Update


class Fusion:
    """Several kernels of a backend that follow one another, and the calls that do the work of all.

        @overrides.fusion((affine, "x W b -> y"), (relu, "y -> z"))
        def affine_relu(run, x, W, b, z):
            run(my.affine_relu_into, x, W, b, z)
            return True

    A step is a kernel and what it is called with: an op stands for its forward, (op, "x") for the
    derivative by x, an Update for itself, a function of the namespace for itself. The same name is
    the same array, "_" is anything, "1" a constant of ones; "->" comes before the results.
    `nnx.capture` replaces such steps, also with others between them, by the calls that the function
    makes through `run` (as in `Calls`), given the arrays by name, results too, and options of the
    kernels by name. It returns False where it does not take the arrays. A result that the function
    does not name must not be needed elsewhere.

    exact     whether the values are equal to the last bit; others are used on request
    inplace   names in whose memory the first result may lie, if of one layout with it
    """

    def __init__(
        self, steps: Sequence[tuple[Any, str]], build: Callable[..., bool],
        exact: bool, inplace: tuple[str, ...],
    ) -> None:  # fmt: skip
        self.build, self.exact, self.inplace = build, exact, inplace
        code = build.__code__
        self.__name__ = build.__name__.strip("_")
        self.steps = [(target, *_sides(signature)) for target, signature in steps]
        names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
        if code.co_flags & 0x08:  # **named: all that there is
            names = tuple(n for step in self.steps for n in (*_attributes(step[0]), *step[1]))
        self.names = frozenset(names)


def _attributes(target: Any) -> tuple[str, ...]:
    return target.signature.attributes if isinstance(target, (Op, Update)) else ()


def _sides(signature: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    given, _, made = signature.partition("->")
    return tuple(given.split()), tuple(made.split())


class Overrides(Mapping[Any, Any]):
    """A backend's table of kernels that replace portable ones, by op (or Update).

    forward(op)             one forward with the portable one's parameters and extras
    derivative(op, "x")     one derivative kernel; it reads what the portable one may read
    fused(op)               forward and derivatives together, with extras of their own; `.value`
                            gives the result alone, where no derivative follows
    update(update)          an update kernel that writes in place
    test(f)                 a quick look before a test of values
    fusion((op, "x -> y"), ...)    calls that replace several kernels in a replay

    Each may be written as `calls`. `parent` is the table of the backend's parent, whose kernels
    run where these do not take the arrays.
    """

    def __init__(self, parent: Overrides | None = None) -> None:
        self.table: dict[Any, Any] = {}
        self.fusions: list[Fusion] = []
        self.tests: dict[Callable[..., None], Callable[..., bool]] = {}
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
            mine = derivative_of(target, arguments, kernel)
            replaced = tuple(mine if d.arguments == arguments else d for d in now.derivatives)
            self.table[target] = Kernels(now.forward, replaced, value=now.value)
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

    def fusion(
        self, *steps: tuple[Any, str], exact: bool = True, inplace: tuple[str, ...] = ()
    ) -> Callable[[Any], Fusion]:
        """Register calls that replace kernels which follow one another; see `Fusion`."""

        def define(build: Any) -> Fusion:
            self.fusions.append(Fusion(steps, build, exact, inplace))
            return self.fusions[-1]

        return define

    def test(self, f: Callable[..., None]) -> Callable[[Any], Any]:
        """Register a quick look before an op's test of values (`Op.check`): True skips the test."""

        def define(quick: Any) -> Any:
            self.tests[f] = quick
            return quick

        return define

    def kernel(self, target: Any) -> Any:
        """What runs for a step of a fusion."""
        if isinstance(target, Op):
            return self._of(target).forward
        if isinstance(target, tuple):
            op, *arguments = target
            found = {d.arguments: d.kernel for d in self._of(op).derivatives}
            return found[tuple(arguments)]
        return self.table.get(target, target) if isinstance(target, Update) else target

    def inherited(self, target: Op[...]) -> Kernels:
        """What runs without this table: the parent's kernels, else the portable ones."""
        found: Kernels | None = None if self.parent is None else self.parent.get(target)
        return found or Kernels(target.forward, target.derivatives, portable=True)

    def _of(self, target: Op[...]) -> Kernels:
        found: Kernels | None = self.get(target)
        return found or self.inherited(target)


class Fused:
    """The forward of `Overrides.fused`; `.d(...)` adds the derivatives.

    A forward that computes for the derivatives what the result does not need has a kernel beside
    it, `.value`, for where none follows: the same result to the last bit, without extras.
    """

    def __init__(self, kernel: Any, target: Op[...], table: Overrides) -> None:
        self.kernel, self._target, self._table = kernel, target, table
        table.table[target] = Kernels(kernel, ())

    def d(self, *arguments: str) -> Callable[[Any], Any]:
        def define(kernel: Any) -> Any:
            now: Kernels = self._table.table[self._target]
            mine: Derivative = derivative_of(self._target, arguments, kernel)
            made = Kernels(self.kernel, (*now.derivatives, mine), value=now.value)
            self._table.table[self._target] = made
            return kernel

        return define

    def value(self, kernel: Any) -> Any:
        _check_parameters(kernel, self._target)
        _otherwise(kernel, self._table.inherited(self._target).value)
        now: Kernels = self._table.table[self._target]
        self._table.table[self._target] = Kernels(now.forward, now.derivatives, value=kernel)
        return kernel


def _otherwise(kernel: Any, inherited: Kernel) -> None:
    if isinstance(kernel, Calls) and kernel.otherwise is None:
        kernel.otherwise = inherited


def _check_parameters(kernel: Any, target: Op[...] | Update) -> None:
    mine: Signature = signature(kernel)
    expected = target.signature
    if (mine.arrays, mine.attributes) != (expected.arrays, expected.attributes):
        raise DtypeError(
            f"override of {target.name}: its parameters are {mine.arrays} and {mine.attributes}, "
            f"expected {expected.arrays} and {expected.attributes}"
        )
